"""Programs inside of tasks: their host functions await, and the event loop goes on whatever their guests do."""

from __future__ import annotations

import asyncio
import contextvars
import io
import os
import signal
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import pytest
from guests.compile import compile_guest
from guests.embedding import IMPORTS, Embedding, signature
from leakcheck import assert_no_leak
from processes import check_embedder, check_script, with_enough_time
from tasks import never
from wasmtime import Trap

from greenctx import (
    ContextEntrypointReturned,
    NotInAsyncRun,
    await_,
    current_environment,
)
from greenctx.wasix import Limits, Program, ProgramClosed, ProgramInUse, ResourcesExhausted, TimeLimitExceeded
from greenctx.wasix._clock import epochs, event_loop
from greenctx.wasix._clock.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from greenctx.wasix import Caller

T = TypeVar("T")

# Main and a context ask the host in turns; the sum of the answers is the status.
ASKS = f"""(module {IMPORTS}
  (import "host" "ask" (func $ask (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (table (export "__indirect_function_table") funcref (elem $asks))
  (global $sum (mut i32) (i32.const 0))
  (func $add (param $question i32)
    (global.set $sum (i32.add (global.get $sum) (call $ask (local.get $question)))))
  (func $asks (loop (call $add (i32.const 1)) (drop (call $switch (i64.const 0))) (br 0)))
  (func (export "_start")
    (if (call $create (i32.const 0) (i32.const 0)) (then unreachable))
    (drop (call $switch (i64.const 1)))
    (call $add (i32.const 10))
    (drop (call $switch (i64.const 1)))
    (call $add (i32.const 10))
    (call $exit (global.get $sum))))
""".encode()

ASKS_ONCE = b"""(module
  (import "host" "ask" (func $ask (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start") (call $exit (call $ask (i32.const 1)))))
"""


async def later(value: T, turns: int = 3) -> T:
    for _ in range(turns):
        await asyncio.sleep(0)
    return value


def asking(answer: Callable[[int], int], code: bytes = ASKS, **settings: Any) -> Program:
    program = Program(code, **settings)
    program.linker.define_func("host", "ask", signature("i32 -> i32"), answer)
    return program


ENDLESS = b'(module (func (export "_start") (loop (br 0))))'


def good() -> Program:
    return asking(lambda question: await_(later(question)))


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


# Host functions that await.


def test_host_functions_await() -> None:
    """Host functions await in main and in contexts, and return where they were called."""
    log: list[tuple[int, int]] = []

    def answer(question: int) -> int:
        before = current_environment().active_context_id
        result = await_(later(question))
        log.append((before, current_environment().active_context_id))
        return result

    assert asyncio.run(asking(answer).run_async()) == 22
    assert log == [(1, 1), (0, 0), (1, 1), (0, 0)]


def test_without_contexts() -> None:
    """A program without contexts runs in a task, too."""
    program = asking(lambda question: await_(later(question)), ASKS_ONCE, contexts=False)
    assert asyncio.run(program.run_async()) == 1


def test_how_they_end() -> None:
    """run_async raises errors of host functions (with the guest's backtrace), traps, and ContextEntrypointReturned."""

    async def fails() -> NoReturn:
        await asyncio.sleep(0)
        raise ValueError("from the coroutine")

    with pytest.raises(ValueError, match="from the coroutine") as raised:
        asyncio.run(asking(lambda _: await_(fails())).run_async())
    assert "asks" in raised.value.__notes__[0]
    unreachable = Program(b'(module (func (export "_start") unreachable))')
    with pytest.raises(Trap):
        asyncio.run(unreachable.run_async())
    returns = Program(ASKS.replace(b"(br 0)))\n  (func (export", b"))\n  (func (export"))
    returns.linker.define_func("host", "ask", signature("i32 -> i32"), lambda question: await_(later(question)))
    with pytest.raises(ContextEntrypointReturned):
        asyncio.run(returns.run_async())


