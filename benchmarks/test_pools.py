"""Many programs: in a pool of two processes beside one process."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from time import perf_counter
from typing import TYPE_CHECKING

from greenctx.wasix import Program

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAMS = 200
CHUNK = 25
# About 5 ms each.
COMPUTING = b"""(module (func (export "_start") (local $n i32)
  (loop $again (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 5000000))))))"""


def test_programs_in_one_process(record: Callable[..., None]) -> None:
    """One after the other; the time of one."""
    with Program(COMPUTING) as program:

        def run() -> float:
            began = perf_counter()
            for _ in range(PROGRAMS):
                program.run()
            return (perf_counter() - began) / PROGRAMS

        record(run)


def test_programs_in_two_processes(record: Callable[..., None]) -> None:
    """Sent there in chunks, with the program in each; half of one process's time is what two processors allow."""
    with Program(COMPUTING) as program, ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:

        def run() -> float:
            began = perf_counter()
            for _ in pool.map(Program.run, [program] * PROGRAMS, chunksize=CHUNK):
                pass
            return (perf_counter() - began) / PROGRAMS

        record(run, baseline="programs_in_one_process")
