"""The sizes of a module's memories and tables. (wasmtime's package knows only the exported ones.)

And the same module with other maxima, the only way to limit each memory and each table separately.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from greenctx.wasix._modules.binary import (
    EXPORTS,
    FUNCTION,
    GLOBAL,
    IMPORTS,
    MEMORIES,
    MEMORY,
    TABLE,
    TABLES,
    TAG,
    NotUnderstood,
    Reader,
    Section,
    encode_number,
    encode_section,
    replace,
    sections,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

PAGE: Final = 65536

# Flags of limits.
SHARED: Final = 2
_HAS_MAXIMUM, _IS_64, _HAS_PAGE_SIZE = 1, 4, 8

_WITH_INITIALIZER = 0x40  # first byte of a table with an initial value


class Size(NamedTuple):
    """The limits of a memory (in bytes) or a table (in elements): where it starts, and how far it may grow."""

    minimum: int
    maximum: int | None
    shared: bool = False
    imported: bool = False
    is_64: bool = False
    exported: tuple[str, ...] = ()
    """The names under which the module exports it."""


class Import(NamedTuple):
    """An import. ``size`` is None unless it is a memory or a table."""

    module: str
    name: str
    kind: int
    size: Size | None


class _Definition(NamedTuple):
    """A memory or a table that the module defines, with all that encoding it again needs."""

    size: Size
    before: bytes
    flags: int
    minimum: int
    unit: int
    after: bytes

    def encode(self, maximum: int) -> bytes:
        addresses = 2 ** (64 if self.size.is_64 else 32)
        end = min(max(self.minimum, maximum // self.unit), addresses // self.unit, addresses - 1)
        limits = bytes([self.flags | _HAS_MAXIMUM]) + encode_number(self.minimum) + encode_number(end)
        return self.before + limits + self.after


class Sizes:
    """The memories and the tables of a core module, those imported first.

    Raises `NotUnderstood` for a module that uses an unknown form, because the sizes could be wrong.
    """

    def __init__(self, code: bytes) -> None:
        self.memories: list[Size] = []
        self.tables: list[Size] = []
        self._by_kind = {MEMORY: self.memories, TABLE: self.tables}
        self._code = code
        self._definitions: dict[int, list[_Definition]] = {}
        self._sections: dict[int, Section] = {}
        for section in sections(code):
            if section.id in (IMPORTS, TABLES, MEMORIES, EXPORTS):
                reader = section.reader(code)
                self._read(section, reader)
                if reader.position != section.end:
                    raise NotUnderstood(f"section {section.id} does not end where it should")

    def with_maxima(self, memories: Iterable[int], tables: Iterable[int]) -> bytes:
        """Return the module with those maxima for its own memories (in bytes) and tables (in elements)."""
        maxima = {MEMORIES: memories, TABLES: tables}
        replacements = []
        for section_id, definitions in self._definitions.items():
            section = self._sections[section_id]
            entries = [one.encode(maximum) for one, maximum in zip(definitions, maxima[section_id], strict=True)]
            content = encode_number(len(entries)) + b"".join(entries)
            replacements.append((section.begin, section.end, encode_section(section_id, content)))
        return replace(self._code, replacements)

    def _read(self, section: Section, reader: Reader) -> None:
        count = reader.number()
        if section.id == IMPORTS:
            for _ in range(count):
                wanted = read_import(reader)
                if wanted.size is not None:
                    self._by_kind[wanted.kind].append(wanted.size)
        elif section.id == EXPORTS:
            self._read_exports(count, reader)
        elif section.id in self._sections:
            raise NotUnderstood(f"section {section.id} comes twice")
        else:
            kind, read = (TABLE, _read_table) if section.id == TABLES else (MEMORY, _read_memory)
            definitions = self._definitions[section.id] = [read(reader) for _ in range(count)]
            self._sections[section.id] = section
            self._by_kind[kind].extend(one.size for one in definitions)

    def _read_exports(self, count: int, reader: Reader) -> None:
        names: dict[tuple[int, int], list[str]] = {}
        for _ in range(count):
            name, kind, index = reader.export()
            if kind in self._by_kind:
                names.setdefault((kind, index), []).append(name)
        for (kind, index), exported in names.items():
            sizes = self._by_kind[kind]
            if index >= len(sizes):
                raise NotUnderstood("it exports what it does not have")
            # Not by `_replace`, which makes longer tuples, and CPython keeps thousands of those.
            size = sizes[index]
            names_of = (*size.exported, *exported)
            sizes[index] = Size(size.minimum, size.maximum, size.shared, size.imported, size.is_64, names_of)


def read_import(reader: Reader) -> Import:
    """Read an import."""
    module, name, kind = reader.name(), reader.name(), reader.byte()
    size = None
    if kind == FUNCTION:
        reader.number()
    elif kind == TABLE:
        size = _read_table(reader, imported=True).size
    elif kind == MEMORY:
        size = _read_memory(reader, imported=True).size
    elif kind == GLOBAL:
        reader.value_type()
        reader.skip(1)
    elif kind == TAG:
        reader.skip(1)
        reader.number()
    else:
        raise NotUnderstood(f"an import of the kind {kind:#x}")
    return Import(module, name, kind, size)


def read_memory(reader: Reader) -> Size:
    """Read the definition of a memory."""
    return _read_memory(reader).size


def _read_memory(reader: Reader, imported: bool = False) -> _Definition:
    flags, minimum, maximum = _read_limits(reader, SHARED | _IS_64 | _HAS_PAGE_SIZE)
    start = reader.position
    unit = PAGE
    if flags & _HAS_PAGE_SIZE:
        exponent = reader.number()
        if exponent > 16:
            raise NotUnderstood(f"pages of 2**{exponent} bytes")
        unit = 1 << exponent
    size = Size(minimum * unit, maximum and maximum * unit, bool(flags & SHARED), imported, bool(flags & _IS_64))
    return _Definition(size, b"", flags, minimum, unit, reader.code[start : reader.position])


def _read_table(reader: Reader, imported: bool = False) -> _Definition:
    start = reader.position
    with_initializer = reader.peek() == _WITH_INITIALIZER
    if with_initializer:
        reader.skip(2)
    reader.value_type()
    before = reader.code[start : reader.position]
    flags, minimum, maximum = _read_limits(reader, _IS_64)
    start = reader.position
    if with_initializer:
        reader.constant_expression()
    size = Size(minimum, maximum, imported=imported, is_64=bool(flags & _IS_64))
    return _Definition(size, before, flags, minimum, 1, reader.code[start : reader.position])


def _read_limits(reader: Reader, known: int) -> tuple[int, int, int | None]:
    """Read the flags, of which only those in ``known`` are allowed, the minimum and the maximum."""
    flags = reader.byte()
    if flags & ~(known | _HAS_MAXIMUM):
        raise NotUnderstood(f"limits with the flags {flags:#x}")
    return flags, reader.number(), reader.number() if flags & _HAS_MAXIMUM else None
