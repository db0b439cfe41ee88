"""Values between guests and host functions: of every type, and wrong ones."""

from __future__ import annotations

import gc
import math
import struct
import weakref
from functools import cache
from typing import Any, cast

import pytest
from guests.embedding import Embedding, compiled
from hypothesis import example, given
from hypothesis import strategies as st
from wasmtime import Func, FuncType

from greenctx.wasix import call

ALL = "i32 i64 f32 f64 funcref externref"


class Echo(Embedding):
    """A guest that hands its argument to a host function, and returns what that returns: the argument again, unless
    there is another answer."""

    def __init__(self, ty: str) -> None:
        super().__init__()
        self.seen: list[Any] = []
        self.answers: list[Any] = []
        self.define("echo", f"{ty} -> {ty}", self.answer)
        self.load(
            f"""(module (import "host" "echo" (func $echo (param {ty}) (result {ty})))
              (func (export "echo") (param {ty}) (result {ty}) (call $echo (local.get 0)))
              (func (export "a_function") (result i32) (i32.const 7)))"""
        )

    def answer(self, value: Any) -> Any:
        self.seen.append(value)
        return self.answers.pop() if self.answers else value

    def __call__(self, value: Any) -> Any:
        return self.call("echo", value)


@cache
def _echo(ty: str) -> Echo:
    return Echo(ty)


def shared_echo(ty: str) -> Echo:
    """One guest for all examples of a test: making it would take most of the test's time."""
    echo = _echo(ty)
    echo.seen.clear()
    echo.answers.clear()
    return echo


def single(value: float) -> float:
    """The value as an f32 holds it."""
    return cast("float", struct.unpack("f", struct.pack("f", value))[0])


def same(one: float, other: float) -> bool:
    """Whether both are the same number, with the same sign of zero, or both are NaN."""
    return (one == other and math.copysign(1, one) == math.copysign(1, other)) or (one != one and other != other)


@given(st.integers(-(2**31), 2**32 - 1))
@example(-(2**31))
@example(2**31)
@example(2**32 - 1)
def test_i32(value: int) -> None:
    """Host functions get an i32 as a signed int, and may return it signed or unsigned."""
    echo = shared_echo("i32")
    signed = value if value < 2**31 else value - 2**32
    echo.answers = [value]
    assert echo(signed) == signed
    assert echo.seen == [signed]


@given(st.integers(-(2**63), 2**64 - 1))
@example(-(2**63))
@example(2**63)
@example(2**64 - 1)
def test_i64(value: int) -> None:
    """The same for an i64."""
    echo = shared_echo("i64")
    signed = value if value < 2**63 else value - 2**64
    echo.answers = [value]
    assert echo(signed) == signed
    assert echo.seen == [signed]


@given(st.floats(width=32))
@example(-0.0)
@example(math.inf)
@example(math.nan)
def test_f32(value: float) -> None:
    """An f32 goes both ways unchanged, infinities, NaN and the sign of zero included."""
    echo = shared_echo("f32")
    result = echo(value)
    assert same(result, value)
    assert same(echo.seen[0], value)


@given(st.floats())
@example(-0.0)
@example(-math.inf)
@example(math.nan)
def test_f64(value: float) -> None:
    """The same for an f64."""
    echo = shared_echo("f64")
    result = echo(value)
    assert same(result, value)
    assert same(echo.seen[0], value)


@pytest.mark.parametrize(
    ("ty", "returned", "result"),
    [
        ("i32", True, 1),
        ("f32", 0.1, single(0.1)),
        ("f32", 1e300, math.inf),
        ("f32", 3, 3.0),
        ("f64", 3, 3.0),
        ("f64", -(2**53), -float(2**53)),
    ],
)
def test_converted_results(ty: str, returned: object, result: float) -> None:
    """A bool is an integer; an f32 rounds, as C does; an integer will do where a float is wanted."""
    echo = Echo(ty)
    echo.answers = [returned]
    assert echo(0 if ty[0] == "i" else 0.0) == result


@pytest.mark.parametrize("value", ["text", 0, False, (), object(), [1, 2], Embedding, None])
def test_externref(value: object) -> None:
    """An externref is any Python object, and the same object comes back."""
    echo = Echo("externref")
    assert echo(value) is value
    assert echo.seen[0] is value


