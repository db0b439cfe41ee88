"""How much memory the process has, where the system tells."""

from __future__ import annotations

import os


def resident_bytes() -> int | None:
    """Return the resident memory of this process, or None where there is no /proc to tell it."""
    # `resource` will not do: it has the peak.
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return None
