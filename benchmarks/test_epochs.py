"""The cost of interruption: epoch checks in tight loops, per thousand turns; and the delay of an interruption.

The delay is from the signal to the end of `Program.run`, and recorded as information.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest
from wasmtime import Config, Engine, Func, FuncType, Module, Store

from greenctx.wasix import Linker, Program, call
from greenctx.wasix._clock.epochs import epoch_thread, yield_every_epoch

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenctx.wasix import Caller

TIMES = 50_000_000

LOOP = """(module (func (export "loop") (param $left i32) (result i32) (local $sum i32)
  (loop
    BODY
    (br_if 0 (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
  (local.get $sum)))"""

BODIES = {
    "empty_loop": "",
    "loop_that_multiplies": "(local.set $sum (i32.add (i32.mul (local.get $sum) (i32.const 31)) (local.get $left)))",
}
each_loop = pytest.mark.parametrize("name", BODIES)

ENDLESS = """(module (import "host" "ready" (func $ready)) (memory (export "memory") 1)
  (func (export "_start") (call $ready) (loop (i32.store8 (i32.const 0) (i32.const 1)) (br 0))))"""


def loop(name: str, *, epochs: bool) -> tuple[Engine, Callable[[], Any]]:
    config = Config()
    config.epoch_interruption = epochs
    engine = Engine(config)
    store = Store(engine)
    if epochs:
        yield_every_epoch(store)
    module = Module(engine, LOOP.replace("BODY", BODIES[name]))
    function = Linker(engine).instantiate(store, module).exports(store)["loop"]
    assert isinstance(function, Func)
    return engine, lambda: call(store, function, TIMES)


@each_loop
def test_without_epochs(name: str, measure: Callable[..., None]) -> None:
    """A tight loop on an engine that knows no epochs; the empty one is the worst that there is."""
    measure(loop(name, epochs=False)[1], times=TIMES // 1000)


@each_loop
def test_with_epochs(name: str, measure: Callable[..., None]) -> None:
    """Measure the loop with the check of the epoch that every program's loops have."""
    measure(loop(name, epochs=True)[1], times=TIMES // 1000, baseline=f"without_epochs[{name}]")


@each_loop
def test_while_epochs_tick(name: str, measure: Callable[..., None]) -> None:
    """Measure the loop while epochs end, as they do in the main thread and under a time limit."""
    engine, run = loop(name, epochs=True)
    with epoch_thread(engine):
        measure(run, times=TIMES // 1000, baseline=f"without_epochs[{name}]")


def test_interruption(benchmark: Any) -> None:
    """Measure the time from SIGINT until `Program.run` raises KeyboardInterrupt, for a guest that loops for ever."""
    seconds: list[float] = []
    sent: list[float] = []
    thread: threading.Thread | None = None
    program = Program(ENDLESS.encode())

    def ready(caller: Caller) -> None:
        nonlocal thread
        memory: Any = caller["memory"]
        flags = memory.data_ptr(caller)

        def interrupt() -> None:
            while not flags[0]:
                pass
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()

    def run() -> None:
        with pytest.raises(KeyboardInterrupt):
            program.run()
        seconds.append(time.perf_counter() - sent.pop())
        assert thread is not None
        thread.join()

    program.linker.define_func("host", "ready", FuncType([], []), ready, access_caller=True)
    benchmark.pedantic(run, rounds=30)
    benchmark.extra_info["milliseconds to the end: median, most"] = [
        round(1e3 * figure(seconds), 1) for figure in (median, max)
    ]
    benchmark.extra_info["baseline"] = "at most 100 ms"
