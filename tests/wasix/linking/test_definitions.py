"""A linker's definitions, and the stores that may use them: modules, lookups, instances.

Misuse that would be the end of the process is tried in a process of its own.
"""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

import pytest
from guests.embedding import ENGINE, Embedding, compiled, signature
from processes import check_embedder
from wasmtime import Func, FuncType, Memory, Store, ValType, WasiConfig, WasmtimeError

from greenctx.wasix import GuestExit, InstancePre, Linker, Program, call

if TYPE_CHECKING:
    from greenctx.wasix import Caller

COMMAND = """(module (import "host" "swap" (func $swap (param i32) (result i32)))
  (memory (export "memory") 1) (global $count (mut i32) (i32.const 0))
  (func (export "_start") (drop (call $swap (i32.const 7))))
  (func (export "count") (param i32) (result i32 i32)
    (global.set $count (i32.add (global.get $count) (i32.const 1)))
    (call $swap (local.get 0)) (global.get $count)))"""


def test_command() -> None:
    """Each call of a command's function is to a fresh instance, whose host functions may switch."""
    embedding = Embedding()
    embedding.define("swap", "i32 -> i32", embedding.swap)
    embedding.linker.define_module(embedding.store, "command", compiled(COMMAND))
    embedding.load(
        """(module (import "command" "count" (func $count (param i32) (result i32 i32)))
          (import "command" "_start" (func $start))
          (func (export "run") (param i32) (result i32 i32 i32)
            (call $start) (call $count (local.get 0))
            (call $count (local.get 0)) (drop)))"""
    )
    results: list[object] = []

    def other() -> None:
        results.append(embedding.call("run", 20))
        embedding.env.switch_context(0)

    def main() -> None:
        embedding.env.create_context(other)
        results.append(embedding.call("run", 10))
        embedding.env.switch_context(1)

    embedding.run(main)
    assert results == [[10, 1, 10], [20, 1, 20]]
    default = embedding.linker.get_default(embedding.store, "command")
    assert embedding.env is not None
    swap_alone = Embedding()
    swap_alone.define("swap", "i32 -> i32", lambda number: number)
    swap_alone.linker.define_module(swap_alone.store, "command", compiled(COMMAND))
    assert call(swap_alone.store, swap_alone.linker.get_default(swap_alone.store, "command")) is None
    assert isinstance(default, Func)
    count = cast("Func", swap_alone.linker.get(swap_alone.store, "command", "count"))
    assert [call(swap_alone.store, count, 5) for _ in range(3)] == [[5, 1]] * 3
    other_store = Store(ENGINE)  # a command belongs to no store
    assert call(other_store, cast("Func", swap_alone.linker.get(other_store, "command", "count")), 5) == [5, 1]


def test_command_that_exits_or_fails() -> None:
    """proc_exit in a command ends its caller, too, as with wasmtime; what a host function raises comes through."""
    embedding = Embedding()
    embedding.store.set_wasi(WasiConfig())
    embedding.linker.define_wasi()
    error = LookupError("original")

    def fail() -> None:
        raise error

    embedding.define("fail", "->", fail)
    embedding.linker.define_module(
        embedding.store,
        "command",
        compiled(
            """(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
              (import "host" "fail" (func $fail)) (memory (export "memory") 0)
              (func (export "_start") (call $exit (i32.const 9))) (func (export "fail") (call $fail)))"""
        ),
    )
    embedding.load(
        """(module (import "command" "_start" (func $start)) (import "command" "fail" (func $fail))
          (func (export "start") (call $start)) (func (export "fail") (call $fail)))"""
    )
    with pytest.raises(GuestExit) as exit:
        embedding.call("start")
    assert exit.value.status == 9
    with pytest.raises(LookupError) as raised:
        embedding.call("fail")
    assert raised.value is error
    assert len(error.__notes__) == 2


