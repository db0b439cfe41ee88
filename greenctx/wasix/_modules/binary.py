"""WebAssembly's binary format (core specification, chapter 5): a module's sections, and the values in them.

Modules may be hostile. Reading takes time in proportion to a module's size, whatever counts and lengths it declares: a
reader never leaves its section, and each entry takes at least one byte of it. Sections are not copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HEADER: Final = 8
"""Bytes before the first section."""

# Ids of sections.
CUSTOM: Final = 0
IMPORTS: Final = 2
TABLES: Final = 4
MEMORIES: Final = 5
EXPORTS: Final = 7
ELEMENTS: Final = 9

# Kinds of imports and exports.
FUNCTION: Final = 0
TABLE: Final = 1
MEMORY: Final = 2
GLOBAL: Final = 3
TAG: Final = 4

END: Final = 0x0B
_NULLABLE, _NOT_NULLABLE = 0x63, 0x64  # first byte of a reference type in full form


class NotUnderstood(Exception):
    """The binary is not valid, or uses a form that this package does not know."""


class Section(NamedTuple):
    """The place of a section in a module: its header begins at ``begin``, its content is from ``start`` to ``end``."""

    id: int
    begin: int
    start: int
    end: int

    def reader(self, code: bytes) -> Reader:
        """Return a reader of the section's content."""
        return Reader(code, self.start, self.end)


def sections(code: bytes) -> Iterator[Section]:
    """Yield the sections of a module. Raises `NotUnderstood` at a section that the end of the module cuts off."""
    reader = Reader(code, HEADER, len(code))
    while reader.position < len(code):
        begin = reader.position
        section_id, size = reader.byte(), reader.number()
        section = Section(section_id, begin, reader.position, reader.position + size)
        if section.end > len(code):
            raise NotUnderstood(f"section {section_id} does not end where it should")
        yield section
        reader.position = section.end


def encode_section(section_id: int, content: bytes) -> bytes:
    """Return a section, with its header."""
    return bytes([section_id]) + encode_number(len(content)) + content


def encode_number(number: int) -> bytes:
    """Return an unsigned LEB128 number."""
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def replace(code: bytes, replacements: Iterable[tuple[int, int, bytes]]) -> bytes:
    """Return the code with ranges replaced by other bytes. Two insertions at one place keep their order."""
    parts: list[bytes] = []
    position = 0
    for start, end, content in sorted(replacements, key=lambda one: one[:2]):
        parts += [code[position:start], content]
        position = end
    return b"".join([*parts, code[position:]])


class Reader:
    """Reads values, one after the other, up to the end of a section or module. Raises `NotUnderstood` there."""

    def __init__(self, code: bytes, position: int, end: int) -> None:
        self.code = code
        self.position = position
        self._end = end

    def peek(self) -> int:
        """Return the next byte without reading past it."""
        if self.position >= self._end:
            raise NotUnderstood("it ends in the middle, or is not a module")
        return self.code[self.position]

    def byte(self) -> int:
        """Read a byte."""
        byte = self.peek()
        self.position += 1
        return byte

    def skip(self, count: int) -> None:
        """Skip bytes. If there are fewer, the next read raises `NotUnderstood`."""
        self.position += count

    def number(self) -> int:
        """Read an unsigned LEB128 number, or skip a signed one."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise NotUnderstood("a number of more than ten bytes")

    def name(self) -> str:
        """Read a name."""
        length = self.number()
        start = self.position
        self.skip(length)
        if self.position > self._end:
            raise NotUnderstood("it ends in the middle of a name")
        try:
            return self.code[start : self.position].decode()
        except UnicodeDecodeError:
            raise NotUnderstood("a name that is not UTF-8") from None

    def export(self) -> tuple[str, int, int]:
        """Read an export: its name, its kind, and the index of what it exports."""
        return self.name(), self.byte(), self.number()

    def value_type(self) -> None:
        """Skip a type."""
        if self.byte() in (_NULLABLE, _NOT_NULLABLE):
            self.number()

    def constant_expression(self) -> None:
        """Skip a constant expression."""
        while (opcode := self.byte()) != END:
            if opcode in (0x23, 0x41, 0x42, 0xD0, 0xD2):  # global.get, i32.const, i64.const, ref.null, ref.func
                self.number()
            elif opcode in (0x43, 0x44):  # f32.const, f64.const
                self.skip(4 if opcode == 0x43 else 8)
            elif opcode == 0xFD:  # v128.const
                if self.number() != 12:
                    raise NotUnderstood("a vector instruction in a constant expression")
                self.skip(16)
            elif opcode == 0xFB:
                self._reference_instruction()
            elif opcode not in (0x6A, 0x6B, 0x6C, 0x7C, 0x7D, 0x7E):  # add, sub and mul of i32 and of i64
                raise NotUnderstood(f"the instruction {opcode:#x} in a constant expression")

    def _reference_instruction(self) -> None:
        opcode = self.number()
        if opcode in (0, 1, 6, 7):  # struct.new, struct.new_default, array.new, array.new_default
            self.number()
        elif opcode == 8:  # array.new_fixed
            self.number()
            self.number()
        elif opcode not in (26, 27, 28):  # any.convert_extern, extern.convert_any, ref.i31
            raise NotUnderstood(f"the instruction 0xfb {opcode} in a constant expression")
