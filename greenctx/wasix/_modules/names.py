"""What a module calls the functions of its table: the names of the contexts that begin with them."""

from __future__ import annotations

from functools import cached_property

from greenctx.wasix._modules.abi import FUNCTION_TABLE
from greenctx.wasix._modules.binary import (
    CUSTOM,
    ELEMENTS,
    END,
    EXPORTS,
    FUNCTION,
    TABLE,
    NotUnderstood,
    Reader,
    sections,
)

_FUNCTION_NAMES = 1  # subsection of the name section
_I32_CONST, _I64_CONST, _REF_FUNC = 0x41, 0x42, 0xD2
_PASSIVE, _WITH_TABLE, _EXPRESSIONS = 1, 2, 4  # flags of an element segment


class EntrypointNames:
    """What a module calls the functions that it puts in its table. They are read when the first name is asked for.

    The names are those of the table as the linker laid it out, even if the guest has put other functions there since.
    """

    def __init__(self, code: bytes) -> None:
        """``code`` is a core module in binary form."""
        self._code = code

    def at(self, index: int) -> str | None:
        """Return the name of the function at that index of the table, if it has one."""
        return self._by_index.get(index)

    @cached_property
    def _by_index(self) -> dict[int, str]:
        try:
            found = _ModuleNames(self._code)
        except NotUnderstood:
            return {}
        return {
            index: found.names.get(function) or f"function[{function}]"
            for (table, index), function in found.elements.items()
            if table == found.table
        }


class _ModuleNames:
    """The functions' names, and the active element segments, of one module."""

    def __init__(self, code: bytes) -> None:
        self.names: dict[int, str] = {}
        """By the function's index: from the name section, else from an export."""
        self.elements: dict[tuple[int, int], int] = {}
        """The index of the function, by the table's index and the place in the table."""
        self.table = -1
        """The index of the table that entrypoints are from."""
        self._exported: dict[int, str] = {}
        for section in sections(code):
            reader = section.reader(code)
            if section.id == EXPORTS:
                self._read_exports(reader)
            elif section.id == ELEMENTS:
                self._read_elements(reader)
            elif section.id == CUSTOM and reader.name() == "name":
                self._read_names(reader, section.end)
        self.names = self._exported | self.names

    def _read_exports(self, reader: Reader) -> None:
        for _ in range(reader.number()):
            name, kind, index = reader.export()
            if kind == FUNCTION:
                self._exported.setdefault(index, name)
            elif kind == TABLE and name == FUNCTION_TABLE:
                self.table = index

    def _read_names(self, reader: Reader, end: int) -> None:
        while reader.position < end:
            subsection, length = reader.byte(), reader.number()
            after = reader.position + length
            if subsection == _FUNCTION_NAMES:
                for _ in range(reader.number()):
                    index = reader.number()
                    self.names[index] = reader.name()
            reader.position = after

    def _read_elements(self, reader: Reader) -> None:
        for _ in range(reader.number()):
            flags = reader.number()
            active = not flags & _PASSIVE
            table = reader.number() if active and flags & _WITH_TABLE else 0
            offset = _read_constant(reader, (_I32_CONST, _I64_CONST)) if active else None
            if flags & (_PASSIVE | _WITH_TABLE):
                reader.value_type()  # or the kind of element, of which there is one
            for index in range(reader.number()):
                expressions = flags & _EXPRESSIONS
                function = _read_constant(reader, (_REF_FUNC,)) if expressions else reader.number()
                if offset is not None and function is not None:
                    self.elements[table, offset + index] = function


def _read_constant(reader: Reader, opcodes: tuple[int, ...]) -> int | None:
    """Read a constant expression. Return its number if it is one of those instructions, else None."""
    start = reader.position
    opcode = reader.byte()
    value = reader.number() if opcode in opcodes else None
    if value is not None and reader.byte() == END:
        return value
    reader.position = start
    reader.constant_expression()
    return None
