"""What a module's binary says of its own memories and tables, which wasmtime's package tells only of exported ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

PAGE = 65536
_IMPORT, _TABLE, _MEMORY, _EXPORT = 2, 4, 5, 7  # section ids
_NULLABLE, _NOT_NULLABLE = 0x63, 0x64  # first byte of a reference type that is spelled out
_WITH_INITIALIZER = 0x40


class NotUnderstood(Exception):
    """The binary is in no form that is known here."""


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
    """The memories and the tables of a core module that wasmtime has validated, those imported first.

    Raises `NotUnderstood` for one that uses what this does not know, rather than tell something wrong.
    """
    memories: list[Size] = []
    tables: list[Size] = []
    reader = _Reader(code, 8)
    try:
        while reader.position < len(code):
            section, length = reader.byte(), reader.number()
            end = reader.position + length
            if section == _IMPORT:
                for _ in range(reader.number()):
                    reader.import_entry(memories, tables)
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
            else:
                reader.position = end
            if reader.position != end:
                raise NotUnderstood(f"section {section} does not end where it should")
    except IndexError:
        raise NotUnderstood("it ends in the middle") from None
    return memories, tables


class _Reader:
    """Reads the binary format (WebAssembly core specification, chapter 5)."""

    def __init__(self, code: bytes, position: int) -> None:
        self.code = code
        self.position = position

    def byte(self) -> int:
        self.position += 1
        return self.code[self.position - 1]

    def skip(self, count: int) -> None:
        self.position += count

    def number(self) -> int:
        """An unsigned LEB128 number; or skip a signed one."""
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
        flags = self.flags(0b1111)
        minimum = self.number()
        maximum = self.number() if flags & 1 else None
        page = 1 << self.number() if flags & 8 else PAGE
        maximum = None if maximum is None else maximum * page
        return Size(minimum * page, maximum, bool(flags & 2), imported, is_64=bool(flags & 4))

    def table(self, imported: bool = False) -> Size:
        with_initializer = self.code[self.position] == _WITH_INITIALIZER
        if with_initializer:
            self.skip(2)
        self.value_type()
        flags = self.flags(0b101)
        minimum = self.number()
        maximum = self.number() if flags & 1 else None
        if with_initializer:
            self.constant_expression()
        return Size(minimum, maximum, imported=imported, is_64=bool(flags & 4))

    def flags(self, known: int) -> int:
        """Of a memory or table: 1 has a maximum, 2 is shared, 4 has 64-bit indices, 8 has pages of its own size."""
        flags = self.byte()
        if flags & ~known:
            raise NotUnderstood(f"limits with the flags {flags:#x}")
        return flags

    def value_type(self) -> None:
        if self.byte() in (_NULLABLE, _NOT_NULLABLE):
            self.number()

    def constant_expression(self) -> None:
        """Skip one."""
        while (opcode := self.byte()) != 0x0B:  # end
            if opcode in (0x23, 0x41, 0x42, 0xD0, 0xD2):  # global.get, i32.const, i64.const, ref.null, ref.func
                self.number()
            elif opcode in (0x43, 0x44):  # f32.const, f64.const
                self.skip(4 if opcode == 0x43 else 8)
            elif opcode == 0xFD:  # v128.const
                if self.number() != 12:
                    raise NotUnderstood("a vector instruction in a constant expression")
                self.skip(16)
            elif opcode == 0xFB:
                self.reference_instruction()
            elif opcode not in (0x6A, 0x6B, 0x6C, 0x7C, 0x7D, 0x7E):  # add, sub and mul of i32 and of i64
                raise NotUnderstood(f"the instruction {opcode:#x} in a constant expression")

    def reference_instruction(self) -> None:
        opcode = self.number()
        if opcode in (0, 1, 6, 7):  # struct.new, struct.new_default, array.new, array.new_default
            self.number()
        elif opcode == 8:  # array.new_fixed
            self.number()
            self.number()
        elif opcode not in (26, 27, 28):  # any.convert_extern, extern.convert_any, ref.i31
            raise NotUnderstood(f"the instruction 0xfb {opcode} in a constant expression")

    def import_entry(self, memories: list[Size], tables: list[Size]) -> None:
        self.skip(self.number())
        self.skip(self.number())
        kind = self.byte()
        if kind == 0x00:  # function
            self.number()
        elif kind == 0x01:
            tables.append(self.table(imported=True))
        elif kind == 0x02:
            memories.append(self.memory(imported=True))
        elif kind == 0x03:  # global
            self.value_type()
            self.skip(1)
        elif kind == 0x04:  # tag
            self.skip(1)
            self.number()
        else:
            raise NotUnderstood(f"an import of the kind {kind:#x}")
