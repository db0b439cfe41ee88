"""What a module's binary says of its own memories and tables, which wasmtime's package tells only of exported ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

PAGE = 65536
_IMPORT, _TABLE, _MEMORY, _EXPORT = 2, 4, 5, 7  # section ids


@dataclass(frozen=True)
class Size:
    """The limits of a memory (in bytes) or a table (in elements): where it starts, and how far it may grow."""

    minimum: int
    maximum: int | None
    shared: bool = False
    imported: bool = False
    is_64: bool = False
    exported: tuple[str, ...] = ()
    """The names under which it is."""


def sizes(code: bytes) -> tuple[list[Size], list[Size]]:
    """The memories and the tables of a valid core module, those imported first."""
    memories: list[Size] = []
    tables: list[Size] = []
    reader = _Reader(code, 8)
    while reader.position < len(code):
        section, length = reader.byte(), reader.number()
        end = reader.position + length
        if section == _IMPORT:
            for _ in range(reader.number()):
                reader.skip(reader.number())
                reader.skip(reader.number())
                reader.import_description(memories, tables)
        elif section == _TABLE:
            tables += [reader.table() for _ in range(reader.number())]
        elif section == _MEMORY:
            memories += [reader.memory() for _ in range(reader.number())]
        elif section == _EXPORT:
            for _ in range(reader.number()):
                name, kind, index = reader.name(), reader.byte(), reader.number()
                things = {1: tables, 2: memories}.get(kind)
                if things is not None:
                    things[index] = replace(things[index], exported=(*things[index].exported, name))
        reader.position = end
    return memories, tables


class _Reader:
    """Reads the binary format (WebAssembly core specification, chapter 5) of a module that wasmtime has validated."""

    def __init__(self, code: bytes, position: int) -> None:
        self.code = code
        self.position = position

    def byte(self) -> int:
        self.position += 1
        return self.code[self.position - 1]

    def skip(self, count: int) -> None:
        self.position += count

    def number(self) -> int:
        """An unsigned LEB128 number."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def name(self) -> str:
        length = self.number()
        self.skip(length)
        return self.code[self.position - length : self.position].decode()

    def memory(self, imported: bool = False) -> Size:
        flags = self.byte()
        minimum = self.number()
        maximum = self.number() if flags & 1 else None
        page = 1 << self.number() if flags & 8 else PAGE
        return Size(
            minimum * page, None if maximum is None else maximum * page, bool(flags & 2), imported, bool(flags & 4)
        )

    def table(self, imported: bool = False) -> Size:
        with_initializer = self.code[self.position] == 0x40
        if with_initializer:
            self.skip(2)
        self.reference_type()
        flags = self.byte()
        minimum = self.number()
        maximum = self.number() if flags & 1 else None
        if with_initializer:
            self.constant_expression()
        return Size(minimum, maximum, imported=imported, is_64=bool(flags & 4))

    def reference_type(self) -> None:
        if self.byte() in (0x63, 0x64):  # (ref null ht), (ref ht)
            self.number()

    def constant_expression(self) -> None:
        """Skip one: ref.null, ref.func, global.get and numbers are all that a table's initializer holds in practice."""
        while (opcode := self.byte()) != 0x0B:
            if opcode in (0x23, 0x41, 0x42, 0xD0, 0xD2):
                self.number()
            elif opcode == 0xFB:
                self.number()
                self.number()

    def import_description(self, memories: list[Size], tables: list[Size]) -> None:
        kind = self.byte()
        if kind == 0x00:  # function
            self.number()
        elif kind == 0x01:
            tables.append(self.table(imported=True))
        elif kind == 0x02:
            memories.append(self.memory(imported=True))
        elif kind == 0x03:  # global
            if self.byte() in (0x63, 0x64):
                self.number()
            self.skip(1)
        else:  # tag
            self.skip(1)
            self.number()