def test_externref_is_let_go() -> None:
    """Python objects that guests have seen end with the store at the latest."""

    class Thing:
        pass

    echo = Echo("externref")
    things = [Thing() for _ in range(100)]
    dead = [weakref.ref(thing) for thing in things]
    for thing in things:
        echo(thing)
    echo.store.close()
    echo.seen.clear()
    del thing, things
    gc.collect()
    assert {ref() for ref in dead} == {None}


def test_funcref() -> None:
    """A funcref is a function that can be called, stored and returned; null is None."""
    echo = Echo("funcref")
    returned = echo(echo.func("a_function"))
    assert isinstance(returned, Func)
    assert call(echo.store, returned) == call(echo.store, echo.seen[0]) == 7
    assert echo(None) is None
    assert echo.seen[1] is None


def test_several_results() -> None:
    """A sequence of as many results as the type has: a tuple, a list, or any iterable."""
    answers: list[Any] = [
        (1, 2**63, 0.5, -1.5, None, "x"),
        [-1, -2, math.inf, 0.0, None, None],
        iter((1, 2, 3, 4, None, 5)),
    ]
    embedding = Embedding()
    embedding.define("several", f"-> {ALL}", lambda: answers.pop(0))
    embedding.load(
        f"""(module (import "host" "several" (func $several (result {ALL})))
          (func (export "several") (result {ALL}) (call $several)))"""
    )
    assert embedding.call("several") == [1, -(2**63), 0.5, -1.5, None, "x"]
    assert embedding.call("several") == [-1, -2, math.inf, 0.0, None, None]
    assert embedding.call("several") == [1, 2, 3.0, 4.0, None, 5]


def test_many_arguments() -> None:
    """Arguments arrive in order, however many there are."""
    embedding, seen = Embedding(), []
    embedding.define("take", f"{'i32 f64 ' * 50} {ALL} ->", lambda *args: seen.append(args))
    embedding.load(
        f"""(module (import "host" "take" (func $take (param {"i32 f64 " * 50} {ALL})))
          (func (export "give") (call $take {" ".join(f"(i32.const {i}) (f64.const {i})" for i in range(50))}
            (i32.const -1) (i64.const -1) (f32.const 0.5) (f64.const nan) (ref.null func) (ref.null extern))))"""
    )
    embedding.call("give")
    (args,) = seen
    assert args[:100] == tuple(value for i in range(50) for value in (i, float(i)))
    assert args[100:103] == (-1, -1, 0.5)
    assert math.isnan(args[103])
    assert args[104:] == (None, None)


def test_references_among_numbers() -> None:
    """Arguments and results of both sorts keep their places."""
    embedding = Embedding()
    embedding.define("turn", "externref i32 externref f64 -> f64 externref i32 externref", lambda *args: args[::-1])
    embedding.load(
        """(module
          (import "host" "turn"
            (func $turn (param externref i32 externref f64) (result f64 externref i32 externref)))
          (func (export "turn") (param externref i32 externref f64) (result f64 externref i32 externref)
            (call $turn (local.get 0) (local.get 1) (local.get 2) (local.get 3))))"""
    )
    assert embedding.call("turn", "first", -1, "second", 0.5) == [0.5, "second", -1, "first"]


@pytest.mark.parametrize(
    ("results", "wrong"),
    [
        ("", 0),
        ("", ()),
        ("i32", None),
        ("i32", "1"),
        ("i32", 1.0),
        ("i32", 2.5),
        ("i32", math.nan),
        ("i32", 2**32),
        ("i32", -(2**31) - 1),
        ("i32", 10**100),
        ("i32", (1,)),
        ("i64", None),
        ("i64", 1.0),
        ("i64", 2**64),
        ("i64", -(2**63) - 1),
        ("f32", None),
        ("f32", "1.0"),
        ("f64", None),
        ("f64", 1j),
        ("f64", 10**400),
        ("funcref", 1),
        ("funcref", "a_function"),
        ("i32 i32", None),
        ("i32 i32", 1),
        ("i32 i32", ()),
        ("i32 i32", (1,)),
        ("i32 i32", (1, 2, 3)),
        ("i32 i32", (1, None)),
        ("i32 funcref", (1, 2)),
    ],
)
def test_wrong_results(results: str, wrong: object) -> None:
    """It raises a TypeError that names the function; the guest unwinds, and can be called again."""
    embedding = Embedding()
    embedding.define("wrong", f"-> {results}", lambda: wrong)
    embedding.load(
        f"""(module (import "host" "wrong" (func $wrong (result {results}))) (global $n (mut i32) (i32.const 0))
          (func $calls_wrong (export "call_wrong") (result {results})
            (call $wrong) (global.set $n (i32.const 1)))
          (func (export "ran_on") (result i32) (global.get $n)))"""
    )
    for _ in range(2):
        with pytest.raises(TypeError, match=r"^host function 'host\.wrong' returned what .* does not allow: ") as e:
            embedding.call("call_wrong")
        assert "calls_wrong" in "".join(e.value.__notes__)
    assert embedding.call("ran_on") == 0


