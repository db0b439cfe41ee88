"""The engines that greenctx makes: how they differ from wasmtime's default, and when they compile on several threads.

wasmtime compiles on rayon's pool of threads, one pool for the process. A child of a fork has the pool without its
threads, and would wait for them for ever. A pool that cannot start its threads ends the process.
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
"""A smaller module compiles in less time than a pool of threads takes to start."""

_thread = unpatched("_thread")
_process = os.getpid()
"""The process in which the pool may have started. (Not tracked by a hook for forks: uWSGI calls none.)"""
_pool_started = False


def new_engine(*, collector: bool, size: int) -> Engine:
    """Make an engine for a module of that size in bytes, with or without wasmtime's collector."""
    config = _config(collector)
    config.parallel_compilation = size >= MIN_PARALLEL_BYTES and _has_pool()
    engine = Engine(config)
    let_traps_through()  # must see wasmtime's signal handlers in place once
    return engine


def _config(collector: bool) -> Config:
    config = Config()
    config.epoch_interruption = True
    config.gc_support = collector
    config.wasm_exceptions = collector  # without the collector, wasmtime 50 panics on a try_table
    # Copy-on-write needs a file that stays open. Daemons close it. Another file that then gets its number would be
    # mapped as a guest's memory, and closed with the module.
    config.memory_init_cow = False
    return config


def compile_on(engine: Engine, text: str) -> Module:
    """Compile one of greenctx's own modules on any engine, even if that engine has no threads for it."""
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
    """One of greenctx's own modules, compiled once for each engine. ``text()`` returns its text."""

    def __init__(self, text: Callable[[], str]) -> None:
        self._text = text
        # A Module does not refer to its Engine object, so the entry disappears with the engine.
        self._modules: WeakKeyDictionary[Engine, Module] = WeakKeyDictionary()
        self._compiled = b""

    def on(self, engine: Engine) -> Module:
        module = self._modules.get(engine)
        if module is None:
            module = self._modules[engine] = self._loaded(engine) or compile_on(engine, self._text())
            self._compiled = self._compiled or bytes(module.serialize())
        return module

    def _loaded(self, engine: Engine) -> Module | None:
        """Return the module as it was compiled for another engine, if that was configured alike."""
        with suppress(WasmtimeError):
            return Module.deserialize(engine, self._compiled) if self._compiled else None
        return None


def _likely_configs() -> Iterator[Config]:
    """Yield the configurations of greenctx's engines, and of engines that hosts are likely to make."""
    yield _config(collector=False)
    yield _config(collector=True)
    for epochs in (False, True):
        for exceptions in (False, True):
            config = Config()
            config.epoch_interruption = epochs
            config.wasm_exceptions = exceptions
            yield config


def _has_pool() -> bool:
    """Return whether the process has the threads to compile on, or can start them."""
    global _pool_started
    if os.getpid() != _process:
        return False
    # Twice the number, because the system may still count these when the pool starts its own.
    _pool_started = _pool_started or can_start_threads(2 * _pool_size())
    return _pool_started


def _pool_size() -> int:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("RAYON_NUM_THREADS", "")
    return max(available, int(wanted) if wanted.isdecimal() else 0)


def can_start_threads(count: int) -> bool:
    """Return whether so many more threads can run at a time: start them, and wait for their end."""
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
