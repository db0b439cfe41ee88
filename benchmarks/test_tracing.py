"""The cost of instruments: a switch with each kind, as a ratio to a switch without, in the same run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from wasmtime import FuncType, ValType

from greenctx import ContextSwitchingEnvironment, Instrument, Statistics, Trace
from greenctx.wasix import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

TIMES = 10_000
UNTRACED = "untraced_switch"
UNTRACED_GUEST = "untraced_guest_switch"

GUEST = b"""(module
  (import "wasix_32v1" "context_create" (func $create (param i32 i32) (result i32)))
  (import "wasix_32v1" "context_switch" (func $switch (param i64) (result i32)))
  (import "host" "again" (func $again (result i32)))
  (memory (export "memory") 1)
  (table (export "__indirect_function_table") 2 funcref)
  (elem (i32.const 1) $other)
  (func $other (loop $again (drop (call $switch (i64.const 0))) (br $again)))
  (func (export "_start") (local $times i32)
    (drop (call $create (i32.const 0) (i32.const 1)))
    (loop $repeat
      (local.set $times (call $again))
      (if (i32.eqz (local.get $times)) (then (return)))
      (loop $loop
        (drop (call $switch (i64.const 1)))
        (br_if $loop (local.tee $times (i32.sub (local.get $times) (i32.const 1)))))
      (br $repeat))))"""


def switch(
    measure: Callable[..., None], instruments: Sequence[Instrument] | None = None, baseline: str | None = UNTRACED
) -> None:
    """There and back between main and a context."""
    environment = ContextSwitchingEnvironment(instruments=instruments or ())

    def other() -> None:
        while True:
            environment.switch_context(0)

    def main() -> None:
        context = environment.create_context(other)

        def ping_pong() -> None:
            for _ in range(TIMES // 2):
                environment.switch_context(context)

        measure(ping_pong, times=TIMES, baseline=baseline)

    environment.run_main_context(main)


def guest_switch(
    measure: Callable[..., None], instruments: Sequence[Instrument] = (), baseline: str | None = UNTRACED_GUEST
) -> None:
    """The same in a guest, which asks how many times: the measurement resumes it from within that call."""
    program = Program(GUEST, instruments=instruments)
    to_do: Iterator[int] = iter(())
    times: list[int] = []

    def again() -> int:
        return next(to_do, 0)

    def run() -> None:
        nonlocal to_do
        to_do = iter(times)
        program.run()

    program.linker.define_func("host", "again", FuncType([], [ValType.i32()]), again)
    times[:] = [TIMES // 2] * 2  # so many that the start of the program does not matter
    measure(run, times=TIMES * 2, baseline=baseline)


def test_untraced_switch(measure: Callable[..., None]) -> None:
    switch(measure, baseline=None)


def test_switch_with_an_idle_instrument(measure: Callable[..., None]) -> None:
    """An instrument that does nothing shows the cost of the reports themselves."""
    switch(measure, [Instrument()])


def test_switch_with_statistics(measure: Callable[..., None]) -> None:
    switch(measure, [Statistics()])


def test_traced_switch(measure: Callable[..., None], tmp_path: Path) -> None:
    with Trace(tmp_path / "out.json") as trace:
        switch(measure, [trace])


def test_untraced_guest_switch(measure: Callable[..., None]) -> None:
    guest_switch(measure, baseline=None)


def test_traced_guest_switch(measure: Callable[..., None], tmp_path: Path) -> None:
    """With a slice of the host call that it is, too, in each context."""
    with Trace(tmp_path / "out.json") as trace:
        guest_switch(measure, [trace])


@pytest.mark.parametrize("instruments", [0, 1])
def test_create_and_destroy(measure: Callable[..., None], instruments: int) -> None:
    """A context that never starts; the second without instruments is the first's baseline."""
    environment = ContextSwitchingEnvironment(instruments=[Instrument()] * instruments)

    def main() -> None:
        def repeat() -> None:
            for _ in range(2000):
                environment.destroy_context(environment.create_context(list))

        measure(repeat, times=2000, baseline="create_and_destroy[0]" if instruments else None)

    environment.run_main_context(main)
