"""A KeyboardInterrupt where a call into a guest begins, or right after its end: nothing is left of the call."""

from __future__ import annotations

import gc
from contextlib import suppress
from typing import Any, ClassVar
from weakref import ref

import pytest
from greenlet import GreenletExit
from wasmtime import Func, FuncType, Linker, Module, Store, Trap
from wasmtime import _bindings as ffi

from greenctx.wasix import Linker as OurLinker
from greenctx.wasix import call
from greenctx.wasix._fibers import calls
from greenctx.wasix._fibers.stores import state_of
from greenctx.wasix._native._fiber import Fiber


class Something:
    """The host functions of the guest."""


def load(text: str) -> tuple[Store, Any]:
    store = Store()
    linker = Linker(store.engine)

    def fail() -> None:
        raise ValueError("of the first call")

    linker.define(store, "host", "fail", Func(store, FuncType([], []), fail))
    return store, linker.instantiate(store, Module(store.engine, text)).exports(store)


def test_error_of_an_interrupted_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interruption at the end of a call takes the place of its error, which the next call does not raise."""
    store, guest = load("""(module (import "host" "fail" (func $fail))
      (func (export "run") (call $fail)) (func (export "trap") unreachable))""")
    to_the_end = calls._poll_to_the_end

    def interrupted(*args: Any) -> None:
        to_the_end(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(calls, "_poll_to_the_end", interrupted)
        with pytest.raises(KeyboardInterrupt):
            call(store, guest["run"])
    with pytest.raises(Trap, match="unreachable"):
        call(store, guest["trap"])
    with pytest.raises(ValueError, match="of the first call"):
        call(store, guest["run"])


def test_an_interruption_when_a_call_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Python runs between the start of wasmtime's call and the record of it, but wasmtime's own."""
    store, guest = load('(module (func (export "run") (param externref)))')
    begin, context = ffi.wasmtime_func_call_async, Store._context
    begun = False

    def beginning(*args: Any) -> Any:
        nonlocal begun
        future = begin(*args)
        begun = True
        return future

    def interrupted(of: Store) -> Any:
        if begun:
            raise KeyboardInterrupt
        return context(of)

    something = Something()
    left = ref(something)
    with monkeypatch.context() as patch:
        patch.setattr(ffi, "wasmtime_func_call_async", beginning)
        patch.setattr(Store, "_context", interrupted)
        with suppress(KeyboardInterrupt):
            call(store, guest["run"], something)
    assert begun
    del something
    store.gc()
    gc.collect()
    assert left() is None


class Forgotten:
    """A call that was not closed, as if an interruption had come before the code that closes it."""

    last: ClassVar[list[Fiber]] = []

    def __init__(self, *args: Any) -> None:
        self.fiber = Fiber(*args)
        self.last[:] = [self.fiber]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.fiber, name)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("anchor", [False, True], ids=["without an anchor", "with an anchor"])
def test_a_store_is_collected_with_a_call_that_was_forgotten(anchor: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store with a forgotten call is freed, with its contents, after the guest has unwound."""

    def stop() -> None:
        raise GreenletExit

    def forget_a_call() -> ref[Something]:
        store: Any = Store()
        linker = OurLinker(store.engine)
        linker.define_func("host", "stop", FuncType([], []), stop)
        text = GUEST.replace("MORE", HOLDS_REFERENCES if anchor else "")
        exports: Any = linker.instantiate(store, Module(store.engine, text)).exports(store)
        something = Something()
        exports["kept"].set_value(store, something)
        with pytest.raises(GreenletExit):
            call(store, exports["run"])
        assert state_of(store).calls == 1
        assert (state_of(store).gc_anchor is not None) == anchor
        store.itself, store.call = store, Forgotten.last.pop()
        return ref(something)

    monkeypatch.setattr(calls, "Fiber", Forgotten)
    left = forget_a_call()
    assert left() is not None
    gc.collect()  # the store, whose state is a cycle with its anchor
    gc.collect()
    assert left() is None


GUEST = """(module (import "host" "stop" (func $stop))
  (global (export "kept") (mut externref) (ref.null extern))
  (func (export "run") (call $stop))
  MORE)"""

HOLDS_REFERENCES = "(func (param externref) (result externref) (call $stop) (local.get 0))"
