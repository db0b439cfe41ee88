"""The threads on which wasmtime reads and writes files for guests, and how a child of a fork gets its own.

The threads are a tokio pool, one for the process. The pool gives a task to an idle thread, and starts a thread only if
no thread is idle. A child of a fork has no threads, but its pool still counts the parent's idle ones: so many tasks
wait for ever. The next task starts a thread, which then runs all waiting tasks. So the child begins calls that use a
file, each on a Python thread, until a call returns.
"""

from __future__ import annotations

import os
from errno import EAGAIN
from typing import TYPE_CHECKING, Any, Final

from wasmtime import Func, Linker, Module, Store, WasiConfig

from greenctx.errors import ResourcesExhausted
from greenctx.wasix._modules.engines import new_engine
from greenctx.wasix._modules.unpatched import unpatched

if TYPE_CHECKING:
    from wasmtime import Engine

_MAX_THREADS: Final = 512
"""The most threads of tokio's pool, idle ones included."""

_PATIENCE: Final = 0.002
"""How long to wait for a call before making another one, in seconds. A call takes a tenth of that."""

_TEXT = """(module
  (import "wasi_snapshot_preview1" "fd_filestat_get" (func $stat (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "use_a_file") (drop (call $stat (i32.const 3) (i32.const 0)))))"""

_thread: Any = unpatched("_thread")
_process = os.getpid()
"""The process that has the threads. (Not tracked by a hook for forks: uWSGI calls none.)"""
_in_use: set[FileThreads] = set()


class FileThreads:
    """A run whose guest may use files enters this: it has the threads then, also after a fork in its middle."""

    def __enter__(self) -> None:
        prepare_file_threads()
        self._thread = _thread.get_ident()
        _in_use.add(self)

    def __exit__(self, *_: object) -> None:
        _in_use.discard(self)

    def forked(self) -> bool:
        """Return whether the thread of this run forked the process, so that the run goes on in the child."""
        return bool(self._thread == _thread.get_ident())


def prepare_file_threads() -> None:
    """Give this process its own threads, if it is a child of a fork."""
    global _process
    if _process != os.getpid():
        _start()
        _process = os.getpid()


def _start() -> None:
    engine = new_engine(collector=False, size=0)
    module = Module(engine, _TEXT)
    ends: list[Any] = []
    for _ in range(_MAX_THREADS + 1):
        end = _thread.allocate_lock()
        end.acquire()
        try:
            _thread.start_new_thread(_use_a_file, (engine, module, end))
        except RuntimeError as error:
            raise ResourcesExhausted(EAGAIN) from error
        ends.append(end)
        if end.acquire(timeout=_PATIENCE):
            end.release()
            break
    for end in ends:
        end.acquire()


def _use_a_file(engine: Engine, module: Module, end: Any) -> None:
    try:
        with Store(engine) as store, Linker(engine) as linker:
            config = WasiConfig()
            config.preopen_dir(os.sep, "/")
            store.set_wasi(config)
            store.set_epoch_deadline(1)  # which never comes
            linker.define_wasi()
            use_a_file = linker.instantiate(store, module).exports(store)["use_a_file"]
            assert isinstance(use_a_file, Func)
            use_a_file(store)
    finally:
        end.release()


def _after_fork() -> None:
    if any(one.forked() for one in _in_use):
        prepare_file_threads()
    else:
        _in_use.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
