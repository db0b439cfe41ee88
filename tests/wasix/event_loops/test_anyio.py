"""Under trio as under asyncio, by means of anyio: tasks, cancel scopes, guests that sleep, wait and compute."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
from guests.compile import compile_guest
from guests.embedding import signature
from processes import with_enough_time

from greenctx import ContextSwitchingEnvironment, await_, current_environment
from greenctx.wasix import Limits, Program, TimeLimitExceeded

anyio = pytest.importorskip("anyio")
lowlevel = pytest.importorskip("anyio.lowlevel")
pytest.importorskip("trio")

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from greenctx.wasix import Caller


@pytest.fixture(params=["asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[Any]]], Any]:
    return lambda function: anyio.run(function, backend=request.param)


Run = Any


def test_contexts_await(run: Run) -> None:
    """Contexts await what the library offers, and come back with results, in their own contexts."""
    log: list[object] = []

    def main(env: ContextSwitchingEnvironment) -> str:
        send, receive = anyio.create_memory_object_stream(1)

        def entrypoint() -> None:
            while True:
                log.append((env.active_context_id, await_(receive.receive())))
                env.switch_context(0)

        context = env.create_context(entrypoint)
        for number in range(3):
            await_(send.send(number))
            env.switch_context(context)
        send.close()
        receive.close()
        return "done"

    async def everything() -> str:
        env = ContextSwitchingEnvironment()
        return await env.run_main_context_async(main, env)

    assert run(everything) == "done"
    assert log == [(1, 0), (1, 1), (1, 2)]


def test_many_environments_in_a_task_group(run: Run) -> None:
    """Each in a task of its own."""
    results: list[int] = []

    async def one(number: int) -> None:
        def main(env: ContextSwitchingEnvironment) -> None:
            def entrypoint() -> None:
                for _ in range(number % 5):
                    await_(lowlevel.checkpoint())
                assert current_environment() is env
                results.append(number)
                env.switch_context(0)

            env.switch_context(env.create_context(entrypoint))

        env = ContextSwitchingEnvironment()
        await env.run_main_context_async(main, env)

    async def everything() -> None:
        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(one, number)

    run(everything)
    assert sorted(results) == [*range(100)]


def test_cancellation(run: Run) -> None:
    """A cancel scope around the run cancels what a context awaits; all is unwound, and may await behind a shield."""
    log: list[object] = []

    def main(env: ContextSwitchingEnvironment) -> None:
        async def clean_up() -> int:
            with anyio.CancelScope(shield=True):
                await lowlevel.checkpoint()
            return env.active_context_id

        def sleeps() -> None:
            try:
                env.switch_context(0)
            finally:
                log.append(await_(clean_up()))

        def awaits() -> None:
            try:
                await_(anyio.sleep_forever())
            except anyio.get_cancelled_exc_class():
                log.append("canceled")
                raise

        env.switch_context(env.create_context(sleeps))
        env.switch_context(env.create_context(awaits))

    async def everything() -> None:
        with anyio.move_on_after(0.001) as scope:
            env = ContextSwitchingEnvironment()
            await env.run_main_context_async(main, env)
        assert scope.cancelled_caught

    run(everything)
    assert log == ["canceled", 1]


def test_a_guest_that_computes(run: Run) -> None:
    """A guest that computes lets other tasks run each epoch."""
    program = Program(b"""(module (import "host" "begin" (func $begin)) (memory (export "memory") 1)
      (func (export "_start") (call $begin) (loop (br_if 0 (i32.eqz (i32.load8_u (i32.const 0)))))))""")
    flags: list[Any] = []

    def begin(caller: Caller) -> None:
        memory: Any = caller["memory"]
        flags.append(memory.data_ptr(caller))

    async def end() -> None:
        while not flags:
            await lowlevel.checkpoint()
        flags[0][0] = 1

    async def everything() -> int:
        async with anyio.create_task_group() as group:
            group.start_soon(end)
            return await program.run_async(yield_every=0.001)
        raise AssertionError

    program.linker.define_func("host", "begin", signature("->"), begin, access_caller=True)
    assert run(everything) == 0


@pytest.mark.parametrize("mode", ["spin", "read", "sleep", "poll", "usleep"])
def test_the_limit_of_time(run: Run, mode: str) -> None:
    """TimeLimitExceeded, wherever the guest is."""
    read, write = os.pipe()
    try:
        with os.fdopen(read, "rb") as stdin:
            program = Program.from_file(
                compile_guest("waits"),
                argv=["waits", mode],
                stdin=stdin,
                stderr=io.BytesIO(),
                limits=Limits(seconds=0.05),
            )
            with pytest.raises(TimeLimitExceeded, match=r"0\.05 seconds"):
                run(program.run_async)
    finally:
        os.close(write)


def test_the_limit_of_time_while_a_host_function_awaits(run: Run) -> None:
    """The program is cancelled where the host function awaits."""
    program = Program(
        b'(module (import "host" "wait" (func $wait)) (func (export "_start") (call $wait)))',
        limits=Limits(seconds=0.02),
    )
    program.linker.define_func("host", "wait", signature("->"), lambda: await_(anyio.sleep_forever()))
    with pytest.raises(TimeLimitExceeded, match=r"0\.02 seconds"):
        run(program.run_async)


def test_errors_that_come_when_the_limit_of_time_is_over(run: Run) -> None:
    """Errors of contexts that unwind are in the chain of the error."""

    def check(seconds: float) -> None:
        program = Program(
            b"""(module
              (import "wasix_32v1" "context_create" (func $create (param i32 i32) (result i32)))
              (import "wasix_32v1" "context_switch" (func $switch (param i64) (result i32)))
              (import "host" "in_context" (func $in_context)) (import "host" "in_main" (func $in_main))
              (memory (export "memory") 1) (table (export "__indirect_function_table") funcref (elem $in_context))
              (func (export "_start")
                (drop (call $create (i32.const 0) (i32.const 0))) (drop (call $switch (i64.const 1)))
                (call $in_main)))""",
            limits=Limits(seconds=seconds),
        )

        def in_context() -> None:
            try:
                current_environment().switch_context(0)
            finally:
                raise LookupError("of the cleanup")

        program.linker.define_func("host", "in_context", signature("->"), in_context)
        program.linker.define_func("host", "in_main", signature("->"), lambda: await_(anyio.sleep_forever()))
        with pytest.raises(TimeLimitExceeded) as caught:
            run(program.run_async)
        chain: list[BaseException] = [caught.value]
        while (error := chain[-1].__cause__ or chain[-1].__context__) is not None:
            chain.append(error)
        assert any("of the cleanup" in repr(one) for one in chain), chain

    with_enough_time(check, 0.1)


def test_within_the_limit_of_time(run: Run) -> None:
    """The status comes back."""
    assert run(Program(b'(module (func (export "_start")))', limits=Limits(seconds=100)).run_async) == 0


def test_stdin(run: Run) -> None:
    """Another task writes the bytes that the guest waits for; there is no wait for a device that is always ready."""
    read, write = os.pipe()
    stdout = io.BytesIO()

    class Ready(io.BytesIO):
        def write(self, data: Any) -> int:
            os.write(write, b"a line\n")
            os.close(write)
            return len(data)

    with os.fdopen(read, "rb") as stdin:
        program = Program.from_file(
            compile_guest("waits"), argv=["waits", "read"], stdin=stdin, stdout=stdout, stderr=Ready()
        )
        assert run(program.run_async) == 0
    with open(os.devnull, "rb") as stdin:
        program = Program.from_file(compile_guest("waits"), argv=["waits", "read"], stdin=stdin, stdout=stdout)
        assert run(program.run_async) == 0
    assert stdout.getvalue() == b"read a line\nend of file\nend of file\n"


def test_without_anyio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under trio, a program that has to wait says that anyio is missing; environments need none."""
    trio = pytest.importorskip("trio")
    monkeypatch.setitem(sys.modules, "anyio", None)
    env = ContextSwitchingEnvironment()
    trio.run(env.run_main_context_async, lambda: await_(trio.sleep(0)))
    program = Program(b'(module (func (export "_start")))', limits=Limits(seconds=100))
    with pytest.raises(ImportError, match="install anyio"):
        trio.run(program.run_async)
