"""The environment and its model (model.py) are given the same random commands and must agree after each.

``--long`` runs ten times as many.
"""

from __future__ import annotations

import pytest
from random_runs.machine import Machine

TestModel = pytest.mark.both_forms(Machine.TestCase)
