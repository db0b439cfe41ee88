"""Linker: `wasmtime.Linker` for guests whose host functions may switch contexts."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any

import wasmtime
from wasmtime import Engine, Func, FuncType, Module

from greenctx.wasix._fibers import calls, gc_anchor, host_functions
from greenctx.wasix._fibers.functions import Instance, suspending
from greenctx.wasix._fibers.stores import check_belongs, state_of
from greenctx.wasix._fibers.values import func_type
from greenctx.wasix._linking import commands, yielding_switch
from greenctx.wasix._linking.call_reports import CallReports
from greenctx.wasix._linking.imports import check_engine, imports_of, is_defined
from greenctx.wasix._linking.requirements import StoreRequirements, checked_instance_pre, require_suspending_calls
from greenctx.wasix._modules.abi import START, WASI_MODULE, WASI_UNSTABLE_MODULE, WASIX_MODULES
from greenctx.wasix._native.capi import find_export, store_id_of
from greenctx.wasix._syscalls.contexts import context_calls
from greenctx.wasix._syscalls.process import DescriptorTables
from greenctx.wasix._syscalls.wasi import WasiCalls
from greenctx.wasix._syscalls.wasix import WasixCalls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from greenctx.wasix._fibers.host_functions import HostFunction
    from greenctx.wasix._files.stdio import Stdio
    from greenctx.wasix._linking.imports import Key
    from greenctx.wasix._linking.requirements import InstancePre
    from greenctx.wasix._linking.typed_functions import F
    from greenctx.wasix._native.capi import AsExtern, Storelike
    from greenctx.wasix._syscalls.table import SystemCall


class Linker(wasmtime.Linker):
    """A `wasmtime.Linker` whose host functions run on the calling context's greenlet, where they may switch.

    The functions of its instances suspend when they are called, ``func(store, *args)``. Once a store has such a host
    function, wasmtime refuses to call a plain `wasmtime.Func`; `greenctx.wasix.call` calls any function. If store,
    engine and items do not belong together, the linker raises `WrongStore`, where wasmtime would end the process.

    **Unsafe**: `define` and `define_instance` take a plain `wasmtime.Func` as it is, and its Python then runs on the
    guest's fiber. Calls to the environment from there are refused, but a bare greenlet (or gevent) switch aborts the
    process. Use `define_func`.
    """

    def __init__(self, engine: Engine, *, report_host_calls: bool = False) -> None:
        """With ``report_host_calls``, report calls of host functions to the instruments of the current environment.

        Host functions here are those of `define_func`, and the WASI and WASIX functions that greenctx serves itself.
        """
        if not isinstance(engine, Engine):
            raise TypeError(f"expected a wasmtime.Engine, not {engine!r}")
        super().__init__(engine)
        self._call_reports = CallReports(begun=report_host_calls)
        self._allow_shadowing = self._has_wasi = self._has_wasix = self._has_wasix_files = False
        self.definitions = 0
        """How many definitions the embedder has made, without those of WASI and WASIX."""
        self.may_use_files = True
        """Whether the WASI settings of guests' stores may have directories."""
        self._descriptors = DescriptorTables(calls_directly=not report_host_calls)
        self._without_wasi: set[Key] = set()
        """The names of all definitions, except functions that need the store's WASI settings."""
        self._defining = Lock()  # a program may run in several threads at once
        self._owners: dict[Key, int] = {}
        """The ids of the stores that definitions belong to. Host functions belong to no store."""
        self.switches: dict[Key, yielding_switch.YieldingSwitch] = {}  # by the definitions that they may replace

    @property
    def allow_shadowing(self) -> bool:
        """Whether a definition may replace an earlier one of the same name."""
        return self._allow_shadowing

    @allow_shadowing.setter
    def allow_shadowing(self, allow: bool) -> None:
        wasmtime.Linker.allow_shadowing.__set__(self, allow)
        self._allow_shadowing = allow

    def define(self, store: Storelike, module: str, name: str, item: AsExtern) -> None:
        """Define an item of the store. For a Python function use `define_func`, which is safe."""
        check_belongs(self._requirements().check(store), item)
        super().define(store, module, name, item)
        self._note(module, name, store_id_of(item))
        self.definitions += 1

    def define_func(
        self, module: str, name: str, ty: FuncType, func: Callable[..., Any], access_caller: bool = False
    ) -> None:
        """Define a host function. It may switch contexts, call guests by `greenctx.wasix.call`, and raise.

        With ``access_caller`` its first argument is a `Caller`: the guest's exports, valid until the function returns.
        """
        host_functions.check_host_function(ty, func)
        defined = host_functions.define_func(self, module, name, ty, func, access_caller)
        self._note_function(module, name, defined)
        self.definitions += 1

    def host_function(self, module: str, name: str | None = None) -> Callable[[F], F]:
        """Define the decorated function as a host function, typed by its annotations. ``name`` is its own by default.

        ``int`` is an i64 and `I32` an i32, ``float`` an f64 and `F32` an f32, ``bool`` an i32. A first parameter of
        type `Caller` gets the guest's exports. An ``async def`` function is awaited, so the program has to run by
        ``run_async`` (`NotInAsyncRun` otherwise). Raises TypeError for other annotations.
        """
        from greenctx.wasix._linking.typed_functions import defining  # imports inspect, which takes long

        return defining(self.define_func, module, name)

    def define_instance(self, store: Storelike, name: str, instance: wasmtime.Instance) -> None:
        """Define all exports of an instance in the store."""
        if not isinstance(instance, wasmtime.Instance):
            raise TypeError(f"expected a wasmtime.Instance, not {instance!r}")
        check_belongs(self._requirements().check(store), instance)
        self._define_instance(store, name, instance, instance.exports(store))

    def _define_instance(
        self, store: Storelike, name: str, instance: wasmtime.Instance, exports: Iterable[str]
    ) -> None:
        super().define_instance(store, name, instance)
        for export in exports:
            self._note(name, export, store_id_of(instance))
            self.definitions += 1

    def define_module(self, store: Storelike, name: str, module: Module) -> None:
        """Define the exports of a module, a command or a reactor of WASI.

        A command exports ``_start``: each call of its functions gets a fresh instance. Any other module is instantiated
        now, and its ``_initialize`` is called if it has one.
        """
        store = self._requirements(imports_of(module)).check(store)
        if commands.is_command(module):
            functions, pre = commands.functions_of(module), self.instantiate_pre(module)
            for export, ty in functions:
                self.define_func(name, export, ty, commands.on_fresh_instance(pre, export), access_caller=True)
        else:
            instance = self.instantiate(store, module)
            if isinstance(initialize := find_export(store, instance, commands.INITIALIZE), Func):
                calls.call(store, initialize)
            self._define_instance(store, name, instance, [export.name for export in module.exports])

    def define_wasi(self, stdio: Stdio | None = None) -> None:
        """Define WASI preview 1: by wasmtime, except ``proc_exit``, which raises `GuestExit`, and calls that wait.

        With ``stdio``, greenctx also reads and writes the standard streams itself, so that it can be interrupted. As
        with `wasmtime.Linker`, call the store's ``set_wasi`` before you instantiate a module that uses WASI. Otherwise
        instantiating it raises `WasiNotSet`.
        """
        super().define_wasi()
        self._has_wasi = True
        self._descriptors.stdio = stdio
        self._replace_wasi(WasiCalls(self._descriptors).calls())
        self._without_wasi = {key for key in self._without_wasi if key[0] != WASI_MODULE} | {(WASI_MODULE, "proc_exit")}
        if self._has_wasix_files:
            self._replace_wasi(WasiCalls(self._descriptors).calls_for_wasix())

    def define_wasix(self, *, files: bool = True) -> None:
        """Define the WASIX context calls, for 32 and 64 bits, and WASIX's other calls, for 32 bits.

        Outside of an environment the context calls return notsup. The calls about files need `define_wasi`, some of
        whose functions then take longer; ``files=False`` leaves them out. Other WASIX imports of a module are defined
        when the module is instantiated.
        """
        self._define_calls(context_calls())
        self._define_calls(WasixCalls(self._descriptors).calls(files=files))
        self._has_wasix, self._has_wasix_files = True, files
        if files and self._has_wasi:
            self._replace_wasi(WasiCalls(self._descriptors).calls_for_wasix())

    def begin_host_call_reports(self) -> None:
        """Report calls from now on, as with ``report_host_calls``, including calls of functions defined before."""
        self._descriptors.direct_linker.turn_off()
        self._call_reports.begin()

    def define_wasix_imports(self, module: Module) -> list[Key]:
        """Define the module's imports of WASIX and of WASI preview 0 that nothing defines yet.

        `instantiate` calls this after `define_wasix`, or for preview 0 `define_wasi`. Return the names of the functions
        that greenctx does not provide: they return notsup, or trap.
        """
        modules = (WASIX_MODULES if self._has_wasix else ()) + ((WASI_UNSTABLE_MODULE,) if self._has_wasi else ())
        if {key for key in imports_of(module) if key[0] in modules} <= self._without_wasi:
            return []
        from greenctx.wasix._linking.wasix_imports import calls_for  # needed by few programs

        with self._defining:
            calls = calls_for(module, modules, self._without_wasi, self._descriptors, wasi=self._has_wasi)
            once = {(call.module, call.name): call for call in calls}  # a module may import a function several times
            self._define_calls(once.values())
        return [key for key, call in once.items() if not call.is_provided]

    def _define_calls(self, calls: Iterable[SystemCall]) -> None:
        for call in calls:
            key, ty, serve = (call.module, call.name), func_type(call.type), call.host_function()
            direct = (self._descriptors.direct_linker, call.name) if call.is_direct else None
            defined = host_functions.define_func(self, *key, ty, serve, call.needs_caller, call.is_switch, True, direct)
            self._note_function(*key, defined)
            if call.is_switch:
                self.switches[key] = yielding_switch.YieldingSwitch(self.engine, defined)

    def _replace_wasi(self, calls: Iterable[SystemCall]) -> None:
        """Define functions that replace wasmtime's WASI functions, and call them."""
        without_wasi, allow_shadowing = {*self._without_wasi}, self._allow_shadowing
        self.allow_shadowing = True
        try:
            self._define_calls(calls)
        finally:
            self.allow_shadowing = allow_shadowing
            self._without_wasi = without_wasi

    def define_unknown_imports_as_traps(self, module: Module) -> None:
        """Define the module's undefined imports as functions that trap."""
        check_engine(self, module)
        self.define_wasix_imports(module)
        super().define_unknown_imports_as_traps(module)

    def define_unknown_imports_as_default_values(self, store: Storelike, module: Module) -> None:
        """Define the module's undefined imports as functions that return zeros, empty memories, and so on."""
        state = state_of(self._requirements().check(store))
        check_engine(self, module)
        self.define_wasix_imports(module)
        unknown = [key for key in imports_of(module) if not is_defined(self, store, key)]
        super().define_unknown_imports_as_default_values(store, module)
        self._owners |= dict.fromkeys(unknown, state.store_id)

    def get(self, store: Storelike, module: str, name: str) -> AsExtern:
        """Return the definition of that name."""
        store = self._requirements([(module, name)]).check(store)
        item = suspending(super().get(store, module, name))
        if isinstance(item, Func):
            require_suspending_calls(store)
        return item

    def get_default(self, store: Storelike, name: str) -> Func:
        """Return a module's default function, as `define_module` defined it."""
        return suspending(super().get_default(self._requirements([(name, ""), (name, START)]).check(store), name))

    def instantiate(self, store: Storelike, module: Module) -> Instance:
        """Instantiate a module; its start function may call host functions that switch."""
        store = self._requirements(imports_of(module)).check(store)
        self.define_wasix_imports(module)
        gc_anchor.admit(module, store)
        return yielding_switch.instantiate(self, store, module, self.switches)

    def instantiate_pre(self, module: Module) -> InstancePre:
        """Look up the imports of a module once, to instantiate it often."""
        requirements = self._requirements(imports_of(module))
        self.define_wasix_imports(module)
        return checked_instance_pre(super().instantiate_pre(module), requirements, module)

    def _note_function(self, module: str, name: str, function: HostFunction) -> None:
        self._call_reports.add(function)
        self._note(module, name, None)

    def _note(self, module: str, name: str, owner: int | None) -> None:
        """Remember to which store a new definition belongs."""
        self._without_wasi.add((module, name))
        self._owners.pop((module, name), None)
        self.switches.pop((module, name), None)
        if owner is not None:
            self._owners[module, name] = owner

    def _requirements(self, keys: Iterable[Key] = ()) -> StoreRequirements:
        """Return the requirements of those definitions on a store that uses them."""
        keys = [*keys]
        owners = {key: self._owners[key] for key in keys if key in self._owners}
        wasi = any(key[0] == WASI_MODULE and key not in self._without_wasi for key in keys)
        return StoreRequirements(self.engine, owners, wasi and self._has_wasi, self.may_use_files)
