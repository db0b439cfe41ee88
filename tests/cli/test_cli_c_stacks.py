"""C guests whose contexts share one stack, or that cannot create any: what `run` and `inspect` say of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from guests.compile import compile_guest
from guests.embedding import IMPORTS
from processes import run_greenctx

if TYPE_CHECKING:
    from pathlib import Path

TABLE = '(table (export "__indirect_function_table") funcref (elem $other))'
POINTER = '(global (export "__stack_pointer") (mut i32) (i32.const 65536))'
WARNING = (
    b"greenctx: all contexts of this guest share one C stack, and may corrupt each other's locals; give each a stack "
    b"by --shadow-stack 64KiB, or say --shared-stack if the guest moves its stack pointer itself\n"
)


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path / "guest.wat")


class Guest:
    """Writes a guest that creates contexts."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, *items: str, contexts: int = 3) -> Path:
        creates = "(drop (call $create (i32.const 0) (i32.const 0)))" * contexts
        parts = " ".join(items)
        self.path.write_text(
            f'(module {IMPORTS} (memory (export "memory") 1) {parts} (func $other) (func (export "_start") {creates}))'
        )
        return self.path


def test_run_says_it_once(guest: Guest) -> None:
    """When the second context is created, however many follow."""
    ran = run_greenctx("run", guest(TABLE, POINTER))
    assert (ran.returncode, ran.stderr) == (0, WARNING)


@pytest.mark.parametrize("option", [["--shared-stack"], ["--shadow-stack", "64KiB"], ["--no-contexts"]])
def test_run_is_told_not_to(option: list[str], guest: Guest) -> None:
    """There is no warning for contexts with their own stacks, or with `--shared-stack`."""
    ran = run_greenctx("run", *option, guest(TABLE, POINTER))
    assert (ran.returncode, ran.stderr) == (0, b"")


def test_run_has_nothing_to_say(guest: Guest) -> None:
    """There is no warning for one context besides main, which a guest may intend, or without the stack pointer."""
    assert run_greenctx("run", guest(TABLE, POINTER, contexts=1)).stderr == b""
    assert run_greenctx("run", guest(TABLE)).stderr == b""


def test_inspect(guest: Guest) -> None:
    """`inspect` says why every context_create returns EINVAL, and when contexts will share one C stack."""
    assert warnings(guest(POINTER)) == [
        "every context_create returns EINVAL, because __indirect_function_table is not exported: "
        "link with -Wl,--export-table",
        "contexts share one C stack, unless --shadow-stack 64KiB gives each a stack of its own",
    ]
    assert warnings(guest(TABLE)) == [
        "if it is compiled from C, its contexts share one C stack, because __stack_pointer is not exported: "
        "link with -Wl,--export=__stack_pointer and run with --shadow-stack 64KiB"
    ]
    assert warnings(compile_guest("process")) == []


def warnings(path: Path) -> list[str]:
    return re.findall(r"^warning: (.*)$", run_greenctx("inspect", path).stdout.decode(), re.MULTILINE)
