"""WebAssembly exceptions that leave a context or a guest, and Python exceptions, which no guest can catch."""

from __future__ import annotations

import copy
import gc
import pickle
import re
import weakref
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
from guests.compile import TOOLCHAIN, compile_guest
from guests.embedding import IMPORTS, Collecting, signature
from leakcheck import assert_no_leak
from processes import run_greenctx
from wasmtime import Tag, Trap

from greenctx import ContextCanceled, ContextEntrypointReturned, current_environment
from greenctx.wasix import GuestException, Program, call

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HAS_BACKTRACES = not version("wasmtime").startswith("45.")
"""Whether wasmtime tells where an exception came from. 45 does not."""

# Context 1 throws; main does with it what the test says.
THROWING = f"""(module {IMPORTS}
  (import "host" "act" (func $act))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (table (export "__indirect_function_table") funcref (elem $thrower $good))
  (tag $numbers (export "numbers") (param i32 i64 f32 f64))
  (tag $other)
  (func $thrower (throw $numbers (i32.const 7) (i64.const -8) (f32.const 1.5) (f64.const 2.5)))
  (func $good (drop (call $switch (i64.const 0))))
  (func $start_context (param $entrypoint i32)
    (if (call $create (i32.const 0) (local.get $entrypoint)) (then unreachable))
    (if (call $switch (i64.load (i32.const 0))) (then unreachable)))
  (func (export "_start") BODY))"""

GOOD = """
  (call $start_context (i32.const 1))
  (if (call $destroy (i64.load (i32.const 0))) (then unreachable))"""


def program(body: str, act: Callable[[], Any] = lambda: None) -> Program:
    made = Program(THROWING.replace("BODY", body).encode())
    made.linker.define_func("host", "act", signature("->"), act)
    return made


def check_good_guest() -> None:
    """A guest whose contexts switch, throw and catch runs normally."""
    body = f"""{GOOD}
      (block $caught (try_table (catch_all $caught) (call $start_context (i32.const 0))) unreachable)
      {GOOD}
      (call $exit (i32.const 42))"""
    assert program(body).run() == 42


def test_main_catches_what_a_context_threw() -> None:
    """main's context_switch throws the exception of a context, with its tag and payload. The context has ended:
    destroying it succeeds, switching to it is EINVAL. Main goes on with others."""
    body = f"""(local $i32 i32) (local $i64 i64) (local $f32 f32) (local $f64 f64)
      (block $caught (result i32 i64 f32 f64)
        (try_table (catch $other 1) (catch $numbers $caught) (call $start_context (i32.const 0)))
        unreachable)
      (local.set $f64) (local.set $f32) (local.set $i64) (local.set $i32)
      (if (i32.ne (local.get $i32) (i32.const 7)) (then unreachable))
      (if (i64.ne (local.get $i64) (i64.const -8)) (then unreachable))
      (if (f32.ne (local.get $f32) (f32.const 1.5)) (then unreachable))
      (if (f64.ne (local.get $f64) (f64.const 2.5)) (then unreachable))
      (if (i32.ne (call $switch (i64.const 1)) (i32.const 28)) (then unreachable))
      (if (call $destroy (i64.const 1)) (then unreachable))
      {GOOD}
      (if (i64.ne (i64.load (i32.const 0)) (i64.const 2)) (then unreachable))
      (call $exit (i32.const 3))"""
    assert program(body).run() == 3


@pytest.mark.parametrize("clause", ["(catch_all $caught)", "(catch $other 0) (catch_all $caught)"])
def test_main_catches_all(clause: str) -> None:
    """A catch_all has it as well, whatever clauses for other tags come before."""
    body = f"""(block $caught (try_table {clause} (call $start_context (i32.const 0))) unreachable)
      (call $exit (i32.const 5))"""
    assert program(body).run() == 5


def test_rethrown_in_main() -> None:
    """Main may catch it as a reference, switch, and throw it again: it is the same."""
    body = f"""(local $exception exnref)
      (block $caught (result exnref)
        (try_table (catch_all_ref $caught) (call $start_context (i32.const 0))) unreachable)
      (local.set $exception)
      {GOOD}
      (block $again (result i32 i64 f32 f64)
        (try_table (catch $numbers $again) (throw_ref (local.get $exception))) unreachable)
      (drop) (drop) (drop)
      (call $exit)"""
    assert program(body).run() == 7


