"""Code written for wasmtime's package: with the import changed, functions are called as usual, and suspend."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest
import wasmtime
from guests.embedding import ENGINE, signature
from wasmtime import FuncType, GlobalType, Module, Store, TableType, Val, ValType, WasmtimeError

from greenctx import ContextSwitchingEnvironment, NotTheActiveContext
from greenctx.wasix import Caller, Func, Global, GuestExit, Instance, Linker, Table, WrongStore, call

if TYPE_CHECKING:
    from collections.abc import Callable

GUEST = """(module
  (import "host" "pause" (func $pause (param i32) (result i32)))
  (table (export "table") funcref (elem $run))
  (global (export "global") (mut funcref) (ref.func $run))
  (func $run (export "run") (param i32) (result i32) (call $pause (local.get 0)))
  (func (export "itself") (result funcref) (ref.func $run))
  (func (export "pair") (result i32 i32) (i32.const 1) (i32.const 2)))"""


class Paused:
    """An environment, and a host function that waits in it until main switches back."""

    def __init__(self) -> None:
        self.store = Store(ENGINE)
        self.env = ContextSwitchingEnvironment()
        self.module = Module(ENGINE, GUEST)

    def pause(self, number: int) -> int:
        self.env.switch_context(0)
        return number + 1

    def suspends(self, func: Any) -> None:
        """Assert that a call of the function, as wasmtime's are called, waits in the middle for main."""
        results: list[object] = []

        def context() -> None:
            results.append(func(self.store, 41))
            self.env.switch_context(0)

        def main() -> None:
            context_id = self.env.create_context(context)
            self.env.switch_context(context_id)
            assert results == []
            self.env.switch_context(context_id)
            assert results == [42]

        assert isinstance(func, Func)
        assert isinstance(func, wasmtime.Func)
        self.env.run_main_context(main)

    def by_linker(self) -> Instance:
        linker = Linker(ENGINE)
        linker.define_func("host", "pause", signature("i32 -> i32"), self.pause)
        return linker.instantiate(self.store, self.module)

    def by_instance(self) -> Instance:
        return Instance(self.store, self.module, [Func(self.store, signature("i32 -> i32"), self.pause)])

    def by_instance_pre(self) -> Instance:
        linker = Linker(ENGINE)
        linker.define(self.store, "host", "pause", Func(self.store, signature("i32 -> i32"), self.pause))
        return linker.instantiate_pre(self.module).instantiate(self.store)


@pytest.mark.parametrize("make", [Paused.by_linker, Paused.by_instance, Paused.by_instance_pre])
@pytest.mark.parametrize(
    "find",
    [
        lambda exports, _: exports["run"],
        lambda exports, _: exports.by_index[2],
        lambda exports, store: exports["table"].get(store, 0),
        lambda exports, store: exports["global"].value(store),
        lambda exports, store: exports["itself"](store),
    ],
)
def test_exports(make: Callable[[Paused], Instance], find: Callable[[Any, Store], Any]) -> None:
    """Exports, and what tables, globals and results hold."""
    paused = Paused()
    exports = make(paused).exports(paused.store)
    pair: Any = exports["pair"]
    assert pair(paused.store) == [1, 2]
    paused.suspends(find(exports, paused.store))


def test_definitions_of_a_linker() -> None:
    """`get` and `get_default` return functions that suspend."""
    paused = Paused()
    linker = Linker(ENGINE)
    linker.define_func("host", "pause", signature("i32 -> i32"), paused.pause)
    linker.define_instance(paused.store, "guest", linker.instantiate(paused.store, paused.module))
    linker.define(paused.store, "default", "", linker.get(paused.store, "guest", "run"))
    paused.suspends(linker.get(paused.store, "host", "pause"))
    ContextSwitchingEnvironment()
    again = Paused()
    again.store, again.env = paused.store, ContextSwitchingEnvironment()
    paused.env = again.env
    again.suspends(linker.get_default(paused.store, "default"))


