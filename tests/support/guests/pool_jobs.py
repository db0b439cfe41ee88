"""Jobs for worker processes of pools, which import them by name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from greenctx.wasix import Limits, Program

if TYPE_CHECKING:
    from collections.abc import Callable

TRAPPING = b'(module $guest (func $inner unreachable) (func (export "_start") (call $inner)))'
ENDLESS = b'(module (func (export "_start") (loop (br 0))))'
THROWING = b'(module (tag $error (param i32)) (func (export "_start") (throw $error (i32.const 7))))'
EXITING = b"""(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1) (func (export "_start") (call $exit (i32.const 3))))"""


def trap() -> int:
    return Program(TRAPPING).run()


def time_out() -> int:
    return Program(ENDLESS, limits=Limits(seconds=0.05)).run()


def throw() -> int:
    return Program(THROWING).run()


def run(program: Program) -> tuple[int, int]:
    """Return the exit status of the program, and the process in which it ran."""
    return program.run(), os.getpid()


FAILING: dict[str, Callable[[], int]] = {"trap": trap, "limit": time_out, "exception": throw}
