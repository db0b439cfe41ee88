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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
    """Compile ``tests/support/guests/c/{name}.c`` and return the path of the module."""
    source, options = GUESTS / f"{name}.c", [*FLAGS, *(flags or ("-O1",))]

    def compile_to(fresh: Path) -> None:
        command = [sys.executable, "-m", "ziglang", "cc", *options, f"-I{INCLUDE}", str(source), "-o", str(fresh)]
        subprocess.run(command, check=True)
        fresh.write_bytes(fresh.read_bytes().replace(_LIMITS_OF_ZIG, _LIMITS_OF_TOOLCHAIN))

    return kept(name, [repr(options).encode(), source.read_bytes()], compile_to)


def kept(name: str, made_from: Sequence[bytes], compile_to: Callable[[Path], object]) -> Path:
    """Return the path of the module that was made from this, and by this zig; call the function if there is none yet.

    Its name has a hash of all inputs, and it is put in place in one step, so parallel or aborted runs do no harm.
    """
    headers = [file.read_bytes() for file in sorted([*GUESTS.glob("*.h"), *INCLUDE.glob("*.h")])]
    inputs = b"|".join([version("ziglang").encode(), *made_from, *headers])
    module = CACHE / f"{name}-{sha256(inputs).hexdigest()[:16]}.wasm"
    if not module.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as directory:
            fresh = Path(directory) / module.name
            compile_to(fresh)
            os.replace(fresh, module)
    return module
