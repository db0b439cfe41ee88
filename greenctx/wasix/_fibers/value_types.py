"""Value types, told apart without the wasmtime package's own `==` and `str`.

Those abort the process on a type for which its C API has no number: v128, exceptions, references of garbage collection.
A guest's exports may have any of them.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from wasmtime import FuncType, ValType

from greenctx.wasix._native.capi_values import are_same_types

# A tuple: where memory is short, CPython (3.11 to 3.13) crashes when it cannot begin to iterate over a dict's items.
_KINDS: Final = tuple((kind, getattr(ValType, kind)()) for kind in ("i32", "i64", "f32", "f64", "externref", "funcref"))


def kind_of(ty: ValType) -> str | None:
    """The type's name in WebAssembly text; None if Python has no values of it."""
    for kind, known in _KINDS:
        if are_same_types(ty, known):
            return kind
    return None


@cache
def func_type(text: str) -> FuncType:
    """A function's type, such as "i32 i32 -> i64", for `define_func`, which copies it."""
    made = dict(_KINDS)
    parameters, results = ([made[kind] for kind in part.split()] for part in text.split("->"))
    return FuncType(parameters, results)