def test_uncaught() -> None:
    """Uncaught in main, too, it is an error of Program.run with tag, payload and the backtraces of both; the contexts
    are unwound."""
    with pytest.raises(GuestException, match=re.escape("exception with (7, -8, 1.5, 2.5), and nothing")) as raised:
        program("(call $start_context (i32.const 1)) (call $start_context (i32.const 0))").run()
    error = raised.value
    assert error.payload == (7, -8, 1.5, 2.5)
    assert isinstance(error.tag, Tag)
    assert error.__context__ is None
    if HAS_BACKTRACES:
        in_context, in_main = error.__notes__
        assert "!thrower" in in_context
        assert "!start_context" in in_main
        assert "Caused by" not in in_context + in_main
    check_good_guest()


@pytest.mark.parametrize("times", [1, 2])
def test_uncaught_without_contexts(times: int) -> None:
    """An exception that main throws is the same error, with one backtrace, also in a guest that catches its first."""
    body = "(block $caught (try_table (catch_all $caught) (call $thrower)))" * (times - 1)
    with pytest.raises(GuestException) as raised:
        program(f"{body} (call $thrower)").run()
    assert raised.value.payload == (7, -8, 1.5, 2.5)
    assert len(getattr(raised.value, "__notes__", [])) == HAS_BACKTRACES
    check_good_guest()


def test_thrown_anew_by_main() -> None:
    """An exception that main throws after it has caught a context's is another one, with main's backtrace only."""
    body = """
      (block $caught (try_table (catch_all $caught) (call $start_context (i32.const 0))) unreachable)
      (throw $other)"""
    with pytest.raises(GuestException) as raised:
        program(body).run()
    assert raised.value.payload == ()
    assert str(raised.value) == "the guest threw an exception, and nothing caught it"
    assert not any("thrower" in note for note in getattr(raised.value, "__notes__", []))
    check_good_guest()


def test_thrown_by_a_start_function() -> None:
    """A module's start function may throw: nothing is instantiated, and it is the same error."""
    embedding = Collecting()
    with pytest.raises(GuestException) as raised:
        embedding.load("(module (tag $t (param i32)) (func $start (throw $t (i32.const 9))) (start $start))")
    assert raised.value.payload == (9,)
    check_good_guest()


@pytest.mark.parametrize("catches", ["(catch_all $caught)", "(catch $other 1) (catch $numbers 0) (catch_all $caught)"])
@pytest.mark.parametrize("error_type", [ValueError, KeyboardInterrupt, SystemExit])
def test_python_exception_is_not_caught_by_guests(error_type: type[BaseException], catches: str) -> None:
    """The exception of a host function in a context goes to main and on unchanged, past every try_table on its way."""
    error = error_type("original")

    def act() -> None:
        assert current_environment().active_context_id == 1
        raise error

    body = THROWING.replace(
        "(func $good ",
        f"""(func $good
        (block $caught (block (block (result i32 i64 f32 f64)
          (try_table {catches} (call $act))
          (i32.const 0) (i64.const 0) (f32.const 0) (f64.const 0)) drop drop drop drop) unreachable) """,
    )
    body = body.replace(
        "BODY",
        f"""
      (block $caught (block (block (result i32 i64 f32 f64)
        (try_table {catches} (call $start_context (i32.const 1)))
        (i32.const 0) (i64.const 0) (f32.const 0) (f64.const 0)) drop drop drop drop))
      (call $exit (i32.const 9))""",
    )
    made = Program(body.encode())
    made.linker.define_func("host", "act", signature("->"), act)
    with pytest.raises(error_type) as raised:
        made.run()
    assert raised.value is error
    in_context, in_main = error.__notes__
    assert "!good" in in_context
    assert "!start_context" in in_main
    check_good_guest()


