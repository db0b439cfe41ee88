"""What a module calls the functions of its table: the names of the contexts that begin with them."""

from __future__ import annotations

from functools import cached_property

from greenctx.wasix._modules.abi import FUNCTION_TABLE
from greenctx.wasix._modules.binary import NotUnderstood, Reader

_CUSTOM, _IMPORT, _EXPORT, _ELEMENT = 0, 2, 7, 9  # section ids
_FUNCTION, _TABLE = 0, 1  # kinds of imports and exports
_FUNCTION_NAMES = 1  # subsection of the name section
_I32_CONST, _I64_CONST, _REF_FUNC, _REF_NULL, _END = 0x41, 0x42, 0xD2, 0xD0, 0x0B
_PASSIVE, _WITH_TABLE, _EXPRESSIONS = 1, 2, 4  # flags of an element segment


class EntrypointNames:
    """What a module calls the functions that it puts in its table. Read when somebody asks.

    As the linker laid the table out: should the guest put others in their place, they have the names of these.
    """

    def __init__(self, code: bytes) -> None:
        """``code`` is a core module in binary form."""
        self._code = code

    def at(self, index: int) -> str | None:
        """The name of the function at that index of the table, if it has one."""
        return self._by_index.get(index)

    @cached_property
    def _by_index(self) -> dict[int, str]:
        try:
            found = _Names(Reader(self._code, 8))
        except (NotUnderstood, IndexError, UnicodeDecodeError):
            return {}
        return {
            index: found.names.get(function) or f"function[{function}]"
            for (table, index), function in found.elements.items()
            if table == found.table
        }


class _Names:
    """The functions' names, and the active element segments, of one module."""

    def __init__(self, reader: Reader) -> None:
        self.names: dict[int, str] = {}
        self.elements: dict[tuple[int, int], int] = {}
        self.table = -1
        self._exported: dict[int, str] = {}
        while reader.position < len(reader.code):
            section, length = reader.byte(), reader.number()
            end = reader.position + length
            if section == _EXPORT:
                reader.repeat(lambda: self._export(*reader.export_entry()))
            elif section == _ELEMENT:
                self._read_elements(reader)
            elif section == _CUSTOM and reader.name() == "name":
                self._read_names(reader, end)
            reader.position = end
        self.names = self._exported | self.names

    def _export(self, name: str, kind: int, index: int) -> None:
        if kind == _FUNCTION:
            self._exported.setdefault(index, name)
        elif kind == _TABLE and name == FUNCTION_TABLE:
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
            offset = self._read_constant(reader, (_I32_CONST, _I64_CONST)) if active else None
            if flags & (_PASSIVE | _WITH_TABLE):
                reader.value_type()  # or the kind of element, of which there is one
            for index in range(reader.number()):
                expressions = flags & _EXPRESSIONS
                function = self._read_constant(reader, (_REF_FUNC,)) if expressions else reader.number()
                if offset is not None and function is not None:
                    self.elements[table, offset + index] = function

    def _read_constant(self, reader: Reader, opcodes: tuple[int, ...]) -> int | None:
        """The number in a constant expression that is one of those instructions; None for others."""
        start = reader.position
        opcode = reader.byte()
        value = reader.number() if opcode in opcodes else None
        if value is not None and reader.byte() == _END:
            return value
        reader.position = start
        reader.constant_expression()
        return None
