"""A guest in a store that the test makes, as an embedder does."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

import wasmtime
from wasmtime import Config, Engine, FuncType, Module, Store, ValType

from greenctx import ContextSwitchingEnvironment
from greenctx.wasix import Linker, call

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasmtime import Func, Memory
    from wasmtime._instance import InstanceExports

T = TypeVar("T")

ENGINE = Engine()


def _collecting_engine() -> Engine:
    config = Config()
    config.wasm_exceptions = config.wasm_gc = config.wasm_function_references = True
    return Engine(config)


COLLECTING = _collecting_engine()
"""The engine for guests with exceptions and collected objects."""

IMPORTS = """
  (import "wasix_32v1" "context_create" (func $create (param i32 i32) (result i32)))
  (import "wasix_32v1" "context_switch" (func $switch (param i64) (result i32)))
  (import "wasix_32v1" "context_destroy" (func $destroy (param i64) (result i32)))
"""
"""The context calls, for the head of a guest."""


def signature(text: str) -> FuncType:
    """A function's type, such as "i32 i32 -> i64"."""
    params, results = (
        [cast("ValType", getattr(ValType, name)()) for name in part.split()] for part in text.split("->")
    )
    return FuncType(params, results)


@cache
def compiled(text: str, engine: Engine = ENGINE) -> Module:
    """Compile a module, once."""
    return Module(engine, text)


class Embedding:
    """A store, an environment, and a linker with the context calls."""

    engine = ENGINE

    def __init__(self, *, max_contexts: int | None = None) -> None:
        self.store = Store(self.engine)
        self.linker = Linker(self.engine)
        self.linker.define_wasix()
        self.env = ContextSwitchingEnvironment(max_contexts=max_contexts)
        self.exports: InstanceExports

    def define(self, name: str, of: str, function: Callable[..., Any], *, access_caller: bool = False) -> None:
        """Define a host function that guests import from "host"."""
        self.linker.define_func("host", name, signature(of), function, access_caller)

    def load(self, text: str) -> Embedding:
        """Instantiate a guest; the other methods use its exports."""
        self.exports = self.linker.instantiate(self.store, compiled(text, self.engine)).exports(self.store)
        return self

    def func(self, name: str) -> Func:
        return cast("Func", self.exports[name])

    @property
    def memory(self) -> Memory:
        return cast("wasmtime.Memory", self.exports["memory"])

    def call(self, name: str, *args: Any) -> Any:
        """Call the guest's export."""
        return call(self.store, self.func(name), *args)

    def run(self, main: Callable[[], T]) -> T:
        """Run ``main`` as the environment's main context."""
        return self.env.run_main_context(main)

    def switch_and_return(self, context_id: int, value: T) -> T:
        """Switch, and return the value when another context switches back."""
        self.env.switch_context(context_id)
        return value

    def swap(self, value: T) -> T:
        """Switch from context 0 to 1 or back; return the value afterwards."""
        return self.switch_and_return(1 - self.env.active_context_id, value)

    def run_guest(self, name: str, *args: Any) -> Any:
        """Call the guest's export in the environment's main context."""
        return self.env.run_main_context(lambda: self.call(name, *args))


class Collecting(Embedding):
    """The same on an engine with exceptions and collected objects."""

    engine = COLLECTING
