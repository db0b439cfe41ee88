"""Compiles the C guests of tests/support/guests/c, with zig, and keeps them in the user's caches for the next run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

GUESTS = Path(__file__).parent / "c"
INCLUDE = Path(str(files("greenctx.wasix") / "include"))
_CACHES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
CACHE = Path(os.environ.get("GREENCTX_TEST_GUESTS") or _CACHES / "greenctx-tests")
# zig defines NDEBUG at -O1 and above, which would remove the guests' asserts.
FLAGS = ("--target=wasm32-wasi", "-std=gnu11", "-Wall", "-Werror", "-UNDEBUG", "-g", "-Wl,--export-table")

TOOLCHAIN = (
    # With exceptions, as the toolchain's own: zig builds one C library for each set of features, which takes long.
    "-mcpu=generic+atomics+bulk_memory+mutable_globals+exception_handling",
    "-Wl,--import-memory",
    "-Wl,--shared-memory",
    f"-Wl,--initial-memory={129 * 65536}",
    f"-Wl,--max-memory={65535 * 65536}",  # zig knows of no more; the last page is added afterwards
    "-Wl,-z,stack-size=1048576",
    *(f"-Wl,--export={name}" for name in ("__stack_pointer", "__tls_base", "__tls_size", "__tls_align", "__heap_base")),
)
"""Flags that make a guest import a shared memory and the rest, as programs of WASIX's own toolchain do."""

_LIMITS_OF_ZIG, _LIMITS_OF_TOOLCHAIN = b"\6memory\2\3\x81\1\xff\xff\3", b"\6memory\2\3\x81\1\x80\x80\4"


@cache
def compile_guest(name: str, *flags: str) -> Path:
    """Compile ``tests/support/guests/c/{name}.c`` and return the path of the module.

    Its name is a hash of all inputs, and it is put in place in one step, so parallel or aborted runs do no harm.
    """
    source, headers = GUESTS / f"{name}.c", sorted([*GUESTS.glob("*.h"), *INCLUDE.glob("*.h")])
    options = [*FLAGS, *(flags or ("-O1",))]
    made_from = [
        version("ziglang").encode(),
        repr(options).encode(),
        *(file.read_bytes() for file in (source, *headers)),
    ]
    module = CACHE / f"{name}-{sha256(b'|'.join(made_from)).hexdigest()[:16]}.wasm"
    if not module.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as directory:
            fresh = Path(directory) / module.name
            command = [sys.executable, "-m", "ziglang", "cc", *options, f"-I{INCLUDE}", str(source), "-o", str(fresh)]
            subprocess.run(command, check=True)
            fresh.write_bytes(fresh.read_bytes().replace(_LIMITS_OF_ZIG, _LIMITS_OF_TOOLCHAIN))
            os.replace(fresh, module)
    return module
