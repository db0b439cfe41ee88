"""Find out which modules hold references to collected objects, from wasmtime's compiler.

The compiler lists, in a section of the compiled module, each function that holds a reference during a call.
"""

from __future__ import annotations

from functools import cache
from struct import Struct, unpack_from
from weakref import WeakKeyDictionary

from wasmtime import Module

from greenctx.wasix._modules.engines import new_engine

_SECTION = ".wasmtime.stackmap"
_HEADER = Struct("<II8x8xQQ")  # of a section of an ELF file: name, type, offset, size
_known: WeakKeyDictionary[Module, bool] = WeakKeyDictionary()


def holds_references(module: Module) -> bool:
    """Whether any function of the module holds a reference while it calls another function."""
    holds = _known.get(module)
    if holds is None:
        holds = _known[module] = _has_stack_maps(module) or not _are_found()
    return holds


def note_none(module: Module) -> None:
    """Note that the module was compiled without the collector, and so holds no references. This saves a search."""
    _known[module] = False


@cache
def _are_found() -> bool:
    """Whether this wasmtime has the section where `_has_stack_maps` looks for it."""
    holder = "(module (func $f (param externref) (result externref) (drop (call $f (ref.null extern))) (local.get 0)))"
    return _has_stack_maps(Module(new_engine(collector=True, size=len(holder)), holder))


def _has_stack_maps(module: Module) -> bool:
    image = bytes(module.serialize())
    (table,) = unpack_from("<Q", image, 0x28)
    size, count, of_names = unpack_from("<HHH", image, 0x3A)
    headers = [_HEADER.unpack_from(image, table + index * size) for index in range(count)]
    names = headers[of_names][2]
    name = _SECTION.encode() + b"\0"
    return any(length and image.startswith(name, names + start) for start, _, _, length in headers)
