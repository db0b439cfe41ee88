"""Host functions typed by their annotations, ``async`` ones included."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import wasmtime

from greenctx import NotInAsyncRun
from greenctx.wasix import F32, I32, Caller, Linker, Program, call


def types_of(function: Any) -> str:
    """The parameters and results with which a linker knows it."""
    engine = wasmtime.Engine()
    linker, store = Linker(engine), wasmtime.Store(engine)
    assert linker.host_function("m", "f")(function) is function
    defined = linker.get(store, "m", "f")
    assert isinstance(defined, wasmtime.Func)
    ty = defined.type(store)
    assert isinstance(ty, wasmtime.FuncType)
    return f"{' '.join(map(str, ty.params))} -> {' '.join(map(str, ty.results))}"


def test_types_are_those_of_the_annotations() -> None:
    """Each of the few types that both sides have, and a Caller first."""

    def every(_a: int, _b: I32, _c: float, _d: F32, _e: bool) -> tuple[bool, F32, float, I32, int]:
        raise NotImplementedError

    def caller(_caller: Caller, _a: int) -> I32:
        raise NotImplementedError

    def nothing() -> None: ...

    def unsaid():  # type: ignore[no-untyped-def]
        ...

    assert types_of(every) == "i64 i32 f64 f32 i32 -> i32 f32 f64 i32 i64"
    assert types_of(caller) == "i64 -> i32"
    assert types_of(nothing) == types_of(unsaid) == " -> "


CALLING = """(module
    (import "app" "mix" (func $mix (param i64 i32 f64 i32) (result i64 i32)))
    (import "app" "peek" (func $peek (param i32) (result i32)))
    (memory (export "memory") 1) (data (i32.const 8) "*")
    (func (export "mix") (param i64 i32 f64 i32) (result i64 i32)
      (call $mix (local.get 0) (local.get 1) (local.get 2) (local.get 3)))
    (func (export "peek") (result i32) (call $peek (i32.const 8))))"""


def test_they_are_called() -> None:
    """With values of the annotated types; a boolean is one, whatever is not 0."""
    seen: list[Any] = []
    engine = wasmtime.Engine()
    linker, store = Linker(engine), wasmtime.Store(engine)

    @linker.host_function("app")
    def mix(a: int, b: I32, c: float, d: bool) -> tuple[int, bool]:
        seen.append((a, b, c, d))
        return a + 1, not d

    @linker.host_function("app", "peek")
    def by_another_name(caller: Caller, pointer: I32) -> I32:
        memory = caller["memory"]
        assert isinstance(memory, wasmtime.Memory)
        return memory.read(caller, pointer, pointer + 1)[0]

    exports = linker.instantiate(store, wasmtime.Module(engine, CALLING)).exports(store)
    assert call(store, exports["mix"], 2**40, -1, 0.5, 2) == [2**40 + 1, 0]  # type: ignore[arg-type]
    assert call(store, exports["mix"], -1, 7, 0.0, 0) == [0, 1]  # type: ignore[arg-type]
    assert seen == [(2**40, -1, 0.5, True), (-1, 7, 0.0, False)]
    assert seen[0][3] is True
    assert call(store, exports["peek"]) == ord("*")  # type: ignore[arg-type]
    assert mix(1, 2, 3.0, d=True) == (2, False)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda a: a, r"<lambda>: 'a' must be annotated with int, float, bool, greenctx\.wasix\.I32 or F32, not None"),
        (lambda *a: a, r"'\*a' cannot be"),
        (lambda *, a: a, "'a' cannot be"),
    ],
)
def test_what_has_no_type(function: Any, message: str) -> None:
    """Parameters that guests cannot pass are refused at once, and the message names them."""
    with pytest.raises(TypeError, match=message):
        Linker(wasmtime.Engine()).host_function("m", "f")(function)


def test_annotations_that_guests_do_not_know() -> None:
    """Strings, lists, and a `Caller` after the first parameter are not WebAssembly values."""

    def text(_: str) -> None: ...

    def results() -> tuple[int, str]:
        raise NotImplementedError

    def late(_: int, _caller: Caller) -> None: ...

    for function, name in ((text, "'_'"), (results, "'return'"), (late, "'_caller'")):
        with pytest.raises(TypeError, match=f"{function.__name__}: {name} must be annotated"):
            Linker(wasmtime.Engine()).host_function("m")(function)


ASKING = b"""(module
    (import "wasix_32v1" "context_create" (func $create (param i32 i32) (result i32)))
    (import "wasix_32v1" "context_switch" (func $switch (param i64) (result i32)))
    (import "app" "price" (func $price (param i64) (result i64)))
    (import "app" "answer" (func $answer (param i64)))
    (memory (export "memory") 1)
    (table (export "__indirect_function_table") funcref (elem $worker))
    (func $worker (call $answer (call $price (i64.const 20))) (drop (call $switch (i64.const 0))))
    (func (export "_start")
      (drop (call $create (i32.const 0) (i32.const 0)))
      (drop (call $switch (i64.const 1)))))"""


def asking() -> tuple[Program, list[int]]:
    answers: list[int] = []
    program = Program(ASKING)

    @program.host_function("app")
    async def price(item: int) -> int:
        await asyncio.sleep(0)
        return item + 1

    @program.host_function("app", "answer")
    def note(price: int) -> None:
        answers.append(price)

    return program, answers


def test_async_ones_are_awaited() -> None:
    """An async host function is awaited in a task: the event loop runs, and the context goes on with the result."""
    program, answers = asking()
    meanwhile: list[str] = []

    async def main() -> int:
        asyncio.get_running_loop().call_soon(meanwhile.append, "the loop ran")
        return await program.run_async()

    assert asyncio.run(main()) == 0
    assert answers == [21]
    assert meanwhile == ["the loop ran"]


def test_async_ones_need_a_task() -> None:
    """Outside of a task an async host function is refused with the reason, and leaves no unawaited coroutine."""
    program, answers = asking()
    with pytest.raises(NotInAsyncRun, match="run_async"):
        program.run()
    assert answers == []
