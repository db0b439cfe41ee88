"""Engines of greenctx's own: how they differ from wasmtime's default, and where they may compile on several threads.

wasmtime compiles on the threads of rayon's pool, one for the process. A child of a fork has the pool but not its
threads, and waits for them for ever. Where the pool cannot start its threads it ends the process.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from wasmtime import Config, Engine, Module, WasmtimeError

from greenctx.wasix._modules.unpatched import unpatched
from greenctx.wasix._native._fiber import let_traps_through

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIN_PARALLEL_BYTES: Final = 4096
"""What is smaller compiles in less time than a pool of threads takes to start."""

_thread = unpatched("_thread")
_process = os.getpid()
"""Where the pool may have been started, by whoever uses wasmtime. (Not by a hook for forks: uWSGI calls none.)"""
_pool_started = False


def new_engine(*, collector: bool, size: int) -> Engine:
    """Make an engine to compile so many bytes of a module, with or without wasmtime's collector."""
    config = _config(collector)
    config.parallel_compilation = size >= MIN_PARALLEL_BYTES and _has_pool()
    engine = Engine(config)
    let_traps_through()  # which has to see wasmtime's signal handlers in place once
    return engine


def _config(collector: bool) -> Config:
    config = Config()
    config.epoch_interruption = True
    config.gc_support = collector
    config.wasm_exceptions = collector  # without the collector, wasmtime 50 panics on a try_table
    # Copy-on-write needs a file that stays open. Daemons close it: another file that then gets its number would be
    # mapped as a guest's memory, and closed with the module.
    config.memory_init_cow = False
    return config


def compile_on(engine: Engine, text: str) -> Module:
    """Compile a module of greenctx's own on any engine, also where that one has no threads to do it."""
    if _has_pool():
        return Module(engine, text)
    for config in _likely_configs():
        config.parallel_compilation = False
        twin = Engine(config)
        with suppress(WasmtimeError):  # the engine is configured otherwise
            Module.deserialize(engine, Module(twin, "(module)").serialize())
            return Module.deserialize(engine, Module(twin, text).serialize())
    return Module(engine, text)


class OwnModule:
    """A module of greenctx's own, compiled once for each engine. ``text`` is called for its text."""

    def __init__(self, text: Callable[[], str]) -> None:
        self._text = text
        # A Module does not refer to its Engine object, so the entry ends with that.
        self._modules: WeakKeyDictionary[Engine, Module] = WeakKeyDictionary()

    def on(self, engine: Engine) -> Module:
        module = self._modules.get(engine)
        if module is None:
            module = self._modules[engine] = compile_on(engine, self._text())
        return module


def _likely_configs() -> Iterator[Config]:
    """Yield the configurations of engines that are made here, and of those that hosts are likely to make."""
    yield _config(collector=False)
    yield _config(collector=True)
    for epochs in (False, True):
        for exceptions in (False, True):
            config = Config()
            config.epoch_interruption = epochs
            config.wasm_exceptions = exceptions
            yield config


def _has_pool() -> bool:
    """Return whether the process has the threads to compile on, or can have them."""
    global _pool_started
    if os.getpid() != _process:
        return False
    # Twice as many: the system may still count some of these when the pool starts its own.
    _pool_started = _pool_started or can_start_threads(2 * _pool_size())
    return _pool_started


def _pool_size() -> int:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("RAYON_NUM_THREADS", "")
    return max(available, int(wanted) if wanted.isdecimal() else 0)


def can_start_threads(count: int) -> bool:
    """Return whether so many threads can run at a time, besides those that do. They have ended by then."""
    gate, ends = _thread.allocate_lock(), []
    with gate:
        try:
            for _ in range(count):
                end = _thread.allocate_lock()
                end.acquire()
                _thread.start_new_thread(_pass, (gate, end))
                ends.append(end)
        except RuntimeError:
            return False
    for end in ends:
        end.acquire()
    return True


def _pass(gate: Any, end: Any) -> None:
    with gate:
        end.release()