def test_in_a_plain_run_there_is_no_loop_to_wait_for() -> None:
    """`run` raises the error, although an event loop runs in the thread."""

    async def everything() -> None:
        with pytest.raises(NotInAsyncRun):
            good().run()

    asyncio.run(everything())


def test_many_programs_at_once() -> None:
    """1,000 runs in 1,000 tasks on one loop, each of them with its own contexts, environment and variables."""
    number: contextvars.ContextVar[int] = contextvars.ContextVar("number")

    def answer(question: int) -> int:
        task, env, mine = asyncio.current_task(), current_environment(), number.get()
        result = await_(later(question * mine))
        assert (task, env, mine) == (asyncio.current_task(), current_environment(), number.get())
        return result

    async def run(mine: int) -> int:
        number.set(mine)
        return await program.run_async()

    async def everything() -> list[int]:
        return await asyncio.gather(*map(run, range(1000)))

    program = asking(answer)
    assert asyncio.run(everything()) == [22 * mine for mine in range(1000)]


def test_two_loops_in_two_threads() -> None:
    """The same program runs on both at once."""
    results: list[list[int]] = []
    program = good()

    async def everything() -> None:
        results.append(await asyncio.gather(*(program.run_async() for _ in range(50))))

    threads = [threading.Thread(target=lambda: asyncio.run(everything())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[22] * 50] * 2


def test_a_program_run_by_a_host_function_of_another() -> None:
    """By a plain `run` a program runs in the same task: its host functions may await, and its guest lets the loop
    run."""
    inner = good()
    program = asking(lambda question: inner.run() + question)
    assert asyncio.run(program.run_async()) == 4 * 22 + 22


def test_a_program_run_in_a_thread_meanwhile() -> None:
    """asyncio.to_thread hands on the context's variables; the two do not disturb each other."""
    started, goes_on = threading.Event(), threading.Event()

    def in_thread(question: int) -> int:
        started.set()
        goes_on.wait()
        return question

    other = asking(in_thread)
    threads: list[asyncio.Task[int]] = []

    async def wait_until_it_runs() -> None:
        threads.append(asyncio.ensure_future(asyncio.to_thread(other.run)))
        await asyncio.to_thread(started.wait)

    def answer(question: int) -> int:
        if not threads:
            await_(wait_until_it_runs())
        else:
            goes_on.set()
        return await_(later(question))

    async def everything() -> tuple[int, int]:
        return await asking(answer).run_async(), await threads[0]

    assert asyncio.run(everything()) == (22, 22)


def test_on_a_wasmtime_of_ones_own() -> None:
    """`call` in an environment that runs in a task: the same for embedders."""
    embedding = Embedding()
    embedding.define("ask", "i32 -> i32", lambda question: await_(later(question + 1)))
    embedding.load("""(module (import "host" "ask" (func $ask (param i32) (result i32)))
      (func (export "twice") (param i32) (result i32) (call $ask (call $ask (local.get 0)))))""")
    assert asyncio.run(embedding.env.run_main_context_async(embedding.call, "twice", 5)) == 7


def test_not_on_a_fiber() -> None:
    """A plain wasmtime.Func cannot await; and says so, instead of ending the process."""
    check_embedder(
        """
        import asyncio
        from greenctx._core.scope import NoContexts

        def on_a_fiber():
            seen.append(refused(NotTheActiveContext, lambda: await_(asyncio.sleep(0))))
            nested = ContextSwitchingEnvironment()
            refused(NotTheActiveContext, nested.run_main_context, lambda: await_(asyncio.sleep(0)))

        seen = []
        linker.define(store, "host", "plain", Func(store, NOTHING, on_a_fiber))
        guest = load('(module (import "host" "plain" (func $plain)) (func (export "run") (call $plain)))')

        def run():
            call(store, guest["run"])
            await_(asyncio.sleep(0))

        asyncio.run(env.run_main_context_async(run))
        asyncio.run(ContextSwitchingEnvironment().run_main_context_async(lambda: NoContexts().run(run)))
        assert len(seen) == 2 and all("guest code on its fiber" in one for one in seen)
        """
    )


# Waits that let the loop run.


def test_a_guest_that_computes() -> None:
    """A computing guest yields to the loop each epoch; here a callback of the loop ends its wait."""
    program = Program(b"""(module (import "host" "begin" (func $begin)) (memory (export "memory") 1)
      (func (export "_start") (call $begin) (loop (br_if 0 (i32.eqz (i32.load8_u (i32.const 0)))))))""")

    def begin(caller: Caller) -> None:
        memory: Any = caller["memory"]
        flags = memory.data_ptr(caller)
        asyncio.get_running_loop().call_soon(lambda: flags.__setitem__(0, 1))

    program.linker.define_func("host", "begin", signature("->"), begin, access_caller=True)
    assert asyncio.run(program.run_async(yield_every=0.001)) == 0


@pytest.mark.parametrize("mode", ["read", "poll"])
@pytest.mark.parametrize("where", [[], ["context"]], ids=["main", "context"])
def test_guests_that_wait_for_stdin(mode: str, where: list[str]) -> None:
    """The loop runs until there is something to read, or the end. Two may wait for the same."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as stdin:
        stdout = io.BytesIO()

        async def everything() -> None:
            guests = [Guest([mode, *where], stdin=stdin, stdout=stdout) for _ in range(2)]
            for guest in guests:
                await guest.ready.wait()
            os.write(write, b"a line\n")
            os.close(write)
            assert await asyncio.gather(*(guest.task for guest in guests)) == [0, 0]

        asyncio.run(everything())
    if mode == "read":
        assert sorted(stdout.getvalue().splitlines()) == [b"end of file"] * 2 + [b"read a line"]
    else:
        assert stdout.getvalue() == b"poll 1\n" * 2


def test_a_guest_that_waits_until_somebody_reads() -> None:
    """A guest writes to a full pipe; the loop runs, and reads."""
    with pipe() as (read, write), os.fdopen(write, "wb", closefd=False) as stdout:

        async def everything() -> int:
            guest = Guest(["write"], stdout=stdout)
            total = 0
            while total < 1_000_000:
                await asyncio.sleep(0)
                if guest.ready.is_set():
                    total += len(await readable(read))
            guest.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await guest.task
            return total

        assert asyncio.run(everything()) >= 1_000_000


async def readable(descriptor: int) -> bytes:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, 65536)


def test_a_device_that_is_always_ready() -> None:
    """No event loop waits for such a one, nor need it."""
    with open(os.devnull, "rb") as stdin:
        stdout = io.BytesIO()
        program = Program.from_file(compile_guest("waits"), argv=["waits", "read"], stdin=stdin, stdout=stdout)
        assert asyncio.run(program.run_async()) == 0
    assert stdout.getvalue() == b"end of file\n"


def test_two_waits_for_the_same() -> None:
    """Both end when it is ready. (A loop has one reader for a descriptor.) Nothing stays with the loop."""

    async def both() -> None:
        one, other = (asyncio.ensure_future(event_loop.wait({(read, False)}, 1000)) for _ in range(2))
        await later(None)
        assert not one.done()
        assert not other.done()
        os.write(write, b"x")
        await asyncio.gather(one, other)
        os.read(read, 1)

    loop = asyncio.new_event_loop()
    try:
        with pipe() as (read, write):
            assert_no_leak(lambda: loop.run_until_complete(both()))
    finally:
        loop.close()


def test_sleeping_guests() -> None:
    """Sleeps of every kind, side by side, and none is too short."""

    async def everything() -> list[int]:
        modes = ["usleep", "nanosleep", "clock_nanosleep", "poll", "select"] * 10
        programs = [Program.from_file(compile_guest("naps"), argv=["naps", mode], cache=True) for mode in modes]
        return await asyncio.gather(*(program.run_async() for program in programs))

    assert set(asyncio.run(everything())) == {0}


# Cancellation and time.


class Guest:
    """tests/support/guests/c/waits.c in a task."""

    def __init__(self, mode: list[str], limits: Limits | None = None, **settings: Any) -> None:
        self.ready = asyncio.Event()
        stderr = cast("Any", self)
        self.program = Program.from_file(
            compile_guest("waits"), argv=["waits", *mode], limits=limits, stderr=stderr, cache=True, **settings
        )
        self.task = asyncio.ensure_future(self.program.run_async(yield_every=0.001))

    def write(self, data: bytes) -> int:
        self.ready.set()
        return len(data)

    def flush(self) -> None:
        pass


MODES = ["spin", "spin-without-calls", "switch", "read", "sleep", "usleep", "nanosleep", "poll", "write"]
each_wait = pytest.mark.parametrize(
    "mode",
    [[mode] for mode in MODES] + [[mode, "context"] for mode in ("spin", "read", "sleep", "write")],
    ids=" ".join,
)


@contextmanager
def nobody_at_the_other_end() -> Iterator[dict[str, Any]]:
    """A stdin without a writer, and a stdout without a reader."""
    with (
        pipe() as (stdin, _),
        pipe() as (_, stdout),
        os.fdopen(stdin, "rb", closefd=False) as read,
        os.fdopen(stdout, "wb", closefd=False) as write,
    ):
        yield {"stdin": read, "stdout": write}


@each_wait
def test_cancelling_the_task(mode: list[str]) -> None:
    """Wherever the guest is, the task ends cancelled; the same program can run again."""
    with nobody_at_the_other_end() as streams:

        async def everything() -> None:
            guest = Guest(mode, **streams)
            await guest.ready.wait()
            await asyncio.sleep(0)
            guest.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await guest.task
            assert guest.task.cancelled()
            assert await good().run_async() == 22
            guest.program.close()

        asyncio.run(everything())


@each_wait
def test_the_limit_of_time(mode: list[str]) -> None:
    """TimeLimitExceeded, wherever the guest is."""
    with nobody_at_the_other_end() as streams:

        async def everything() -> None:
            guest = Guest(mode, Limits(seconds=0.05), **streams)
            with pytest.raises(TimeLimitExceeded, match=r"its limit of 0\.05 seconds"):
                await guest.task
            assert await good().run_async() == 22

        asyncio.run(everything())


def test_the_limit_of_time_while_a_host_function_awaits() -> None:
    """The program is cancelled there, its cleanup may await, and the program raises TimeLimitExceeded."""

    def check(seconds: float) -> None:
        log: list[str] = []

        def answer(_: int) -> int:
            try:
                return await_(never())
            except asyncio.CancelledError:
                log.append(await_(later("cleanup")))
                raise

        program = asking(answer, limits=Limits(seconds=seconds))
        with pytest.raises(TimeLimitExceeded, match=f"its limit of {seconds:g} seconds") as raised:
            asyncio.run(program.run_async())
        assert isinstance(raised.value.__cause__, TimeoutError)
        assert log == ["cleanup"]

    with_enough_time(check, 0.02)


def test_the_limit_of_time_of_a_program_within_another() -> None:
    """The inner one's is raised in the host function that runs it; the outer one's ends both."""
    inner = asking(lambda _: await_(never()), limits=Limits(seconds=0.02))

    def answer(question: int) -> int:
        with pytest.raises(TimeLimitExceeded, match=r"0\.02"):
            inner.run()
        return question

    assert asyncio.run(asking(answer, ASKS_ONCE).run_async()) == 1
    endless = asking(lambda _: await_(never()))
    with pytest.raises(TimeLimitExceeded, match=r"0\.03"):
        asyncio.run(asking(lambda _: endless.run(), limits=Limits(seconds=0.03)).run_async())


def test_an_error_that_looks_like_the_limit() -> None:
    """A host function's own TimeoutError is not mistaken for the limit's."""

    async def fails() -> int:
        raise TimeoutError("of its own")

    program = asking(lambda _: await_(fails()), limits=Limits(seconds=100))
    with pytest.raises(TimeoutError, match="of its own") as raised:
        asyncio.run(program.run_async())
    assert type(raised.value) is TimeoutError


def test_cancellation_unwinds_every_context() -> None:
    """Cancellation unwinds every context in ascending order, after main; each may await meanwhile."""
    log: list[int] = []
    asked = 0

    def answer(_: int) -> int:
        nonlocal asked
        asked += 1
        env = current_environment()
        me = env.active_context_id
        try:
            if asked == 1:
                env.switch_context(0)
            return await_(never())
        finally:
            log.append(await_(later(me)))

    async def everything() -> None:
        task = asyncio.ensure_future(asking(answer).run_async())
        while asked < 2:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(everything())
    assert log == [0, 1]


def test_ctrl_c() -> None:
    """asyncio.run makes a cancellation of it, and then a KeyboardInterrupt; a guest that computes is no obstacle."""
    check_script(
        f"""
        import asyncio, os, signal
        from wasmtime import FuncType
        from greenctx.wasix import Program

        program = Program(b'''(module (import "host" "ready" (func $ready))
          (func (export "_start") (call $ready) (loop (br 0))))''')
        program.linker.define_func("host", "ready", FuncType([], []), lambda: os.kill(os.getpid(), {signal.SIGINT:d}))
        seen = []

        async def main():
            try:
                await program.run_async()
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            assert seen == ["cancelled"], seen
        else:
            raise AssertionError
        """
    )


# The program, and what ends its epochs.


def test_the_limit_of_a_program_that_has_ended() -> None:
    """The limit does not apply to a task that a host function started and that outlives the run, such as a pool's."""
    with Deadline(1000):
        inherited = contextvars.copy_context()
        assert inherited.run(Deadline.within_current, None)
    assert not inherited.run(Deadline.within_current, None)


def test_closing() -> None:
    """A program that a task runs is in use; afterwards it can be closed, and does not run again."""

    async def everything() -> None:
        program = asking(lambda _: await_(never()))
        task = asyncio.ensure_future(program.run_async())
        await asyncio.sleep(0)
        with pytest.raises(ProgramInUse):
            program.close()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        program.close()
        with pytest.raises(ProgramClosed):
            await program.run_async()

    asyncio.run(everything())


@pytest.mark.parametrize("seconds", [0, 0.0001, -1, float("nan")])
def test_yield_every_is_checked(seconds: float) -> None:
    """Too short turns are refused."""
    with pytest.raises(ValueError, match=r"at least 0\.001 seconds"):
        asyncio.run(good().run_async(yield_every=seconds))


def test_one_thread_ends_all_epochs() -> None:
    """However many run, there is one thread more; and none when nothing has run for a while."""

    async def everything() -> int:
        program = asking(lambda _: await_(never()))
        tasks = [asyncio.ensure_future(program.run_async()) for _ in range(20)]
        tasks += [asyncio.ensure_future(asking(lambda _: await_(never())).run_async()) for _ in range(5)]
        await asyncio.sleep(0)
        most = threads() - before
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return most

    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    while epochs._thread_runs.locked():
        pass
    before = threads()
    assert asyncio.run(everything()) == 1
    while epochs._thread_runs.locked():
        pass
    assert not epochs._active


def test_the_most_demanding_run_sets_the_pace() -> None:
    """The most demanding run in progress sets the pace; an ended run does not count."""
    shared = good()._shared_epoch_thread
    with shared.every(0.5):
        with shared.every(0.1), shared.every(0.2):
            assert shared.seconds == 0.1
        with shared.every(0.7):
            assert shared.seconds == 0.5
    with shared.every(0.5):
        assert shared.seconds == 0.5
    assert shared.seconds is None
    assert not shared.end_epoch()


def test_a_run_whose_end_was_interrupted() -> None:
    """Closing the program ends its epochs for good, before its engine is gone."""
    program = good()
    shared = program._shared_epoch_thread
    shared.begin(shared.every(0.001))
    assert shared.end_epoch()
    program.close()
    assert not shared.end_epoch()


@pytest.mark.parametrize("yield_every", [30, 1e11, float("inf")])
def test_a_run_that_hardly_ever_yields(yield_every: float) -> None:
    """A run that hardly ever yields delays neither its own time limit nor another run."""

    async def everything() -> None:
        quiet = asyncio.ensure_future(asking(lambda _: await_(never())).run_async(yield_every=yield_every))
        await asyncio.sleep(0)
        for seconds in (yield_every, 0.01):
            with pytest.raises(TimeLimitExceeded):
                await Program(ENDLESS, limits=Limits(seconds=0.05)).run_async(yield_every=seconds)
        quiet.cancel()
        with pytest.raises(asyncio.CancelledError):
            await quiet

    asyncio.run(everything())


def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends with that error; a later one starts the thread."""

    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    while epochs._thread_runs.locked():
        pass
    with monkeypatch.context() as patch:
        patch.setattr(epochs, "start_new_thread", fail)
        with pytest.raises(ResourcesExhausted, match="no more threads"):
            asyncio.run(good().run_async())
    with pytest.raises(TimeLimitExceeded):
        asyncio.run(Program(ENDLESS, limits=Limits(seconds=0.05)).run_async())


def test_programs_are_closed_anywhere() -> None:
    """A ``__del__`` or a signal handler may close a program at any point while a run begins or ends."""
    check_script(
        """
        import asyncio, sys
        from greenctx.wasix._clock import epochs
        from greenctx.wasix import Program

        def close(frame, event, arg):
            if frame.f_code.co_filename == epochs.__file__:
                other = Program(b'(module (func (export "_start")))')
                other._shared_epoch_thread.begin(other._shared_epoch_thread.every(1))
                other.close()
                closed.append(frame.f_lineno)
                return close

        closed = []
        program = Program(b'(module (func (export "_start")))')
        sys.settrace(close)
        assert asyncio.run(program.run_async()) == 0
        sys.settrace(None)
        assert len(closed) > 10
        """
    )


def test_after_a_fork() -> None:
    """The thread is not there in the child; the next run starts one."""
    check_script(
        """
        import asyncio, os
        from greenctx.wasix import Limits, Program, TimeLimitExceeded

        program = Program(b'(module (func (export "_start") (loop (br 0))))', limits=Limits(seconds=0.05))

        async def run():
            try:
                await program.run_async()
            except TimeLimitExceeded:
                return 0

        asyncio.run(run())
        if (child := os.fork()) == 0:
            os._exit(asyncio.run(run()))
        assert os.waitpid(child, 0)[1] == 0
        """.replace("import asyncio, os", "import asyncio, os, warnings; warnings.simplefilter('ignore')")
    )


@pytest.mark.parametrize("end", ["returns", "is cancelled", "times out"])
def test_nothing_leaks(end: str) -> None:
    """However a run ends, it leaves nothing behind, not even for the collector."""
    loop = asyncio.new_event_loop()
    program = asking(
        lambda question: await_(later(question) if end == "returns" else never()),
        limits=Limits(seconds=0.0001) if end == "times out" else None,
    )

    async def everything() -> None:
        if end == "is cancelled":
            task = asyncio.ensure_future(program.run_async())
            await later(None)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        else:
            with suppress(TimeLimitExceeded):
                await program.run_async()

    try:
        # The stores' memories are big; allocators take them from the system as they like.
        assert_no_leak(lambda: loop.run_until_complete(everything()), memory_slack=2**20)
    finally:
        loop.close()
        program.close()