def test_functions_tables_and_globals_of_ones_own() -> None:
    """A `Func` is called as it is, and where a table, a global or an argument holds it."""
    paused = Paused()
    func = Func(paused.store, signature("i32 -> i32"), paused.pause)
    table = Table(paused.store, TableType(ValType.funcref(), wasmtime.Limits(1, None)), func)
    holder = Global(paused.store, GlobalType(ValType.funcref(), True), Val.funcref(func))
    got: list[Any] = []
    taker = Func(paused.store, FuncType([ValType.funcref()], []), lambda func: got.append(func))
    taker(paused.store, func)
    for found in (func, table.get(paused.store, 0), holder.value(paused.store), *got):
        paused.env = ContextSwitchingEnvironment()
        paused.suspends(found)


def test_the_callers_exports() -> None:
    """Functions that a host function gets from its caller suspend, too."""
    paused = Paused()
    found: list[Any] = []

    def look(caller: Caller, number: int) -> int:
        found.append(caller["run"])
        assert caller.get("missing") is None
        with pytest.raises(KeyError, match="missing"):
            caller["missing"]
        return number

    func = Func(paused.store, signature("i32 -> i32"), look, access_caller=True)
    run: Any = Instance(paused.store, paused.module, [func]).exports(paused.store)["run"]
    assert run(paused.store, 5) == 5
    assert isinstance(found[0], Func)


def test_arguments() -> None:
    """Too many and too few arguments are wasmtime's error."""
    store = Store(ENGINE)
    func = Func(store, signature("i32 -> i32"), lambda number: number)
    for arguments in ((), (1, 2)):
        with pytest.raises(WasmtimeError, match=f"takes 1 arguments but {len(arguments)} were given"):
            func(store, *arguments)
    with pytest.raises(TypeError, match="a host function must be callable, not 5"):
        Func(store, signature("->"), 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"must be a wasmtime\.FuncType, not 5"):
        Func(store, 5, print)  # type: ignore[arg-type]
    with pytest.raises(WrongStore):
        func(Store(ENGINE), 1)


def test_imports_of_an_instance() -> None:
    """Too many and too few are refused; an import that the module names twice has to be one item."""
    store = Store(ENGINE)
    module = Module(ENGINE, '(module (import "a" "b" (func)) (import "a" "b" (func)))')
    func, other = (Func(store, signature("->"), lambda: None) for _ in range(2))
    with pytest.raises(WasmtimeError, match="the module has 2 imports, but 1 were given"):
        Instance(store, module, [func])
    with pytest.raises(WasmtimeError, match=r"the module imports a\.b more than once, and each must be the same"):
        Instance(store, module, [func, other])
    assert len(Instance(store, module, [func, func]).exports(store)) == 0


def test_exit_has_a_code() -> None:
    """`GuestExit.code` is what `wasmtime.ExitTrap.code` is."""
    assert (GuestExit(7).code, GuestExit(7).status) == (7, 7)
    assert pickle.loads(pickle.dumps(GuestExit(7))).code == 7


def test_a_plain_function_of_wasmtime() -> None:
    """A call of the environment in a plain wasmtime function raises an error that names what to write instead."""
    store = Store(ENGINE)
    env = ContextSwitchingEnvironment()
    linker = Linker(ENGINE)
    plain = wasmtime.Func(store, signature("i32 -> i32"), lambda _: env.create_context(print))
    linker.define(store, "host", "pause", plain)
    run: Any = linker.instantiate(store, Module(ENGINE, GUEST)).exports(store)["run"]
    with pytest.raises(NotTheActiveContext, match=r"define the host function by greenctx\.wasix's Linker\.define_func"):
        env.run_main_context(call, store, run, 1)


def test_functions_of_wasmtimes_own_instances() -> None:
    """wasmtime's error about `*_async` functions ends with what to write; its other errors are as they were."""
    store = Store(ENGINE)
    module = Module(ENGINE, '(module (import "host" "f" (func $f)) (func (export "run") (call $f)))')
    plain: Any = wasmtime.Instance(store, module, [wasmtime.Func(store, signature("->"), lambda: None)])
    func = Func(store, signature("->"), lambda: None)
    advice = r"`\*_async`.* by greenctx\.wasix\.call\(.*greenctx\.wasix's Linker or Instance"
    with pytest.raises(WasmtimeError, match=advice):
        plain.exports(store)["run"](store)
    with pytest.raises(WasmtimeError, match=advice):
        wasmtime.Instance(store, module, [func])
    assert call(store, plain.exports(store)["run"]) is None
    with pytest.raises(WasmtimeError) as raised:
        Module(ENGINE, "(module")
    assert "greenctx" not in str(raised.value)