def test_other_ends_are_not_caught_by_guests() -> None:
    """A guest cannot catch a trap of another context, the return of an entrypoint, or an exit."""
    catching = "(block $caught (try_table (catch_all $caught) {}) (return)) (call $exit (i32.const 9))"
    with pytest.raises(ContextEntrypointReturned):
        program(catching.format("(call $start_context (i32.const 1)) (call $switch (i64.const 1)) (drop)")).run()
    assert program(catching.format("(call $exit (i32.const 4))")).run() == 4
    trapping = THROWING.replace("(func $good ", "(func $good unreachable ")
    body = trapping.replace("BODY", catching.format("(call $start_context (i32.const 1))"))
    made = Program(body.encode())
    made.linker.define_func("host", "act", signature("->"), lambda: None)
    with pytest.raises(Trap, match="unreachable"):
        made.run()
    check_good_guest()


NESTING = """(module
  (import "host" "call_inner" (func $call_inner (result i32)))
  (tag $t (param i32)) (tag $u (param i32))
  (func (export "inner") (param i32) (result i32) (throw $t (local.get 0)))
  (func (export "catches") (result i32)
    (block $caught (result i32) (try_table (result i32) (catch $t $caught) (call $call_inner))))
  (func (export "catches_other") (result i32)
    (block $caught (result i32) (try_table (result i32) (catch $u $caught) (call $call_inner))))
  (func (export "throws_again") (result i32)
    (block $caught (result i32) (try_table (result i32) (catch $t $caught) (call $call_inner)))
    (throw $t)))"""


def nesting(call_inner: Callable[[Collecting], int]) -> Collecting:
    embedding = Collecting()
    embedding.define("call_inner", "-> i32", lambda: call_inner(embedding))
    embedding.load(NESTING)
    return embedding


def test_through_a_host_function() -> None:
    """An exception of a guest that a host function has called goes on through it, to the guest that called that."""
    embedding = nesting(lambda guest: int(guest.call("inner", 5)))
    assert embedding.call("catches") == 5
    with pytest.raises(GuestException) as raised:
        embedding.call("catches_other")
    assert raised.value.payload == (5,)
    assert len(getattr(raised.value, "__notes__", [])) == 2 * HAS_BACKTRACES
    with pytest.raises(GuestException) as raised:
        embedding.call("throws_again")
    assert len(getattr(raised.value, "__notes__", [])) == HAS_BACKTRACES
    check_good_guest()


def test_caught_by_a_host_function() -> None:
    """The host function may catch it, look at it, keep it, and raise it later: it is still the same exception."""
    kept: list[GuestException] = []

    def call_inner(guest: Collecting) -> int:
        if not kept:
            with pytest.raises(GuestException) as raised:
                guest.call("inner", 6)
            kept.append(raised.value)
            return 60
        guest.store.gc()
        raise kept[0]

    embedding = nesting(call_inner)
    assert embedding.call("catches") == 60
    for _ in range(3):
        assert embedding.call("catches") == 6
    with pytest.raises(GuestException) as raised:
        embedding.call("catches_other")
    assert raised.value is kept[0]


def test_caught_by_the_guest_before_it_switches() -> None:
    """The frames of an exception are freed when the guest that caught it switches, because the guest may go on for
    long.

    The guest's next switch may be done without Python.
    """

    class Thing:
        pass

    things: list[weakref.ref[Thing]] = []
    alive: list[bool] = []

    def throw_through() -> None:
        thing = Thing()
        things.append(weakref.ref(thing))
        embedding.call("throw")

    def look() -> None:
        gc.collect()
        alive.append(things[0]() is not None)

    embedding = Collecting()
    embedding.define("throw_through", "->", throw_through)
    embedding.define("look", "->", look)
    embedding.load(f"""(module {IMPORTS}
      (import "host" "throw_through" (func $throw_through))
      (import "host" "look" (func $look))
      (memory (export "memory") 1)
      (table (export "__indirect_function_table") funcref (elem $other))
      (tag $tag)
      (func (export "throw") (throw $tag))
      (func $other (drop (call $switch (i64.const 0))) (call $look) (drop (call $switch (i64.const 0))))
      (func (export "main")
        (drop (call $create (i32.const 0) (i32.const 0)))
        (drop (call $switch (i64.const 1)))
        (block $caught (try_table (catch_all $caught) (call $throw_through)) unreachable)
        (drop (call $switch (i64.const 1)))))""")
    embedding.run_guest("main")
    assert alive == [False]


