"""greenctx needs only greenlet, and for guests wasmtime and its own native part; it says what is missing."""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from processes import run_python

import greenctx

BLOCK = """
import importlib.abc, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Block())
"""


def run_blocked(blocked: str, script: str) -> str:
    ran = run_python(f"BLOCKED = {blocked!r}\n{BLOCK}\n{script}")
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
    return ran.stdout


def test_core_does_not_import_wasmtime() -> None:
    """Importing greenctx imports neither wasmtime, nor greenctx.wasix, nor an event loop."""
    script = """
import sys, greenctx
print([name for name in sys.modules if any(part in name for part in ("wasm", "wasix", "asyncio", "gevent"))])"""
    ran = run_python(script)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "[]\n", "")


UNNEEDED = """
argparse asyncio ast bz2 dataclasses decimal fractions gettext hashlib importlib.metadata importlib.resources inspect
json locale logging shutil signal tempfile tokenize traceback
greenctx._instruments.statistics greenctx._instruments.timeline greenctx._instruments.trace
greenctx._reports.log greenctx._reports.reporting_environment greenctx._reports.reports greenctx._reports.snapshot
greenctx.cli.inspecting greenctx.cli.options greenctx.cli.parser greenctx.cli.version
greenctx.wasix._clock.event_loop greenctx.wasix._program.inspection greenctx.wasix._program.run_async
greenctx.wasix._linking.typed_functions
greenctx.wasix._shadow_stacks.shadow_stacks
wasmtime.component"""
"""Modules whose import would take a good part of a small guest's run."""


def test_guests_do_not_import_what_they_need_not(tmp_path: Path) -> None:
    """``greenctx run`` of a plain guest imports only the modules that it needs."""
    guest = tmp_path / "guest.wat"
    guest.write_text('(module (memory (export "memory") 1) (func (export "_start")))')
    script = """
import gc, sys
before, sys.argv = {*sys.modules}, ["greenctx", "run", *sys.argv[1:]]
from greenctx.cli import main
assert main() == 0
assert gc.isenabled() and gc.get_freeze_count() > 10_000  # what is imported is never looked through
print(*sorted({*sys.modules} - before))"""
    for _ in range(2):  # compiled, and kept from the first time
        ran = run_python(script, str(guest))
        assert (ran.returncode, ran.stderr) == (0, "")
        imported = {*ran.stdout.split()}
        assert {"greenctx.wasix._program.program", "wasmtime"} <= imported
        # From Python 3.14 on wasmtime's package, by the way in which annotations are looked at, imports `ast`.
        assert imported.isdisjoint({*UNNEEDED.split()} - ({"ast"} if sys.version_info >= (3, 14) else set()))


@pytest.mark.parametrize("name", UNNEEDED.split())
def test_what_need_not_be_imported_is_there(name: str) -> None:
    """Each name in the list is the name of a module that exists."""
    assert find_spec(name) is not None


@pytest.mark.parametrize("option", ["--version", "--help", "run --help"])
def test_help_does_not_import_wasmtime(option: str) -> None:
    """The help does not import wasmtime, and does not need it."""
    script = """
import atexit, sys
from greenctx.cli import main
atexit.register(lambda: print("imported" if "wasmtime" in sys.modules else "not imported", file=sys.stderr))
main(sys.argv[1:])"""
    ran = run_python(script, *option.split())
    assert (ran.returncode, ran.stderr) == (0, "not imported\n")
    assert ran.stdout.startswith(("greenctx 0", "usage: greenctx"))


@pytest.mark.parametrize(
    "blocked",
    [
        "wasmtime",
        "greenctx.wasix._native._fiber",
        "greenctx._core._switching",
        "greenctx._reports._delivery",
        "greenctx._instruments._tracks",
    ],
)
def test_core_without_the_rest(blocked: str) -> None:
    """Without wasmtime, or without a native part, contexts in Python switch as usual, and instruments are told."""
    script = """
import os
from greenctx import ContextSwitchingEnvironment, Trace
with Trace(os.devnull) as trace:
    env = ContextSwitchingEnvironment(instruments=[trace])
    def other():
        print("other")
        env.switch_context(0)
    env.run_main_context(lambda: env.switch_context(env.create_context(other)))
"""
    assert run_blocked(blocked, script) == "other\n"


