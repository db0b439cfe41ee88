"""Executable: a WASI command, compiled, checked and linked once, for any number of runs."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from greenctx.wasix._files.descriptors import Descriptors
from greenctx.wasix._files.stdio import Stdio
from greenctx.wasix._linking.imports import check_imports, imports_of
from greenctx.wasix._linking.linker import Linker
from greenctx.wasix._modules.abi import STACK_POINTER, WASIX_MODULES
from greenctx.wasix._modules.compile import check_start, compile_module, never_waits, switches_contexts, to_binary
from greenctx.wasix._modules.compile import read_code as read_code
from greenctx.wasix._modules.names import EntrypointNames
from greenctx.wasix._modules.shared_memory import unshare_memory
from greenctx.wasix._modules.sizes import Sizes
from greenctx.wasix._native.capi import close
from greenctx.wasix._syscalls.of_wasix.files import is_wasix_program

if TYPE_CHECKING:
    from wasmtime import Store

    from greenctx.wasix._modules.cache import ModuleCache
    from greenctx.wasix._program.limits import Limits
    from greenctx.wasix._syscalls.process import Process


class Executable:
    """The part of a program that all runs share. ``limits`` are the program's own, compiled into the module."""

    def __init__(
        self,
        name: str,
        code: bytes,
        limits: Limits,
        *,
        shadow_stack: int | None,
        contexts: bool,
        cache: bool,
        command: bool,
    ) -> None:
        self.name = name
        self.shadow_stack = shadow_stack
        self.contexts = contexts
        self._code = unshare_memory(to_binary(name, code))
        compiled = compile_module(name, limits.cap(name, self._code), _user_cache() if cache else None)
        self.engine, self.module, _ = compiled
        if command:
            check_start(name, self.module)
        if shadow_stack is not None and contexts:
            from greenctx.wasix._shadow_stacks.shadow_stacks import check_exports

            check_exports(name, self.module)
        # Guests may switch very often, so those that never wait on their fiber run with the GIL held.
        self.holds_gil = contexts and switches_contexts(self.module) and never_waits(self.module)
        self.sets_timers = any((module, "proc_raise_interval") in imports_of(self.module) for module in WASIX_MODULES)
        self.entrypoint_names = EntrypointNames(self._code)
        self.linker = Linker(self.engine)
        # The linker knows one Stdio, a stand-in: `connect` gives each run its own streams.
        self._stdio = Stdio()
        self.linker.may_use_files = False  # a run with directories prepares the threads itself
        self.linker.define_wasi(self._stdio)
        self.linker.define_wasix(files=is_wasix_program(self.module))
        self._limits = limits
        self._is_checked = False

    def check_imports(self, store: Store) -> None:
        """Raise `InvalidProgram` unless the linker defines every import. Checked once: no definition is ever removed.

        Instantiating the module finds a later definition of another type.
        """
        if not self._is_checked:
            self.linker.define_wasix_imports(self.module)
            check_imports(self.name, self.linker, store, self.module)
            self._is_checked = True

    def limit(self, store: Store, limits: Limits) -> None:
        """Limit one run. Raises `InvalidProgram` if the module starts beyond the limits, or cannot be limited so."""
        if limits.memory == self._limits.memory:
            limits.apply(store)
        else:
            limits.apply_to_run(store, self.name, self._sizes)

    def shares_stack(self) -> bool:
        """Whether the contexts share one C stack, although each could have its own."""
        return self.shadow_stack is None and any(export.name == STACK_POINTER for export in self.module.exports)

    def connect(self, process: Process, stdio: Stdio) -> None:
        """Give the process those standard streams."""
        process.descriptors[self._stdio] = Descriptors(stdio.streams())

    def close(self) -> None:
        """Free the linker, the module and the engine. Closing it again does nothing."""
        for switch in self.linker.switches.values():
            switch.close()
        for thing in (self.linker, self.module, self.engine):
            close(thing)

    @cached_property
    def _sizes(self) -> Sizes:
        return Sizes(self._code)


def _user_cache() -> ModuleCache | None:
    from greenctx.wasix._modules.cache import ModuleCache

    return ModuleCache.of_the_user()
