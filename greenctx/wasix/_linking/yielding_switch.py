"""WASIX's context_switch for guests that yield at the end of each epoch: to switch they yield, too.

That takes half the time of an asynchronous host call. A guest can yield where a WebAssembly function begins. Hence a
module, whose function takes the place of the host function. `../_native/_callbacks.pxi` says how it works.
"""

from __future__ import annotations

import sys
from functools import cached_property
from typing import TYPE_CHECKING

import wasmtime
from wasmtime import Func, FuncType, Global, InstancePre, ValType

from greenctx.wasix._fibers import calls
from greenctx.wasix._fibers.stores import state_of
from greenctx.wasix._linking.imports import imports_of
from greenctx.wasix._modules.engines import OwnModule
from greenctx.wasix._native import capi
from greenctx.wasix._native._fiber import callback_addresses, yielding_addresses

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wasmtime import Engine, Linker, Module, Store

    from greenctx.wasix._fibers.functions import Instance
    from greenctx.wasix._fibers.host_functions import HostFunction
    from greenctx.wasix._linking.imports import Key

# A guest waits at the beginning of $context_switch, which backtraces show. By tail calls there is one frame less.
_TEXT = """(module $greenctx
  (import "host" "request" (func $request (param i64) (result i32)))
  (import "host" "answer" (func $answer (result i32)))
  (import "host" "context_switch" (func $asynchronous (param i64) (result i32)))
  (global $has_answer (export "has_answer") (mut i32) (i32.const 0))
  (func $context_switch (result i32)
    (if (result i32) (global.get $has_answer)
      (then (global.set $has_answer (i32.const 0)) (call $answer))
      (else (i32.const 0))))
  (func (export "context_switch") (param i64) (result i32)
    (if (call $request (local.get 0)) (then (return_call $context_switch)))
    (return_call $asynchronous (local.get 0))))"""
_module = OwnModule(lambda: _TEXT)


class YieldingSwitch:
    """The module, for a linker's definition of context_switch as a host function."""

    def __init__(self, engine: Engine, function: HostFunction) -> None:
        self._engine = engine
        self._function = function

    @cached_property
    def _pre(self) -> InstancePre:
        i32, i64 = ValType.i32(), ValType.i64()
        request, answer, data, finalizer = yielding_addresses(self._function)
        asynchronous = callback_addresses(self._function, True)
        with capi.closing(wasmtime.Linker(self._engine)) as imports:
            capi.define_unchecked_func(imports, "host", "request", FuncType([i64], [i32]), request, data, finalizer)
            capi.define_unchecked_func(imports, "host", "answer", FuncType([], [i32]), answer)
            capi.define_async_func(imports, "host", "context_switch", FuncType([i64], [i32]), *asynchronous)
            pre: InstancePre = imports.instantiate_pre(_module.on(self._engine))
            return pre

    def on(self, store: Store) -> Func | None:
        """Return the function for guests in that store; None if the store has one for another definition."""
        state = state_of(store)
        if state.yielding_switch is None:
            instance = calls.instantiate_pre(self._pre, store)
            function = capi.find_export(store, instance, "context_switch")
            has_answer = capi.find_export(store, instance, "has_answer")
            assert isinstance(function, Func)
            assert isinstance(has_answer, Global)
            state.yield_to_switch((self, function, has_answer), capi.item_address(has_answer))
        switch = state.yielding_switch
        return switch[1] if switch is not None and switch[0] is self else None

    def close(self) -> None:
        """Free what it holds. Closing it again does nothing."""
        pre: InstancePre | None = self.__dict__.pop("_pre", None)
        if pre is not None:
            capi.close(pre)


def instantiate(linker: Linker, store: Store, module: Module, switches: Mapping[Key, YieldingSwitch]) -> Instance:
    """Instantiate a module. ``switches`` are those of the linker's definitions that are context_switch."""
    state = state_of(store)
    imported = [key for key in switches if key in imports_of(module)]
    # The native part reads the values of WebAssembly as a machine does whose numbers begin with the lowest byte.
    if not (imported and state.holds_gil and state.gc_anchor is None and sys.byteorder == "little"):
        return calls.instantiate(linker, store, module)
    # In a copy, because the functions belong to the store, and other stores may use the linker at the same time.
    with capi.closing(capi.clone_linker(linker)) as copy:
        copy.allow_shadowing = True
        for key in imported:
            function = switches[key].on(store)
            if function is not None:
                copy.define(store, *key, function)
        return calls.instantiate(copy, store, module)
