"""Invocations: calls of an export by its name, with arguments that may be text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wasmtime import Func

from greenctx.errors import InvalidProgram
from greenctx.wasix._fibers.calls import call
from greenctx.wasix._fibers.values import kind_of
from greenctx.wasix._linking.commands import INITIALIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wasmtime import Instance, Store, ValType

_BITS = {"i32": 32, "i64": 64}


class Invocation:
    """A call of the export ``name``, after ``_initialize`` if the module exports that."""

    def __init__(self, program: str, name: str, args: Sequence[Any]) -> None:
        self._program = program
        self._name = name
        self._args = args

    def __call__(self, store: Store, instance: Instance) -> list[Any]:
        """Return the results. Raises `InvalidProgram` if there is no such function, or it takes other arguments."""
        exports = instance.exports(store)
        func = exports.get(self._name)
        if not isinstance(func, Func):
            functions = [name for name, export in exports.items() if isinstance(export, Func)]
            names = ", ".join(map(repr, functions)) or "none"
            raise InvalidProgram(self._program, f"it exports no function {self._name!r}; it exports {names}")
        types = func.type(store).params
        if len(types) != len(self._args):
            takes = " ".join(kind_of(ty) or "a reference" for ty in types) or "nothing"
            raise InvalidProgram(
                self._program, f"{self._name!r} takes {takes}, but {len(self._args)} arguments were given"
            )
        args = [
            self._converted(arg, ty) if isinstance(arg, str) else arg for arg, ty in zip(self._args, types, strict=True)
        ]
        initialize = exports.get(INITIALIZE)
        if isinstance(initialize, Func) and self._name != INITIALIZE:
            call(store, initialize)
        result = call(store, func, *args)
        return result if isinstance(result, list) else [] if result is None else [result]

    def _converted(self, text: str, ty: ValType) -> int | float:
        try:
            if kind_of(ty) in ("f32", "f64"):
                return float(text)
            bits, number = _BITS[kind_of(ty) or ""], int(text, 0)
        except (KeyError, ValueError):
            bits, number = 1, 2
        if not -(1 << (bits - 1)) <= number < 1 << bits:
            raise InvalidProgram(
                self._program,
                f"{text!r} cannot be an argument of {self._name!r}: it takes {kind_of(ty) or 'a reference'}",
            )
        return number if number < 1 << (bits - 1) else number - (1 << bits)
