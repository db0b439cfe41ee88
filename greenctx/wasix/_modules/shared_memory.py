"""A shared memory that a module imports, turned into one of its own.

Programs of WASIX's toolchain import a shared ``env.memory`` and export none, so that each thread can be an instance of
the module. Here is one thread and one instance. So the module is given the memory, with the limits that it declares,
and exports it, as WASI's calls need it; and nobody shares it. Then limits, growth and the calls are the same for these
programs as for all others.

A memory that is shared in earnest would also let a guest block the thread by ``memory.atomic.wait``: within wasmtime,
where neither Ctrl-C nor a time limit reaches it. On one that is not, that traps.
"""

from __future__ import annotations

from greenctx.wasix._modules.abi import MEMORY
from greenctx.wasix._modules.binary import HEADER, SHARED, NotUnderstood, Reader, Size, leb

IMPORTED = "env", MEMORY
_IMPORT, _MEMORY, _EXPORT = 2, 5, 7
_ORDER = (1, _IMPORT, 3, 4, _MEMORY, 13, 6, _EXPORT, 8, 9, 12, 10, 11)
"""Of sections, by their ids; custom ones (0) may be anywhere."""

Section = tuple[int, bytes]


def with_own_memory(code: bytes) -> bytes:
    """The module with that memory as its own; the same if it imports none, or another one as well."""
    try:
        sections = _sections(code)
        found = _take_import(sections)
        if found is None:
            return code
        _add(sections, _MEMORY, found, first=True)
        if not _exports_memory(sections):
            _add(sections, _EXPORT, leb(len(MEMORY)) + MEMORY.encode() + bytes([2, 0]))
    except (NotUnderstood, IndexError, UnicodeDecodeError):  # whoever compiles it will say what is wrong
        return code
    return code[:HEADER] + b"".join(bytes([kind]) + leb(len(content)) + content for kind, content in sections)


def _sections(code: bytes) -> list[Section]:
    reader, sections = Reader(code, HEADER), []
    while reader.position < len(code):
        kind, length = reader.byte(), reader.number()
        reader.skip(length)
        if reader.position > len(code):
            raise NotUnderstood("a section that ends after the module")
        sections.append((kind, code[reader.position - length : reader.position]))
    return sections


def _take_import(sections: list[Section]) -> bytes | None:
    """Remove the import; return the limits of what it imported, no longer shared."""
    place = next((place for place, (kind, _) in enumerate(sections) if kind == _IMPORT), None)
    if place is None:
        return None
    content = sections[place][1]
    reader = Reader(content, 0)
    memories: list[Size] = []
    imports, limits = [], b""
    for _ in range(reader.number()):
        start, before = reader.position, len(memories)
        key = reader.import_entry(memories, [])
        entry = content[start : reader.position]
        if len(memories) > before and key == IMPORTED and memories[-1].shared:
            limits = _limits(entry)
        else:
            imports.append(entry)
    if not limits or len(memories) > 1 or reader.position != len(content):
        return None
    sections[place] = _IMPORT, leb(len(imports)) + b"".join(imports)
    return bytes([limits[0] & ~SHARED]) + limits[1:]


def _limits(entry: bytes) -> bytes:
    reader = Reader(entry, 0)
    for read in (reader.name, reader.name, reader.byte):
        read()
    return entry[reader.position :]


def _exports_memory(sections: list[Section]) -> bool:
    for kind, content in sections:
        if kind == _EXPORT:
            reader = Reader(content, 0)
            return MEMORY in [reader.export_entry()[0] for _ in range(reader.number())]
    return False


def _add(sections: list[Section], kind: int, entry: bytes, *, first: bool = False) -> None:
    """Add an entry to the section of that kind, which is made if it is missing."""
    for place, (found, content) in enumerate(sections):
        if found == kind:
            reader = Reader(content, 0)
            count = reader.number()
            rest = content[reader.position :]
            sections[place] = kind, leb(count + 1) + (entry + rest if first else rest + entry)
            return
    later = _ORDER[_ORDER.index(kind) + 1 :]
    place = next((place for place, (found, _) in enumerate(sections) if found in later), len(sections))
    sections.insert(place, (kind, leb(1) + entry))