def test_reactor() -> None:
    """A module other than a command is instantiated once, and initialized."""
    embedding = Embedding()
    embedding.define("swap", "i32 -> i32", lambda number: number)
    embedding.linker.define_module(
        embedding.store,
        "reactor",
        compiled(
            """(module (import "host" "swap" (func $swap (param i32) (result i32)))
              (global $count (export "count") (mut i32) (i32.const 0)) (memory (export "memory") 3)
              (func (export "_initialize") (global.set $count (call $swap (i32.const 40))))
              (func (export "next") (result i32)
                (global.set $count (i32.add (global.get $count) (i32.const 1))) (global.get $count)))"""
        ),
    )
    embedding.load(
        """(module (import "reactor" "next" (func $next (result i32))) (import "reactor" "memory" (memory 3))
          (func (export "next") (result i32) (call $next)))"""
    )
    assert [embedding.call("next") for _ in range(3)] == [41, 42, 43]
    found = cast("Memory", embedding.linker.get(embedding.store, "reactor", "memory"))
    assert found.size(embedding.store) == 3
    embedding.linker.define_module(embedding.store, "plain", compiled('(module (func (export "f")))'))
    assert call(embedding.store, cast("Func", embedding.linker.get(embedding.store, "plain", "f"))) is None
    assert call(embedding.store, embedding.linker.get_default(embedding.store, "plain")) is None  # does nothing
    with pytest.raises(WasmtimeError, match="defined twice"):
        embedding.linker.define_module(embedding.store, "plain", compiled('(module (func (export "f")))'))


@pytest.mark.parametrize(
    ("exports", "message"),
    [
        ('(func (export "_start")) (func (export "_initialize"))', "cannot be both command and reactor"),
        ('(memory (export "_start") 1)', "the module's export '_start' is not a function"),
        ('(memory (export "_initialize") 1)', "the module's export '_initialize' is not a function"),
        (
            '(func (export "_start")) (global (export "g") i32 (i32.const 0))',
            "the command's export 'g' is not a function",
        ),
    ],
)
def test_modules_that_cannot_be_defined(exports: str, message: str) -> None:
    """Such modules raise wasmtime's errors, and define nothing."""
    embedding = Embedding()
    with pytest.raises(WasmtimeError, match=message):
        embedding.linker.define_module(embedding.store, "m", compiled(f"(module {exports})"))
    for name in ("_start", "_initialize", "g"):
        with pytest.raises(WasmtimeError, match="not defined"):
            embedding.linker.get(embedding.store, "m", name)


def test_instantiate_pre() -> None:
    """Imports are looked up once; each instance is new, in whichever store; start functions may switch."""
    embedding = Embedding()
    told: list[int] = []
    embedding.define("swap", "i32 -> i32", embedding.swap)
    embedding.define("tell", "i32 ->", lambda number: told.append(number))
    pre = embedding.linker.instantiate_pre(
        compiled(
            """(module (import "host" "swap" (func $swap (param i32) (result i32)))
              (import "host" "tell" (func $tell (param i32)))
              (global $n (mut i32) (i32.const 1)) (func $first (call $tell (call $swap (global.get $n)))) (start $first)
              (func (export "next") (result i32)
                (global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n)))"""
        )
    )
    assert isinstance(pre, InstancePre)

    def instantiate(store: Store) -> list[Any]:
        next_one = cast("Func", pre.instantiate(store).exports(store)["next"])
        return [call(store, next_one), call(store, next_one)]

    def other() -> None:
        assert instantiate(embedding.store) == [2, 3]
        embedding.env.switch_context(0)

    def main() -> None:
        embedding.env.create_context(other)
        assert instantiate(Store(ENGINE)) == [2, 3]
        embedding.env.switch_context(1)

    embedding.run(main)
    assert told == [1, 1]
    with pytest.raises(WasmtimeError, match="unknown import"):
        embedding.linker.instantiate_pre(compiled('(module (import "no" "body" (func)))'))
    pre.close()
    with pytest.raises(ValueError, match="already closed"):
        pre.instantiate(embedding.store)


def test_unknown_imports() -> None:
    """Unknown imports can become traps, or functions that return zeros, and empty memories of one store."""
    text = """(module (import "a" "f" (func $f (result i32))) (func (export "f") (result i32) (call $f)))"""
    embedding = Embedding()
    embedding.linker.define_unknown_imports_as_traps(compiled(text))
    with pytest.raises(WasmtimeError, match="unknown import"):
        embedding.load(text).call("f")
    embedding = Embedding()
    embedding.define("one", "-> i32", lambda: 1)
    text = text.replace("(module", '(module (import "host" "one" (func (result i32))) (import "a" "m" (memory 2))')
    embedding.linker.define_unknown_imports_as_default_values(embedding.store, compiled(text))
    assert embedding.load(text).call("f") == 0


