"""What a module's binary says of its own memories and tables, which wasmtime's package tells only of exported ones.

And the same binary with other maxima: the one way to limit each of them by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PAGE = 65536
HEADER = 8  # bytes before the first section
SHARED = 2  # flag of limits
_IMPORT, _TABLE, _MEMORY, _EXPORT = 2, 4, 5, 7  # section ids
_NULLABLE, _NOT_NULLABLE = 0x63, 0x64  # first byte of a reference type that is spelled out
_WITH_INITIALIZER = 0x40
_HAS_MAXIMUM, _IS_64, _OWN_PAGE = 1, 4, 8  # others


class NotUnderstood(Exception):
    """The binary is in no form that is known here, or in none at all."""


class Size(NamedTuple):
    """The limits of a memory (in bytes) or a table (in elements): where it starts, and how far it may grow."""

    minimum: int
    maximum: int | None
    shared: bool = False
    imported: bool = False
    is_64: bool = False
    exported: tuple[str, ...] = ()
    """The names under which it is."""


class _Found(NamedTuple):
    """One of a module's own, with what is needed to write it again."""

    size: Size
    before: bytes
    flags: int
    minimum: int
    unit: int
    after: bytes

    def encode(self, maximum: int) -> bytes:
        addresses = 2 ** (64 if self.size.is_64 else 32)
        end = min(max(self.minimum, maximum // self.unit), addresses // self.unit, addresses - 1)
        return self.before + bytes([self.flags | _HAS_MAXIMUM]) + leb(self.minimum) + leb(end) + self.after


class Sizes:
    """The memories and the tables of a core module, those imported first.

    Raises `NotUnderstood` for a module that uses what this does not know, rather than tell something wrong.
    """

    def __init__(self, code: bytes) -> None:
        self.memories: list[Size] = []
        self.tables: list[Size] = []
        self._own: dict[int, list[_Found]] = {_MEMORY: [], _TABLE: []}
        self._sections: list[tuple[int, bytes]] = []
        self._code = code
        try:
            self._read(Reader(code, HEADER))
        except (IndexError, UnicodeDecodeError):
            raise NotUnderstood("it ends in the middle, or is no module") from None

    def with_maxima(self, memories: Iterable[int], tables: Iterable[int]) -> bytes:
        """The module with those maxima for its own memories (in bytes) and tables (in elements)."""
        maxima = {_MEMORY: memories, _TABLE: tables}
        code = [self._code[:HEADER]]
        for section, content in self._sections:
            if section in maxima:
                own = self._own[section]
                encoded = [one.encode(maximum) for one, maximum in zip(own, maxima[section], strict=True)]
                content = leb(len(own)) + b"".join(encoded)
            code += [bytes([section]), leb(len(content)), content]
        return b"".join(code)

    def _read(self, reader: Reader) -> None:
        while reader.position < len(self._code):
            section, length = reader.byte(), reader.number()
            start, end = reader.position, reader.position + length
            if section == _IMPORT:
                reader.repeat(lambda: reader.import_entry(self.memories, self.tables))
            elif section in (_TABLE, _MEMORY):
                own, read = self._own[section], reader.table if section == _TABLE else reader.memory
                if own:
                    raise NotUnderstood(f"section {section} comes twice")
                reader.repeat(lambda own=own, read=read: own.append(read()))  # type: ignore[misc]
                (self.tables if section == _TABLE else self.memories).extend(one.size for one in own)
            elif section == _EXPORT:
                reader.repeat(lambda: self._export(*reader.export_entry()))
            else:
                reader.position = end
            if reader.position != end or end > len(self._code):
                raise NotUnderstood(f"section {section} does not end where it should")
            self._sections.append((section, self._code[start:end]))

    def _export(self, name: str, kind: int, index: int) -> None:
        things = {1: self.tables, 2: self.memories}.get(kind)
        if things is not None:
            size = things[index]  # (Of _replace's tuples, made longer than they are, Python keeps thousands.)
            exported = (*size.exported, name)
            things[index] = Size(size.minimum, size.maximum, size.shared, size.imported, size.is_64, exported)


def sizes(code: bytes) -> tuple[list[Size], list[Size]]:
    """The memories and the tables of a core module, those imported first. Raises `NotUnderstood`."""
    found = Sizes(code)
    return found.memories, found.tables


def leb(number: int) -> bytes:
    """An unsigned LEB128 number."""
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


class Reader:
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
        value = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise NotUnderstood("a number of more than ten bytes")

    def repeat(self, read: Callable[[], object]) -> None:
        """Read a vector."""
        for _ in range(self.number()):
            read()

    def name(self) -> str:
        length = self.number()
        self.skip(length)
        return self.code[self.position - length : self.position].decode()

    def memory(self, imported: bool = False) -> _Found:
        flags, minimum, maximum = self.limits(SHARED | _IS_64 | _OWN_PAGE)
        start = self.position
        unit = PAGE
        if flags & _OWN_PAGE:
            exponent = self.number()
            if exponent > 16:
                raise NotUnderstood(f"pages of 2**{exponent} bytes")
            unit = 1 << exponent
        size = Size(minimum * unit, maximum and maximum * unit, bool(flags & SHARED), imported, bool(flags & _IS_64))
        return _Found(size, b"", flags, minimum, unit, self.code[start : self.position])

    def table(self, imported: bool = False) -> _Found:
        start = self.position
        with_initializer = self.code[start] == _WITH_INITIALIZER
        if with_initializer:
            self.skip(2)
        self.value_type()
        before = self.code[start : self.position]
        flags, minimum, maximum = self.limits(_IS_64)
        start = self.position
        if with_initializer:
            self.constant_expression()
        size = Size(minimum, maximum, imported=imported, is_64=bool(flags & _IS_64))
        return _Found(size, before, flags, minimum, 1, self.code[start : self.position])

    def limits(self, known: int) -> tuple[int, int, int | None]:
        """The flags, of which the last are known, the minimum and the maximum."""
        flags = self.byte()
        if flags & ~(known | _HAS_MAXIMUM):
            raise NotUnderstood(f"limits with the flags {flags:#x}")
        return flags, self.number(), self.number() if flags & _HAS_MAXIMUM else None

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

    def import_entry(self, memories: list[Size], tables: list[Size]) -> tuple[str, str]:
        """Read one, and add what it imports if that is a memory or a table; return its module and name."""
        key = self.name(), self.name()
        kind = self.byte()
        if kind == 0x00:  # function
            self.number()
        elif kind == 0x01:
            tables.append(self.table(imported=True).size)
        elif kind == 0x02:
            memories.append(self.memory(imported=True).size)
        elif kind == 0x03:  # global
            self.value_type()
            self.skip(1)
        elif kind == 0x04:  # tag
            self.skip(1)
            self.number()
        else:
            raise NotUnderstood(f"an import of the kind {kind:#x}")
        return key

    def export_entry(self) -> tuple[str, int, int]:
        return self.name(), self.byte(), self.number()
