"""Compiles the C guests of tests/guests, with zig. What was compiled is kept for the next run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

GUESTS = Path(__file__).parent / "guests"
CACHE = GUESTS / ".cache"
# zig defines NDEBUG at -O1 and above, and the guests' asserts are tests.
FLAGS = ("--target=wasm32-wasi", "-std=gnu11", "-Wall", "-Werror", "-UNDEBUG", "-g", "-Wl,--export-table")


@cache
def compile_guest(name: str, *flags: str) -> Path:
    """Compile ``tests/guests/{name}.c`` and return the path of the module.

    It is named by all that it is made from, and put in place in one step: runs side by side, or one that is aborted,
    do no harm.
    """
    source, header = GUESTS / f"{name}.c", GUESTS / "wasix_context.h"
    options = [*FLAGS, *(flags or ("-O1",))]
    made_from = [version("ziglang").encode(), repr(options).encode(), source.read_bytes(), header.read_bytes()]
    module = CACHE / f"{name}-{sha256(b'|'.join(made_from)).hexdigest()[:16]}.wasm"
    if not module.exists():
        CACHE.mkdir(exist_ok=True)
        (CACHE / ".gitignore").write_text("*\n")
        with tempfile.TemporaryDirectory(dir=CACHE) as directory:
            fresh = Path(directory) / module.name
            command = [sys.executable, "-m", "ziglang", "cc", *options, str(source), "-o", str(fresh)]
            subprocess.run(command, check=True, timeout=280)
            os.replace(fresh, module)
    return module
