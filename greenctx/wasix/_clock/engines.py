"""Engines: handles of our own, for threads that go on using one whose owner may close it."""

from __future__ import annotations

from wasmtime import Engine
from wasmtime import _bindings as ffi


def another_handle(engine: Engine) -> Engine:
    """The same engine, which lives for as long as any of its handles. Raises ValueError if that one is closed."""
    handle = Engine.__new__(Engine)
    handle._set_ptr(ffi.wasmtime_engine_clone(engine.ptr()))
    return handle