def test_instances_in_host_functions() -> None:
    """A host function may define what it instantiates, with its caller for the store, and look it up."""
    embedding = Embedding()

    def load(caller: Caller) -> int:
        linker = Linker(ENGINE)
        module = compiled('(module (memory (export "memory") 5) (func (export "f") (result i32) (i32.const 9)))')
        linker.define_instance(caller, "m", linker.instantiate(caller, module))
        linker.define(caller, "m", "again", linker.get(caller, "m", "f"))
        pre = linker.instantiate_pre(
            compiled('(module (import "m" "again" (func $f (result i32))) (export "f" (func $f)))')
        )
        return cast("int", call(caller, cast("Func", pre.instantiate(caller).exports(caller)["f"])))

    embedding.define("load", "-> i32", load, access_caller=True)
    embedding.load('(module (import "host" "load" (func $load (result i32))) (export "load" (func $load)))')
    assert embedding.run_guest("load") == 9


PARTS = '(memory (export "memory") 1) (func (export "f")) (table (export "t") 1 funcref)'
MODULE = f"""'(module {PARTS} (global (export "g") i32 (i32.const 1)))'"""


def test_items_of_another_store() -> None:
    """WrongStore: to define them, and to instantiate or look up with them in a store that they are not of."""
    check_embedder(
        f"""
        other = Store(engine)
        mine, theirs = load({MODULE}), load({MODULE}, other)
        for name in ("f", "g", "t", "memory"):
            message = refused(WrongStore, linker.define, store, "x", name, theirs[name])
            assert message.startswith(f"the {{type(theirs[name]).__name__.lower()}} and the store"), message
            refused(WasmtimeError, linker.get, store, "x", name)
        instance = linker.instantiate(other, Module(engine, {MODULE}))
        assert "instance" in refused(WrongStore, linker.define_instance, store, "x", instance)
        for name in ("f", "g", "t", "memory"):
            linker.define(store, "x", name, mine[name])
        wants = Module(engine, '(module (import "x" "memory" (memory 1)) (import "x" "f" (func)))')
        pre = linker.instantiate_pre(wants)
        assert "definition x.memory" in refused(WrongStore, linker.instantiate, other, wants)
        assert "definition x.memory" in refused(WrongStore, pre.instantiate, other)
        refused(WrongStore, linker.get, other, "x", "f")
        linker.define(store, "d", "", mine["f"])
        refused(WrongStore, linker.get_default, other, "d")
        linker.instantiate(store, wants), pre.instantiate(store)
        linker.instantiate(other, Module(engine, "(module)"))
        linker.define_instance(store, "y", linker.instantiate(store, Module(engine, {MODULE})))
        refused(WrongStore, linker.instantiate, other, Module(engine, '(module (import "y" "t" (table 1 funcref)))'))
        linker.define_module(store, "z", Module(engine, {MODULE}))
        refused(WrongStore, linker.get, other, "z", "memory")
        unknown = Module(engine, '(module (import "u" "m" (memory 1)))')
        linker.define_unknown_imports_as_default_values(store, unknown)
        refused(WrongStore, linker.instantiate, other, unknown)
        linker.instantiate(store, unknown)
        # What is defined over it belongs to no store.
        linker.allow_shadowing = True
        linker.define_func("x", "f", NOTHING, print)
        linker.get(other, "x", "f")
        """
    )


def test_stores_and_modules_of_another_engine() -> None:
    """WrongStore, wherever a linker takes one; wasmtime's own error for most modules."""
    check_embedder(
        f"""
        engine_2 = Engine()
        store_2, module_2 = Store(engine_2), Module(engine_2, {MODULE})
        linker.define_func("host", "f", NOTHING, print)
        mine = load({MODULE})
        instance = linker.instantiate(store, Module(engine, {MODULE}))
        unknown = Module(engine_2, '(module (import "a" "b" (func)))')
        for function, *args in (
            (linker.get, store_2, "host", "f"),
            (linker.get_default, store_2, "nothing"),
            (linker.define, store_2, "x", "f", mine["f"]),
            (linker.define, store_2, "x", "f", Func(store_2, FuncType([], []), print)),
            (linker.define_instance, store_2, "x", instance),
            (linker.define_module, store_2, "x", Module(engine, {MODULE})),
            (linker.instantiate, store_2, Module(engine, {MODULE})),
            (linker.instantiate_pre(Module(engine, {MODULE})).instantiate, store_2),
            (linker.define_unknown_imports_as_default_values, store_2, unknown),
            # wasmtime 45 looks at the imports before the engine, so there it cannot be told (and aborts).
            *[(linker.define_unknown_imports_as_default_values, store, unknown),
              (linker.define_unknown_imports_as_traps, unknown)] * ("{version("wasmtime")}" > "46"),
        ):
            assert "do not belong together" in refused(WrongStore, function, *args)
        for function, *args in (
            (linker.define_module, store, "x", module_2),
            (linker.instantiate, store, module_2),
            (lambda: linker.instantiate_pre(module_2).instantiate(store),),
        ):
            assert "cross-`Engine`" in refused(WasmtimeError, function, *args)
        load({MODULE})
        """
    )


