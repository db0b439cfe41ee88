"""Linker: `wasmtime.Linker` for guests whose host functions may switch contexts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import wasmtime
from wasmtime import FuncType, ValType

from greenctx.wasix import host_functions, suspend
from greenctx.wasix.abi import CONTEXT_MODULE, CONTEXT_MODULE_64, U64_MASK
from greenctx.wasix.syscalls import context_create, context_destroy, context_switch
from greenctx.wasix.wasi import WasiCalls

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasmtime import Instance, Module
    from wasmtime._store import Storelike

    from greenctx.wasix.stdio import Stdio


class Linker(wasmtime.Linker):
    """A `wasmtime.Linker` whose host functions run on the calling context's greenlet, where they may switch.

    Call the functions of its instances by `greenctx.wasix.call`: once a store has such a host function, wasmtime
    refuses every other way in.

    **Unsafe**: `define` and `define_instance` take a plain `wasmtime.Func` as it is, and its Python then runs on the
    guest's fiber. Calls to the environment from there are refused, but a bare greenlet (or gevent) switch aborts the
    process. Use `define_func`.
    """

    def __init__(self, engine: wasmtime.Engine) -> None:
        super().__init__(engine)
        self._allow_shadowing = False

    @property
    def allow_shadowing(self) -> bool:
        """Whether a definition may replace an earlier one of the same name."""
        return self._allow_shadowing

    @allow_shadowing.setter
    def allow_shadowing(self, allow: bool) -> None:
        wasmtime.Linker.allow_shadowing.__set__(self, allow)
        self._allow_shadowing = allow

    def define_func(
        self, module: str, name: str, ty: FuncType, func: Callable[..., Any], access_caller: bool = False
    ) -> None:
        """Define a host function. It may switch contexts, call guests by `greenctx.wasix.call`, and raise.

        With ``access_caller`` its first argument is a `Caller`: the guest's exports, good until it returns.
        """
        if not isinstance(ty, FuncType):
            raise TypeError(f"the type of a host function must be a wasmtime.FuncType, not {ty!r}")
        if not callable(func):
            raise TypeError(f"a host function must be callable, not {func!r}")
        host_functions.define_func(self, module, name, ty, func, access_caller)

    def define_wasi(self, stdio: Stdio | None = None) -> None:
        """Define WASI preview 1: wasmtime's own but for ``proc_exit``, which raises `GuestExit`, and calls that wait.

        With ``stdio``, reading and writing the standard streams is done here too, and can be interrupted. As with
        `wasmtime.Linker`, the store needs its ``set_wasi`` called before the guest runs.
        """
        super().define_wasi()
        allow_shadowing = self._allow_shadowing
        self.allow_shadowing = True
        WasiCalls(self.engine, stdio).define(self.define_func)
        self.allow_shadowing = allow_shadowing

    def define_wasix(self) -> None:
        """Define the WASIX context calls, for 32 and 64 bits. Outside of an environment they answer notsup."""
        i32, i64 = ValType.i32(), ValType.i64()
        create64 = partial(context_create, mask=U64_MASK)
        for module, pointer, create in ((CONTEXT_MODULE, i32, context_create), (CONTEXT_MODULE_64, i64, create64)):
            self.define_func(module, "context_create", FuncType([pointer, i32], [i32]), create, access_caller=True)
            self.define_func(module, "context_switch", FuncType([i64], [i32]), context_switch)
            self.define_func(module, "context_destroy", FuncType([i64], [i32]), context_destroy)

    def instantiate(self, store: Storelike, module: Module) -> Instance:
        """Instantiate a module; its start function may call host functions that switch."""
        return suspend.instantiate(self, store, module)
