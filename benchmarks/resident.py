"""Resident memory."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

_STATM = Path("/proc/self/statm")


def grown_by(function: Callable[[], object]) -> int:
    """Return by how many bytes the process's resident memory grows during the call."""
    if not _STATM.exists():
        pytest.skip("resident memory is read from /proc, which this system does not have")
    gc.collect()
    before = _resident()
    function()
    return _resident() - before


def _resident() -> int:
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
