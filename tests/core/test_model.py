"""The environment and its model (model.py) are given the same random commands and must agree after each.

``--hypothesis-profile=long`` runs 10,000 examples.
"""

from __future__ import annotations

import pytest
from random_runs.machine import Machine

TestModel = pytest.mark.timeout(3600)(Machine.TestCase)  # the long profile takes some minutes