def test_one_type_for_several_engines() -> None:
    """A FuncType may be used again and again, whichever linker or program it is for."""
    check_embedder(
        """
        i32, i64, any, func = ValType.i32(), ValType.i64(), ValType.externref(), ValType.funcref()
        for ty in (NOTHING, FuncType([i32, any, func], [i64]), FuncType([], [func, any])):
            for n in range(3):
                Linker(Engine()).define_func("host", "f", ty, print)
                Program(b'(module (func (export "_start")))').linker.define_func("host", "f", ty, print)
        """
    )


def test_wasi_that_is_not_set() -> None:
    """A guest that uses WASI is not instantiated in a store without it, for calling it would end the process."""
    check_embedder(
        """
        import wasmtime
        linker.define_wasi()
        uses = Module(engine, '''(module
          (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32))) (memory (export "memory") 1)
          (func (export "f") (result i32) (call $yield)))''')
        exits = Module(engine, '(module (import "wasi_snapshot_preview1" "proc_exit" (func (param i32))))')
        pre = linker.instantiate_pre(uses)
        for function, *args in ((linker.instantiate, store, uses), (pre.instantiate, store),
                                (linker.define_module, store, "m", uses),
                                (linker.get, store, "wasi_snapshot_preview1", "fd_write")):
            assert "call the store's set_wasi(WasiConfig()) first" in refused(WasiNotSet, function, *args)
        linker.instantiate(store, exits)
        own = Linker(engine)
        own.define_func("wasi_snapshot_preview1", "sched_yield", FuncType([], [ValType.i32()]), lambda: 7)
        assert call(store, own.instantiate(store, uses).exports(store)["f"]) == 7
        store.set_wasi(wasmtime.WasiConfig())
        assert call(store, linker.instantiate(store, uses).exports(store)["f"]) == 0
        assert call(store, pre.instantiate(store).exports(store)["f"]) == 0
        linker.allow_shadowing = True
        linker.define_func("wasi_snapshot_preview1", "sched_yield", FuncType([], [ValType.i32()]), lambda: 8)
        bare = Store(engine)
        assert call(bare, linker.instantiate(bare, uses).exports(bare)["f"]) == 8
        """
    )


def test_wrong_types() -> None:
    """TypeErrors, at once."""
    embedding = Embedding()
    nothing: Any = None
    for wrong in (
        lambda: Linker(nothing),
        lambda: embedding.linker.define(nothing, "m", "n", Func(embedding.store, signature("->"), print)),
        lambda: embedding.linker.define(embedding.store, "m", "n", nothing),
        lambda: embedding.linker.define_instance(embedding.store, "m", nothing),
        lambda: embedding.linker.define_module(embedding.store, "m", nothing),
        lambda: embedding.linker.instantiate(embedding.store, nothing),
        lambda: embedding.linker.instantiate(nothing, compiled("(module)")),
        lambda: embedding.linker.instantiate_pre(nothing),
        lambda: embedding.linker.define_unknown_imports_as_traps(nothing),
        lambda: embedding.linker.get(nothing, "m", "n"),
        lambda: embedding.linker.define_func("m", "n", nothing, print),
        lambda: embedding.linker.define_func("m", "n", signature("->"), nothing),
    ):
        with pytest.raises(TypeError, match=r"expected|must be"):
            wrong()
    embedding.linker.close()
    with pytest.raises(ValueError, match="already closed"):
        embedding.load("(module)")


def test_coroutine_functions_are_refused() -> None:
    """At once; and where one is hidden in a plain function, when it returns: the error says what to do instead."""

    async def host() -> int:
        return 1

    class Callable:
        async def __call__(self) -> int:
            return 1

    said = r"must be a plain function, not a coroutine function .*calls greenctx\.await_, .*Program\.run_async"
    program = Program(b'(module (import "a" "f" (func $f (result i32))) (func (export "_start") (drop (call $f))))')
    ty = FuncType([], [ValType.i32()])
    for function in (host, partial(host), Callable(), Callable().__call__):
        with pytest.raises(TypeError, match=f"a host function {said}"):
            program.linker.define_func("a", "f", ty, function)
    program.linker.define_func("a", "f", ty, lambda: host())
    with pytest.raises(TypeError, match=rf"host function 'a\.f' {said}"):
        program.run()