def test_raised_from() -> None:
    """Another exception that the host function raises instead is Python's: no guest catches it."""

    def call_inner(guest: Collecting) -> int:
        try:
            return int(guest.call("inner", 7))
        except GuestException as error:
            raise ValueError from error

    with pytest.raises(ValueError) as raised:  # noqa: PT011
        nesting(call_inner).call("catches")
    assert isinstance(raised.value.__cause__, GuestException)
    check_good_guest()


@pytest.mark.parametrize("foreign", ["another store's", "a copy", "pickled"])
def test_not_the_guests_own(foreign: str) -> None:
    """An exception of another store's guest, or a copy of one, is an error of Python's like any other."""
    with pytest.raises(GuestException) as raised:
        nesting(lambda _: 0).call("inner", 8)
    error = raised.value
    if foreign == "a copy":
        error = copy.copy(error)
    elif foreign == "pickled":
        error = pickle.loads(pickle.dumps(error))
    assert error.payload == (8,)

    def call_inner(_: Collecting) -> int:
        raise error

    with pytest.raises(GuestException) as raised:
        nesting(call_inner).call("catches")
    assert raised.value is error
    check_good_guest()


def test_kept_longer_than_its_store() -> None:
    """After its store is closed, the error still tells what it was."""
    embedding = nesting(lambda _: 0)
    with pytest.raises(GuestException) as raised:
        embedding.call("inner", 9)
    embedding.store.close()
    assert raised.value.payload == (9,)
    error = raised.value

    def call_inner(_: Collecting) -> int:
        raise error

    with pytest.raises(GuestException):
        nesting(call_inner).call("catches")
    check_good_guest()


PAYLOADS = {
    "externref": ("(param externref)", "(table.get 0 (i32.const 0))", ("an object",)),
    "null": ("(param externref funcref)", "(ref.null extern) (ref.null func)", (None, None)),
    "v128": ("(param v128 i32)", "(v128.const i64x2 1 2) (i32.const 3)", (NotImplemented, 3)),
    "exnref": ("(param exnref i32)", "(ref.null exn) (i32.const 3)", (NotImplemented, 3)),
    "struct": ("(param (ref $s) i32)", "(struct.new $s (i32.const 1)) (i32.const 3)", (NotImplemented, 3)),
    "i31": ("(param i31ref i32)", "(ref.i31 (i32.const 1)) (i32.const 3)", (NotImplemented, 3)),
}


@pytest.mark.parametrize("kind", PAYLOADS)
def test_payloads(kind: str) -> None:
    """References to Python's objects are these; what Python has no values of is NotImplemented, and can be caught."""
    types, values, expected = PAYLOADS[kind]
    embedding = Collecting()
    embedding.define("throw", "->", lambda: embedding.call("throw"))
    embedding.load(
        f"""(module (type $s (struct (field i32))) (import "host" "throw" (func $throw)) (tag $t {types})
          (table 1 externref)
          (func (export "keep") (param externref) (table.set 0 (i32.const 0) (local.get 0)))
          (func (export "throw") (throw $t {values}))
          (func (export "catch") (result i32)
            (block $caught (try_table (catch_all $caught) (call $throw)) unreachable) (i32.const 42)))"""
    )
    embedding.call("keep", "an object")
    with pytest.raises(GuestException) as raised:
        embedding.call("throw")
    assert raised.value.payload == expected
    assert embedding.call("catch") == 42


def test_thrown_while_others_are_destroyed() -> None:
    """The end of a program by an exception unwinds its other contexts, whose errors are in its context."""

    def act() -> None:
        try:
            current_environment().switch_context(0)
        except ContextCanceled:
            raise ValueError("while it unwound") from None

    body = THROWING.replace("(func $good ", "(func $good (call $act) ")
    body = body.replace("BODY", "(call $start_context (i32.const 1)) (call $start_context (i32.const 0))")
    made = Program(body.encode())
    made.linker.define_func("host", "act", signature("->"), act)
    with pytest.raises(GuestException) as raised:
        made.run()
    assert str(raised.value.__context__) == "while it unwound" or isinstance(
        raised.value.__context__, BaseExceptionGroup
    )
    check_good_guest()