@pytest.mark.parametrize("ty", ["f32", "f64", "i32", "i64"])
@pytest.mark.parametrize("error", [LookupError, RecursionError, KeyboardInterrupt])
def test_what_a_conversion_raises(ty: str, error: type[BaseException]) -> None:
    """A result may convert itself to a number; an error of the conversion propagates unchanged."""

    class Number:
        def __float__(self) -> float:
            raise error

        def __index__(self) -> int:
            raise error

    echo = Echo(ty)
    echo.answers = [Number()]
    with pytest.raises(error):
        echo(0 if ty[0] == "i" else 0.0)


def test_messages_about_wrong_numbers() -> None:
    """The messages say what is wrong with the number."""
    for ty, wrong, message in (
        ("i32", 2**32, "an integer that does not fit into an i32"),
        ("i64", -(2**63) - 1, "an integer that does not fit into an i64"),
        ("i32", 1.5, "'float' object cannot be interpreted as an integer"),
        ("f64", 10**400, "int too large to convert to float"),
    ):
        echo = Echo(ty)
        echo.answers = [wrong]
        with pytest.raises(TypeError, match=f": {message}\n"):
            echo(0 if ty[0] == "i" else 0.0)


def test_results_before_a_wrong_one_are_let_go() -> None:
    """References among them are not kept for a guest that never gets them."""

    class Thing:
        pass

    things = [Thing() for _ in range(10)]
    dead = [weakref.ref(thing) for thing in things]
    embedding = Embedding()
    embedding.define("wrong", "-> externref i32", lambda: (things.pop(), "wrong"))
    embedding.load(
        """(module (import "host" "wrong" (func $wrong (result externref i32)))
          (func (export "call") (result externref i32) (call $wrong)))"""
    )
    for _ in range(10):
        with pytest.raises(TypeError):
            embedding.call("call")
    gc.collect()
    embedding.store.gc()
    assert {ref() for ref in dead} == {None}


def test_function_of_another_store_as_a_result() -> None:
    """A function of another store is a wrong result, too, and ends only the call."""
    echo = Echo("funcref")
    echo.answers = [Echo("i32").func("a_function")]
    with pytest.raises(TypeError, match=r"'host\.echo' .* the function and the store do not belong together"):
        echo(None)


def test_types_are_checked_at_definition() -> None:
    """An object that is not a type, or cannot be called, is refused at once."""
    embedding = Embedding()
    with pytest.raises(TypeError, match=r"must be a wasmtime\.FuncType, not 'i32'"):
        embedding.linker.define_func("host", "f", cast("FuncType", "i32"), print)
    with pytest.raises(TypeError, match="must be callable, not 5"):
        embedding.linker.define_func("host", "f", FuncType([], []), cast("Any", 5))


def test_types_that_python_has_no_values_of() -> None:
    """Functions that have them are refused where they are defined or called. (wasmtime's `Func` aborts the process.)"""
    embedding = Embedding().load("""(module (func (export "f") (param v128)) (func (export "g") (param i32 v128)))""")
    with pytest.raises(TypeError, match="Python has no value for argument 0 of the guest's function"):
        embedding.call("f", 1)
    with pytest.raises(TypeError, match="Python has no value for argument 1 of the guest's function"):
        embedding.call("g", 1, 1)
    vector = compiled("""(module (import "host" "vector" (func (result v128))))""").imports[0].type
    with pytest.raises(TypeError, match=r"Python has no value for the result of host function 'host\.vector'"):
        embedding.linker.define_func("host", "vector", cast("FuncType", vector), print)
