"""Measure the cost of a switch, and print one table of ratios: ``python benchmarks/table.py [ROUNDS]``.

All figures of a round are measured right after one another. A ratio is the median over the rounds, so it holds on a
machine whose pace changes. Times are the processor's, except Node's figure and those beside a busy thread, which are by
the clock. Node's figure needs a node with JSPI (see test_jspi.py), and is left out without it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
sys.path.insert(0, str(Path(__file__).parents[1]))

import pytest
from bare import ping_pong
from greenlet import getcurrent, greenlet
from test_guests import HEAD, PING_PONG, busy_thread
from test_jspi import node_with_jspi
from test_switch import GUEST
from wasmtime import FuncType, ValType, wat2wasm

from greenctx import ContextSwitchingEnvironment, Instrument, Trace
from greenctx.wasix import Caller, Program
from greenctx.wasix._fibers.stores import state_of

if TYPE_CHECKING:
    from collections.abc import Callable

TIMES = 10_000

# Each context switches, then calls a host function, in turn.
IN_TURN = (
    HEAD.replace("(memory", '(import "host" "nothing" (func $nothing))\n  (memory', 1)
    + """(func $other (loop $again (call $nothing) (drop (call $switch (i64.const 0))) (br $again)))
  (func (export "_start") (local $left i32)
    (drop (call $create (i32.const 0) (i32.const 1)))
    (loop $round
      (if (local.tee $left (call $times)) (then
        (loop $again
          (call $nothing) (drop (call $switch (i64.const 1)))
          (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 2)))))
        (br $round))))))"""
)
WITH_STACK_POINTER = PING_PONG.replace(
    '(memory (export "memory") 1)',
    '(memory (export "memory") 2) (global (export "__stack_pointer") (mut i32) (i32.const 65536))',
)

ROWS = [
    ("guest switch", "bare"),
    ("guest switch by the clock", "JSPI"),
    ("guest switch, not deferred", "bare"),
    ("switch and host call in turn", "the same, not deferred"),
    ("guest switch beside a busy thread", "bare beside a busy thread"),
    ("core switch", "bare"),
    ("core switch, idle instrument", "core switch"),
    ("core switch, told to an instrument", "core switch"),
    ("core switch, trace", "core switch"),
    ("guest switch, idle instrument", "guest switch, not deferred"),
    ("guest switch, trace", "guest switch, not deferred"),
    ("guest switch on shadow stacks", "guest switch, shared stack"),
]
"""Each figure, and the baseline that it is divided by."""


class Running:
    """A program whose guest asks its host function ``times`` how often to do the measured thing, and waits there."""

    def __init__(self, text: str, *, defer: bool = True, **settings: Any) -> None:
        self._program = Program(text.encode(), **settings)
        self._defer = defer
        self._measuring = getcurrent()
        define = self._program.linker.define_func
        define("host", "times", FuncType([], [ValType.i32()]), self._times, access_caller=True)
        define("host", "nothing", FuncType([], []), lambda: None)
        self._guest = greenlet(self._program.run)
        self._guest.switch()

    def _times(self, caller: Caller) -> int:
        state_of(caller.store).defers_switches = self._defer
        return int(self._measuring.switch())

    def each(self, clock: Callable[[], float] = thread_time) -> float:
        """Return the seconds of one."""
        began = clock()
        self._guest.switch(TIMES)
        return (clock() - began) / TIMES

    def close(self) -> None:
        self._guest.switch(0)
        self._program.close()


class Told(Instrument):
    """Is told of switches, and does nothing about them."""

    def context_switched(self, *_: object) -> None: ...


class Core:
    """Two contexts of the core."""

    def __init__(self, *instruments: object) -> None:
        self._environment = ContextSwitchingEnvironment(instruments=instruments)
        self._measuring = getcurrent()
        self._main = greenlet(lambda: self._environment.run_main_context(self._run))
        self._main.switch()

    def _run(self) -> None:
        switch = self._environment.switch_context
        other = self._environment.create_context(self._other)
        while times := self._measuring.switch():
            for _ in range(times // 2):
                switch(other)

    def _other(self) -> None:
        switch = self._environment.switch_context
        while True:
            switch(0)

    def each(self) -> float:
        """How many seconds a switch took."""
        began = thread_time()
        self._main.switch(TIMES)
        return (thread_time() - began) / TIMES

    def close(self) -> None:
        self._main.switch(0)


class Jspi:
    """The guest of `test_switch` under Node."""

    def __init__(self, folder: Path) -> None:
        guest = folder / "guest.wasm"
        guest.write_bytes(wat2wasm(GUEST))
        command = [*node_with_jspi(), str(Path(__file__).with_name("jspi.mjs")), str(guest)]
        self._node = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def each(self) -> float:
        """How many seconds a switch took."""
        assert self._node.stdin is not None
        assert self._node.stdout is not None
        print(10 * TIMES, file=self._node.stdin, flush=True)
        return float(self._node.stdout.readline()) / 1e9

    def close(self) -> None:
        self._node.communicate()


def beside_a_busy_thread(each: Callable[[], float]) -> Callable[[], float]:
    """Return a function that measures the same while another thread computes in Python."""

    def measure() -> float:
        with busy_thread():
            return each()

    return measure


def make_all(folder: Path, cleanup: ExitStack) -> dict[str, Callable[[], float]]:
    """Return a function for each figure, which measures it."""

    def opened(thing: Any) -> Callable[[], float]:
        cleanup.callback(thing.close)
        each: Callable[[], float] = thing.each
        return each

    guest = Running(PING_PONG)
    figures: dict[str, Callable[[], float]] = {
        "bare": lambda: ping_pong(TIMES, thread_time),
        "core switch": opened(Core()),
        "guest switch": opened(guest),
        "guest switch by the clock": lambda: guest.each(perf_counter),
        "guest switch, not deferred": opened(Running(PING_PONG, defer=False)),
        "switch and host call in turn": opened(Running(IN_TURN)),
        "the same, not deferred": opened(Running(IN_TURN, defer=False)),
        "guest switch, shared stack": opened(Running(WITH_STACK_POINTER)),
        "guest switch on shadow stacks": opened(Running(WITH_STACK_POINTER, shadow_stack=4096)),
        "bare beside a busy thread": beside_a_busy_thread(lambda: ping_pong(4 * TIMES)),
        "guest switch beside a busy thread": beside_a_busy_thread(lambda: guest.each(perf_counter)),
        "core switch, idle instrument": opened(Core(Instrument())),
        "core switch, told to an instrument": opened(Core(Told())),
        "guest switch, idle instrument": opened(Running(PING_PONG, instruments=[Instrument()])),
    }
    for kind, make in (("core", Core), ("guest", lambda trace: Running(PING_PONG, instruments=[trace]))):
        trace = cleanup.enter_context(Trace(folder / f"{kind}.json"))
        figures[f"{kind} switch, trace"] = opened(make(trace))
    with suppress(pytest.skip.Exception):
        figures["JSPI"] = opened(Jspi(folder))
    return figures


def main(rounds: int = 21) -> None:
    """Measure, and print the table."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as cleanup:
        figures = make_all(Path(folder), cleanup)
        taken: list[dict[str, float]] = []
        for _ in range(rounds + 1):
            taken.append({name: figure() for name, figure in figures.items()})
    del taken[0]  # the warm-up
    print(f"Python {sys.version.split()[0]}, {rounds} rounds; nanoseconds and ratios are medians\n")
    print(f"{'':36} {'ns':>6} {'ratio':>6}")
    for name, baseline in ROWS:
        if {name, baseline} <= figures.keys():
            nanoseconds = median(one[name] for one in taken) * 1e9
            ratio = median(one[name] / one[baseline] for one in taken)
            print(f"{name:36} {nanoseconds:6.0f} {ratio:6.2f} x {baseline}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