@pytest.mark.parametrize("way", ["caught in main", "uncaught", "through a host function", "kept"])
def test_nothing_is_left_behind(way: str, long: bool) -> None:
    """Exceptions are freed, in Python and in the store, with their last reference, without Python's collector."""
    embedding = nesting(lambda guest: int(guest.call("inner", 5)))
    contexts = Collecting().load(
        f"""(module {IMPORTS} (memory (export "memory") 1) (tag $t (param i64))
          (table (export "__indirect_function_table") funcref (elem $thrower))
          (func $thrower (throw $t (i64.const 1)))
          (func (export "main")
            (drop (call $create (i32.const 0) (i32.const 0)))
            (block $caught (result i64)
              (try_table (catch $t $caught) (drop (call $switch (i64.load (i32.const 0))))) unreachable)
            (drop)))"""
    )

    def scenario() -> None:
        for _ in range(10):
            if way == "caught in main":
                contexts.env = type(contexts.env)()
                contexts.run_guest("main")
            elif way == "through a host function":
                embedding.call("catches")
            else:
                error: GuestException | None = None
                try:
                    embedding.call("inner" if way == "kept" else "catches_other", *[5] * (way == "kept"))
                except GuestException as caught:
                    error = caught
                assert error is not None
                error.__traceback__ = None

    if HAS_BACKTRACES or way in ("uncaught", "kept"):
        assert_no_leak(scenario, repeats=50 if long else 15)


def test_command_line(tmp_path: Path) -> None:
    """An uncaught exception ends the program with status 134, a message, and where it came from, no traceback."""
    guest = tmp_path / "throws.wat"
    guest.write_text(
        THROWING.replace('(import "host" "act" (func $act))', "").replace("BODY", "(call $start_context (i32.const 0))")
    )
    ran = run_greenctx("run", guest)
    assert ran.returncode == 134
    assert ran.stderr.startswith(
        b"greenctx: the guest threw an exception with (7, -8, 1.5, 2.5), and nothing caught it\n"
    )
    assert (b"!thrower" in ran.stderr) == HAS_BACKTRACES
    assert b"Traceback" not in ran.stderr


@pytest.mark.parametrize(
    "shape",
    [
        # zig builds a C library for these features alone, which takes half a minute
        pytest.param(("-mexception-handling",), id="wasi", marks=pytest.mark.long),
        pytest.param(TOOLCHAIN, id="toolchain"),
    ],
)
@pytest.mark.parametrize("level", ["-O0", "-O2"])
def test_setjmp_and_longjmp(level: str, shape: tuple[str, ...]) -> None:
    """A C guest's longjmp goes to the setjmp of its own context, though others ran and jumped in between. (With shadow
    stacks, because the locals of a frame that longjmp returns to are address-taken.)"""
    flags = ("-mllvm", "-wasm-enable-sjlj", "-mllvm", "-wasm-use-legacy-eh=false")
    guest = compile_guest("jumps", level, *flags, "-lsetjmp", "-Wl,--export=__stack_pointer", *shape)
    ran = run_greenctx("run", "--shadow-stack=64KiB", guest, "200")
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert ran.stdout == b"200 jumps in main, 133 in context 1, 100 in context 2\n"


def test_exceptions_in_a_tight_loop() -> None:
    """A context throws and catches millions of times what is collected meanwhile, and main has its results."""
    body = """(local $count i32)
      (loop $next
        (block $caught (try_table (catch_all $caught) (call $thrower)))
        (local.set $count (i32.add (local.get $count) (i32.const 1)))
        (br_if $next (i32.lt_u (local.get $count) (i32.const 200000))))
      (call $exit (i32.const 6))"""
    assert program(body).run() == 6


def test_call_from_a_context_of_python() -> None:
    """Where an entrypoint is Python's, main gets the exception as a Python exception."""
    embedding = nesting(lambda _: 0)
    env = embedding.env

    def main() -> None:
        context = env.create_context(lambda: call(embedding.store, embedding.func("inner"), 3))
        with pytest.raises(GuestException) as raised:
            env.switch_context(context)
        assert raised.value.payload == (3,)
        assert not env.destroy_context(context)

    embedding.run(main)
