"""What passes between guests and host functions: values of every type, and what comes of wrong ones."""

from __future__ import annotations

import gc
import math
import struct
import weakref
from typing import Any, cast

import pytest
from embedding import Embedding
from hypothesis import example, given
from hypothesis import strategies as st
from wasmtime import Func, FuncType

from greenctx.wasix import call
from greenctx.wasix.suspend import Caller

ALL = "i32 i64 f32 f64 funcref externref"


def echo(ty: str) -> tuple[Embedding, list[Any]]:
    """A guest that hands its argument to a host function, and returns what that returns, its argument by default."""
    embedding, seen = Embedding(), []

    def note(value: Any) -> Any:
        seen.append(value)
        return ANSWERS.get(id(seen), value)

    embedding.define("echo", f"{ty} -> {ty}", note)
    embedding.load(
        f"""(module (import "host" "echo" (func $echo (param {ty}) (result {ty})))
          (func (export "echo") (param {ty}) (result {ty}) (call $echo (local.get 0)))
          (func (export "a_function") (result i32) (i32.const 7)))"""
    )
    return embedding, seen


ANSWERS: dict[int, Any] = {}
"""What the host function of an `echo` returns instead, by the identity of its list."""


def single(value: float) -> float:
    """The value as an f32 holds it."""
    return cast("float", struct.unpack("f", struct.pack("f", value))[0])


@given(st.integers(-(2**31), 2**32 - 1))
@example(-(2**31))
@example(2**31)
@example(2**32 - 1)
def test_i32(value: int) -> None:
    """Host functions get an i32 as a signed int, and may return it signed or unsigned."""
    embedding, seen = echo("i32")
    signed = value if value < 2**31 else value - 2**32
    ANSWERS[id(seen)] = value
    assert embedding.call("echo", signed) == signed
    assert seen == [signed]


@given(st.integers(-(2**63), 2**64 - 1))
@example(-(2**63))
@example(2**63)
@example(2**64 - 1)
def test_i64(value: int) -> None:
    """The same for an i64."""
    embedding, seen = echo("i64")
    signed = value if value < 2**63 else value - 2**64
    ANSWERS[id(seen)] = value
    assert embedding.call("echo", signed) == signed
    assert seen == [signed]


@given(st.floats(width=32))
@example(-0.0)
@example(math.inf)
@example(math.nan)
def test_f32(value: float) -> None:
    """An f32 goes both ways unchanged, infinities, NaN and the sign of zero included."""
    embedding, seen = echo("f32")
    results = [embedding.call("echo", value), *seen]
    assert [struct.pack("f", result) for result in results if value == value] == [struct.pack("f", value)] * 2 or all(
        math.isnan(result) for result in results
    )


@given(st.floats())
@example(-0.0)
@example(-math.inf)
@example(math.nan)
def test_f64(value: float) -> None:
    """The same for an f64."""
    embedding, seen = echo("f64")
    results = [embedding.call("echo", value), *seen]
    assert [struct.pack("d", result) for result in results if value == value] == [struct.pack("d", value)] * 2 or all(
        math.isnan(result) for result in results
    )


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
    embedding, seen = echo(ty)
    ANSWERS[id(seen)] = returned
    assert embedding.call("echo", 0 if ty[0] == "i" else 0.0) == result


@pytest.mark.parametrize("value", ["text", 0, False, (), object(), [1, 2], Embedding, None])
def test_externref(value: object) -> None:
    """An externref is any Python object, which comes back as itself."""
    embedding, seen = echo("externref")
    assert embedding.call("echo", value) is value
    assert seen[0] is value


def test_externref_is_let_go() -> None:
    """Python objects that guests have seen end with the store at the latest."""

    class Thing:
        pass

    embedding, seen = echo("externref")
    things = [Thing() for _ in range(100)]
    dead = [weakref.ref(thing) for thing in things]
    for thing in things:
        embedding.call("echo", thing)
    embedding.store.close()
    seen.clear()
    del thing, things, embedding
    gc.collect()
    assert {ref() for ref in dead} == {None}


def test_funcref() -> None:
    """A funcref is a function that can be called, stored and returned; null is None."""
    embedding, seen = echo("funcref")
    function = embedding.func("a_function")
    returned = embedding.call("echo", function)
    assert isinstance(returned, Func)
    assert call(embedding.store, returned) == call(embedding.store, seen[0]) == 7
    assert embedding.call("echo", None) is None
    assert seen[1] is None


def test_several_results() -> None:
    """A sequence of as many results as the type has: a tuple, a list, or any iterable."""
    answers: list[Any] = [(1, 2**63, 0.5, -1.5, None, "x"), [-1, -2, math.inf, 0.0, None, None], iter((1, 2, 3, 4, None, 5))]
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
        f"""(module (import "host" "take" (func $take (param {'i32 f64 ' * 50} {ALL})))
          (func (export "give") (call $take {" ".join(f"(i32.const {i}) (f64.const {i})" for i in range(50))}
            (i32.const -1) (i64.const -1) (f32.const 0.5) (f64.const nan) (ref.null func) (ref.null extern))))"""
    )
    embedding.call("give")
    (args,) = seen
    assert args[:100] == tuple(value for i in range(50) for value in (i, float(i)))
    assert args[100:103] == (-1, -1, 0.5)
    assert math.isnan(args[103])
    assert args[104:] == (None, None)