@pytest.mark.parametrize(
    ("blocked", "message"),
    [
        ("wasmtime", "greenctx.wasix needs wasmtime: install greenctx[wasix]"),
        ("greenctx.wasix._native._fiber", "greenctx.wasix lacks its native part"),
    ],
)
def test_guests_without_the_rest(blocked: str, message: str) -> None:
    """greenctx.wasix then raises an ImportError that says what is missing and what to do, each time it is imported; the
    command line says it in one line, with status 2."""
    script = """
import contextlib, io
for _ in range(2):
    try:
        import greenctx.wasix
    except ImportError as error:
        print(error)
from greenctx.cli import main
for arguments in (["run", "x.wasm"], ["demo"]):
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        print(main(arguments))
    print(stderr.getvalue(), end="")
"""
    first, second, *command_line = run_blocked(blocked, script).splitlines()
    assert first == second
    assert first.startswith(message)
    assert "install" in first
    assert command_line == ["2", f"greenctx: {first}"] * 2


def test_native_part_of_another_wasmtime() -> None:
    """A wasmtime whose structures are laid out otherwise is refused when greenctx.wasix is imported."""
    ran = run_python(
        """
import ctypes, wasmtime
from wasmtime import _bindings
class Larger(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_uint8), ("of", ctypes.c_uint8 * 100)]
_bindings.wasmtime_val_t = Larger
try:
    import greenctx.wasix
except ImportError as error:
    print(error)
"""
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "this wasmtime package lays out its structures as (101, 1, " in ran.stdout


def test_the_source_tree(tmp_path: Path) -> None:
    """Where Python finds the checkout before an installed greenctx, the message says so, and what to do."""
    package = tmp_path / "greenctx"
    built = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    shutil.copytree(Path(greenctx.__file__).parent, package, ignore=built)
    (tmp_path / "pyproject.toml").touch()
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import greenctx.wasix"
    said = run_python(script).stderr
    assert f"this is the source tree at {tmp_path}, where nothing was built for this Python" in said
    assert "run Python in another directory, or build it here by pip install -e ." in said
    (tmp_path / "pyproject.toml").unlink()
    said = run_python(script).stderr
    for system in (
        "Debian: apt install gcc python3-dev",
        "Fedora: dnf",
        "Alpine: apk",
        "macOS: xcode-select",
    ):
        assert system in said


@pytest.mark.parametrize("is_checkout", [True, False])
def test_a_native_part_of_other_sources(is_checkout: bool, tmp_path: Path) -> None:
    """Where the sources have changed since the native part was built, the message says so, not what a name lacks."""
    package = tmp_path / "greenctx"
    shutil.copytree(
        Path(greenctx.__file__).parent, package, ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    )
    native = package / "wasix" / "_native"
    (native / "_fiber.py").write_text("LAYOUT = ()")
    if is_checkout:
        (tmp_path / "pyproject.toml").touch()
    ran = run_python(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import greenctx.wasix")
    said = ran.stderr.splitlines()[-1]
    assert said.startswith("ImportError: greenctx.wasix lacks its native part (cannot import name ")
    if is_checkout:
        assert (
            f"the native part in the source tree at {tmp_path} was built from other sources than are there now" in said
        )
        assert said.endswith("build it again by pip install -e .")
    else:
        assert said.endswith("another system; pip install --force-reinstall greenctx")


def test_wasmtime_that_cannot_be_imported() -> None:
    """It is installed, so the advice to install it would not help: the message says what the import has met."""
    script = """
import sys
sys.modules["ctypes"] = None
try:
    import greenctx.wasix
except ImportError as error:
    print(error)
"""
    said = run_python(script).stdout
    assert said.startswith("greenctx.wasix needs wasmtime, which cannot be imported: ")
    assert "ctypes" in said
