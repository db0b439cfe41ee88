"""Random switches of guests to one another: ``python guest_switches.py SEED OPERATIONS [OPTION...]``.

The guests themselves choose where to switch, so most switches need no host function, and may be deferred: another
context's greenlet polls the guest until Python code of its context has to run. In between the guests create and destroy
contexts, grow their memory, recurse, compute, trap and return. They also call a host function, which does more of the
kind.

Each call of a guest keeps a cookie and a counter in its locals, beside a copy in memory. Each host function checks that
it runs on the greenlet, and with the context variables, of the context that called it. Prints what happened as JSON; a
seed's output is the same with and without the options ``not-deferred`` and ``asynchronous`` (guests switch by an
asynchronous host call, instead of yielding).

Other options: ``interrupt`` (see `random_run`), ``epochs`` (guests yield all the time), ``watched`` (another thread
describes the contexts all the time), ``two-threads`` (another thread runs guests, in a store of its own), ``traced``
(greenlet calls a trace function in every switch), ``gevent``, ``asyncio``.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import threading
from contextlib import ExitStack
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

import greenlet as greenlets
from greenlet import getcurrent
from guests.embedding import IMPORTS, signature
from wasmtime import Config, Engine, Func, Global, Module

from greenctx import ContextSwitchingEnvironment, await_
from greenctx.wasix import call
from greenctx.wasix._clock.epochs import epoch_thread, yield_every_epoch
from greenctx.wasix._fibers.stores import state_of
from random_runs.random_run import COOKIE, RandomRun

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

GUEST = f"""(module {IMPORTS}
  (import "host" "begin" (func $begin (result i64)))
  (import "host" "step" (func $step (param i64) (result i32)))
  (memory (export "memory") 1 200)
  (table (export "__indirect_function_table") 1 funcref) (elem (i32.const 0) $entrypoint)
  (global $random (export "random") (mut i64) (i64.const 1))
  (global $log (export "log") (mut i64) (i64.const 0))
  (global $newest (export "newest") (mut i64) (i64.const 0))
  (global $switches (export "switches") (mut i64) (i64.const 0))

  (func $next (param $below i32) (result i32)
    (global.set $random
      (i64.add (i64.mul (global.get $random) (i64.const 6364136223846793005)) (i64.const 1442695040888963407)))
    (i32.rem_u (i32.wrap_i64 (i64.shr_u (global.get $random) (i64.const 33))) (local.get $below)))
  (func $note (param i64)
    (global.set $log
      (i64.mul (i64.xor (i64.rotl (global.get $log) (i64.const 7)) (local.get 0)) (i64.const 1099511628211))))
  ;; Main, or one of the latest contexts; some of these are gone.
  (func $any (result i64)
    (if (result i64) (i32.eqz (call $next (i32.const 5))) (then (i64.const 0))
      (else (i64.sub (global.get $newest) (i64.extend_i32_u (call $next (i32.const 9)))))))
  (func $switch_somewhere (param $cookie i64) (local $errno i32)
    (global.set $switches (i64.add (global.get $switches) (i64.const 1)))
    (local.set $errno (call $switch (call $any)))
    (if (local.get $errno) (then (call $create_one)))
    (call $note (i64.add (local.get $cookie) (i64.extend_i32_u (local.get $errno)))))
  (func $create_one
    (if (i32.eqz (call $create (i32.const 65000) (i32.const 0)))
      (then (global.set $newest (i64.load (i32.const 65000))))))
  (func $switch_below (param $cookie i64) (param $depth i32) (result i32)
    (if (i32.eqz (local.get $depth)) (then (call $switch_somewhere (local.get $cookie)) (return (i32.const 0))))
    (i32.add (i32.const 1) (call $switch_below (local.get $cookie) (i32.sub (local.get $depth) (i32.const 1)))))

  (func $steps (param $budget i32) (result i64)
    (local $cookie i64) (local $count i64) (local $slot i32) (local $what i32) (local $left i32)
    (local.set $cookie (call $begin))
    (local.set $slot
      (i32.mul (i32.wrap_i64 (i64.rem_u (i64.div_u (local.get $cookie) (i64.const {COOKIE})) (i64.const 8000)))
               (i32.const 8)))
    (i64.store (local.get $slot) (i64.const 0))
    (loop $again
      (local.set $what (call $next (i32.const 100)))
      (block $done
        (if (i32.lt_u (local.get $what) (i32.const 82))
          (then (call $switch_somewhere (local.get $cookie)) (br $done)))
        (if (i32.lt_u (local.get $what) (i32.const 85)) (then (call $create_one) (br $done)))
        (if (i32.lt_u (local.get $what) (i32.const 87))
          (then (call $note (i64.extend_i32_u (call $destroy (call $any)))) (br $done)))
        (if (i32.lt_u (local.get $what) (i32.const 88)) (then (drop (memory.grow (i32.const 1))) (br $done)))
        (if (i32.lt_u (local.get $what) (i32.const 90))
          (then
            (local.set $left (i32.const 2000))
            (loop $compute (br_if $compute (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
            (br $done)))
        (if (i32.lt_u (local.get $what) (i32.const 96))
          (then
            (local.set $left (call $next (i32.const 40)))
            (if (i32.ne (local.get $left) (call $switch_below (local.get $cookie) (local.get $left)))
              (then unreachable))
            (br $done)))
        (local.set $what (call $step (local.get $cookie)))
        (if (i32.eq (local.get $what) (i32.const 1)) (then unreachable))
        (if (i32.eq (local.get $what) (i32.const 2)) (then (return (i64.const -1)))))
      ;; The local is what it was before, whoever ran meanwhile, and so is its copy.
      (if (i64.ne (local.get $count) (i64.load (local.get $slot))) (then (drop (call $step (i64.const -1)))))
      (local.set $count (i64.add (local.get $count) (i64.const 1)))
      (i64.store (local.get $slot) (local.get $count))
      (br_if $again (local.tee $budget (i32.sub (local.get $budget) (i32.const 1)))))
    (local.get $cookie))
  (func (export "steps") (param i32) (result i64) (call $steps (local.get 0)))
  (func $entrypoint (export "entrypoint") (drop (call $steps (i32.const 0)))))"""

variable: ContextVar[object] = ContextVar("variable", default=None)


class Run(RandomRun):
    max_contexts = 12
    max_nesting = 3

    def __init__(self, seed: int, operations: int, options: list[str]) -> None:
        config = Config()
        config.epoch_interruption = True
        engine = Engine(config)
        super().__init__(seed, operations, options, engine)
        yield_every_epoch(self.store)
        self.state = state_of(self.store)
        self.state.defers_switches = "not-deferred" not in options
        self.greenlets: dict[int, object] = {}
        self.depth = 0
        self.linker.define_wasix()
        self.linker.define_func("host", "begin", signature("-> i64"), self.begin)
        self.linker.define_func("host", "step", signature("i64 -> i32"), self.step)
        # Only the guests of stores that do by then yield to switch.
        self.state.holds_gil = "asynchronous" not in options
        self.exports = self.linker.instantiate(self.store, Module(engine, GUEST)).exports(self.store)
        self.state.holds_gil = True
        self.guest_global("random").set_value(self.store, seed)

    def guest_global(self, name: str) -> Global:
        return cast("Global", self.exports[name])

    def entrypoint(self) -> Func:
        return cast("Func", self.exports["entrypoint"])

    def make_environment(self) -> ContextSwitchingEnvironment:
        return ContextSwitchingEnvironment(max_contexts=self.max_contexts)

    def check_where_it_runs(self) -> None:
        """Python code of a context runs on its greenlet, with its context variables, and is the active context's."""
        me = getcurrent()
        context = self.environment._context_of(me)
        assert context is not None
        assert context.context_id == self.environment.active_context_id
        assert variable.get() is me

    def begin(self) -> int:
        cookie = super().begin()
        variable.set(getcurrent())
        self.check_where_it_runs()
        self.greenlets[cookie] = getcurrent()
        return cookie

    def step(self, cookie: int) -> int:
        """Check where this runs, do something, and tell the guest what to do."""
        assert cookie in self.greenlets, "a guest found another one's locals"
        assert self.greenlets[cookie] is getcurrent()
        self.check_where_it_runs()
        self.contexts = self.environment._registry.ids()
        self.act()
        self.check_where_it_runs()
        return self.random.choices([0, 1, 2], [200, 1, 1])[0]

    def actions(self) -> list[tuple[Callable[[], object], int]]:
        return [
            (self.switch, 100),
            (self.create, 10),
            (self.destroy, 10),
            (self.call_guest, 60),
            (self.raise_error, 5),
            (self.nest, 5),
            (self.look, 10),
            (self.wait, 20),
            (gc.collect, 1),
        ]

    def create(self) -> None:
        if self.environment._registry.count_live(cast("Any", self.environment._main)) < self.max_contexts:
            super().create()
            self.guest_global("newest").set_value(self.store, self.contexts[-1])

    def call_nested(self) -> None:
        variable.set(getcurrent())  # for main, which may not have begun a call yet
        result = call(self.store, cast("Func", self.exports["steps"]), self.random.randint(1, 300))
        assert result == -1 or result % COOKIE == 0

    def nest(self) -> None:
        """An environment within this one, in the same store: its switches are not deferred."""
        if self.depth:
            return
        newest, outer, contexts, nesting = self.guest_global("newest"), self.environment, self.contexts, self.nesting
        before = newest.value(self.store)
        self.depth += 1
        self.environment, self.contexts, self.nesting = self.make_environment(), [], nesting.copy()
        self.nesting.clear()
        newest.set_value(self.store, 0)
        try:
            self.environment.run_main_context(self.call_nested)
        except self.errors as error:
            self.note("nested", error)
        finally:
            self.environment, self.contexts, self.nesting = outer, contexts, nesting
            newest.set_value(self.store, before)
            self.depth -= 1

    def look(self) -> None:
        """A description of the contexts has the calling one as active, with this function on its stack."""
        infos = self.environment.contexts()
        [active] = [info.id for info in infos if info.state == "active"]
        assert active == self.environment.active_context_id
        [stack] = [one for one in self.environment.format_stacks().split("\ncontext ") if ", active, " in one]
        assert "in look" in stack

    def wait(self) -> None:
        """Let the event loop run, if there is one."""
        if "gevent" in self.faults:
            import gevent  # type: ignore[import-untyped]

            gevent.sleep(0)
        elif "asyncio" in self.faults and self.depth == 0:
            await_(asyncio.sleep(0))

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """The same, but not while the event loop runs, which an interruption would end."""
        if self.environment._main is None or self.environment._context_of(getcurrent()) is not None:
            super().interrupt(number, frame)
        else:
            signal.setitimer(signal.ITIMER_REAL, 0.001)

    def main(self) -> None:
        variable.set(getcurrent())
        self.guest_global("newest").set_value(self.store, 0)
        super().main()


def watch(run: Run, done: threading.Event) -> None:
    """Describe the contexts, again and again, without keeping the GIL from the guests."""
    while not done.wait(0.0002):
        run.environment.contexts()
        run.environment.format_stacks()


def end_epochs(run: Run, done: threading.Event) -> None:
    while not done.wait(0.0002):
        run.linker.engine.increment_epoch()


def start(run: Run, options: list[str]) -> None:
    if "gevent" in options:
        import gevent

        def idle() -> None:
            while True:
                gevent.sleep(0)

        other = gevent.spawn(idle)
        gevent.spawn(run.run).get()
        other.kill()
    elif "asyncio" in options:
        from greenctx._core.aio import run_in_task

        asyncio.run(run_in_task(run.run))
    else:
        run.run()


def run_beside(seed: int, operations: int) -> None:
    Run(seed, operations, []).run()


def main(seed: int, operations: int, options: list[str]) -> None:
    run, done, switches = Run(seed, operations, options), threading.Event(), 0

    def trace(_event: str, _greenlets: object) -> None:
        nonlocal switches
        switches += 1

    beside: list[threading.Thread] = []
    for option, function in (("watched", watch), ("epochs", end_epochs)):
        if option in options:
            beside.append(threading.Thread(target=function, args=(run, done)))
    if "two-threads" in options:
        beside.append(threading.Thread(target=run_beside, args=(seed + 1, operations)))
    with ExitStack() as cleanup:
        cleanup.enter_context(epoch_thread(run.linker.engine))
        for thread in beside:
            thread.start()
            cleanup.callback(thread.join)
        cleanup.callback(done.set)
        if "traced" in options:
            greenlets.settrace(trace)
            cleanup.callback(greenlets.settrace, None)
        start(run, options)
    guest = {name: run.guest_global(name).value(run.store) for name in ("log", "random", "switches")}
    print({**guest, "greenlet switches": switches} if "traced" in options else guest)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
