"""Shared memories, turned into unshared memories of the module's own.

Programs of WASIX's toolchain import a shared ``env.memory`` and export none, so that each thread can be an instance of
the module. greenctx has one thread and one instance. So the module is changed to define the memory itself, unshared,
with the limits that it declares. It also exports the memory, because WASI's calls need that. Then limits, growth and
the calls work for these programs as for all others. The import may have any name, because nothing could provide a
shared memory. A shared memory that the module defines becomes unshared, too.

On a shared memory a guest could also block the thread by ``memory.atomic.wait``, within wasmtime, where neither Ctrl-C
nor a time limit ends the wait. On an unshared memory that instruction traps.
"""

from __future__ import annotations

from greenctx.wasix._modules import abi
from greenctx.wasix._modules.binary import (
    EXPORTS,
    IMPORTS,
    MEMORIES,
    MEMORY,
    NotUnderstood,
    Reader,
    Section,
    encode_number,
    encode_section,
    replace,
    sections,
)
from greenctx.wasix._modules.sizes import SHARED, read_import, read_memory

_ORDER = (1, IMPORTS, 3, 4, MEMORIES, 13, 6, EXPORTS, 8, 9, 12, 10, 11)
"""The order of sections, by id. Custom sections may be anywhere."""


def unshare_memory(code: bytes) -> bytes:
    """Return the module without shared memories. A module that imports several memories keeps its imports."""
    try:
        return _unshare(code) or code
    except NotUnderstood:  # compiling it will say what is wrong
        return code


def _unshare(code: bytes) -> bytes | None:
    first: dict[int, Section] = {}
    """The first section of each id."""
    for section in sections(code):
        first.setdefault(section.id, section)
    if MEMORIES in first:
        own = _unshare_own(code, first[MEMORIES])
        if own != code:  # the imports have not moved
            return _unshare(own) or own
    imports, exports = first.get(IMPORTS), first.get(EXPORTS)
    entry = None if imports is None else _find_import(code, imports)
    if imports is None or entry is None:
        return None
    replacements = [
        (imports.begin, imports.end, _without(code, imports, *entry)),
        _with_entry(code, first, MEMORIES, _unshared_limits(code, *entry), at_front=True),
    ]
    if exports is None or not _exports_memory(code, exports):
        export = encode_number(len(abi.MEMORY)) + abi.MEMORY.encode() + bytes([MEMORY, 0])
        replacements.append(_with_entry(code, first, EXPORTS, export))
    return replace(code, replacements)


def _unshare_own(code: bytes, section: Section) -> bytes:
    """Return the module with the memories that it defines unshared."""
    reader = section.reader(code)
    replacements = []
    for _ in range(reader.number()):
        start = reader.position
        if read_memory(reader).shared:
            replacements.append((start, start + 1, bytes([code[start] & ~SHARED])))
    return replace(code, replacements) if reader.position == section.end else code


def _find_import(code: bytes, section: Section) -> tuple[int, int] | None:
    """Return where the import of the shared memory is, if the module imports no other memory."""
    reader = section.reader(code)
    memories = 0
    found = None
    for _ in range(reader.number()):
        start = reader.position
        entry = read_import(reader)
        if entry.kind == MEMORY:
            memories += 1
            if entry.size is not None and entry.size.shared:
                found = start, reader.position
    return found if memories == 1 and reader.position == section.end else None


def _without(code: bytes, section: Section, start: int, end: int) -> bytes:
    """Return the section without the entry from ``start`` to ``end``."""
    reader = section.reader(code)
    count = encode_number(reader.number() - 1)
    return encode_section(section.id, count + code[reader.position : start] + code[end : section.end])


def _unshared_limits(code: bytes, start: int, end: int) -> bytes:
    """Return the limits of the memory whose import is there, without the flag for shared."""
    reader = Reader(code, start, end)
    for read in (reader.name, reader.name, reader.byte):
        read()
    flags = reader.byte() & ~SHARED
    return bytes([flags]) + code[reader.position : end]


def _exports_memory(code: bytes, section: Section) -> bool:
    reader = section.reader(code)
    found = False
    for _ in range(reader.number()):
        name, _, _ = reader.export()
        found = found or name == abi.MEMORY
    return found


def _with_entry(
    code: bytes, first: dict[int, Section], section_id: int, entry: bytes, *, at_front: bool = False
) -> tuple[int, int, bytes]:
    """Return the replacement that adds an entry to the section of that id, which may be missing."""
    section = first.get(section_id)
    if section is None:
        later = _ORDER[_ORDER.index(section_id) + 1 :]
        place = min((first[other].begin for other in later if other in first), default=len(code))
        return place, place, encode_section(section_id, encode_number(1) + entry)
    reader = section.reader(code)
    count = encode_number(reader.number() + 1)
    others = code[reader.position : section.end]
    content = count + (entry + others if at_front else others + entry)
    return section.begin, section.end, encode_section(section_id, content)