@pytest.mark.parametrize(
    ("results", "wrong"),
    [
        ("", 0),
        ("", ()),
        ("i32", None),
        ("i32", "1"),
        ("i32", 1.0),
        ("i32", math.nan),
        ("i32", 2**32),
        ("i32", -(2**31) - 1),
        ("i32", 10**100),
        ("i32", (1,)),
        ("i64", None),
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
    """A TypeError that names the function; the guest unwinds, and is none the worse."""
    embedding = Embedding()
    embedding.define("wrong", f"-> {results}", lambda: wrong)
    embedding.load(
        f"""(module (import "host" "wrong" (func $wrong (result {results}))) (global $n (mut i32) (i32.const 0))
          (func (export "call_wrong") (result {results})
            (call $wrong) (global.set $n (i32.const 1)))
          (func (export "ran_on") (result i32) (global.get $n)))"""
    )
    for _ in range(2):
        with pytest.raises(TypeError, match=r"^host function 'host\.wrong' returned what its type does not allow: ") as e:
            embedding.call("call_wrong")
        assert "call_wrong" in "".join(e.value.__notes__)
    assert embedding.call("ran_on") == 0


def test_function_of_another_store_as_a_result() -> None:
    """It is a wrong result, too, and ends nothing but the call."""
    other, _ = echo("i32")
    embedding, seen = echo("funcref")
    ANSWERS[id(seen)] = other.func("a_function")
    with pytest.raises(TypeError, match=r"'host\.echo' .* the function and the store do not belong together"):
        embedding.call("echo", None)


def test_caller() -> None:
    """With access_caller a host function reads and writes the guest's memory, and sees its exports."""
    embedding = Embedding()

    def double(caller: Caller, pointer: int) -> None:
        memory = caller["memory"]
        assert caller.get("nothing") is None
        with pytest.raises(KeyError):
            caller["nothing"]
        text = memory.read(caller, pointer, pointer + 4)  # type: ignore[union-attr]
        memory.write(caller, text * 2, pointer)  # type: ignore[union-attr]
        assert call(caller, cast("Func", caller["seven"])) == call(embedding.store, cast("Func", caller["seven"])) == 7

    embedding.define("double", "i32 ->", double, access_caller=True)
    embedding.load(
        """(module (import "host" "double" (func $double (param i32))) (memory (export "memory") 1)
          (data (i32.const 100) "abcd") (func (export "double") (call $double (i32.const 100)))
          (func (export "seven") (result i32) (i32.const 7)))"""
    ).call("double")
    assert embedding.memory.read(embedding.store, 100, 110) == b"abcdabcd\0\0"


def test_caller_after_a_switch() -> None:
    """The caller is good while its function waits for others, whatever they do to the guest, and no longer."""
    embedding, callers = Embedding(), []

    def wait(caller: Caller) -> None:
        callers.append(caller)
        embedding.env.switch_context(1 - embedding.env.active_context_id)
        memory = caller["memory"]
        memory.write(caller, b"!", memory.data_len(caller) - 1)  # type: ignore[union-attr]

    def other() -> None:
        embedding.call("wait_and_grow")
        embedding.call("wait_and_grow")

    def main() -> None:
        embedding.env.create_context(other)
        embedding.call("wait_and_grow")
        embedding.call("wait_and_grow")

    embedding.define("wait", "->", wait, access_caller=True)
    embedding.load(
        """(module (import "host" "wait" (func $wait)) (memory (export "memory") 1)
          (func (export "wait_and_grow") (call $wait) (drop (memory.grow (i32.const 1)))))"""
    ).run(main)
    assert embedding.memory.size(embedding.store) == 4
    assert [embedding.memory.read(embedding.store, n * 65536 - 1, n * 65536) for n in (1, 2, 3)] == [b"!"] * 3
    for caller in callers:
        assert caller.get("memory") is None
        with pytest.raises(KeyError):
            caller["memory"]
        with pytest.raises(ValueError, match="caller is no longer valid"):
            embedding.memory.read(caller, 0, 1)
        with pytest.raises(ValueError, match="caller is no longer valid"):
            call(caller, embedding.func("wait_and_grow"))


def test_types_are_checked_at_definition() -> None:
    """What is no type, or cannot be called, is refused at once."""
    embedding = Embedding()
    with pytest.raises(TypeError, match=r"must be a wasmtime\.FuncType, not 'i32'"):
        embedding.linker.define_func("host", "f", cast("FuncType", "i32"), print)
    with pytest.raises(TypeError, match="must be callable, not 5"):
        embedding.linker.define_func("host", "f", FuncType([], []), cast("Any", 5))
