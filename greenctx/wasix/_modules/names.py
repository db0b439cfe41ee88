"""The names of the functions in a module's table, which are the names of the contexts that begin with them."""

from __future__ import annotations

from functools import cached_property

from greenctx._reports.foreign import printable
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


MAX_ELEMENTS = 2**17
"""How many elements of a module's table get names. Large programs put some 20,000 functions in their table."""

MAX_NAME = 1000
"""How many characters of a name are kept, so that a trace does not repeat a name as large as the module."""


class EntrypointNames:
    """The names of the functions that a module puts in its table, read when the first name is asked for.

    The names are those of the initial table, even if the guest has put other functions there since.
    """

    def __init__(self, code: bytes) -> None:
        """``code`` is a core module in binary form."""
        self._code = code

    def at(self, index: int) -> str | None:
        """Return the name of the function at that index of the table, if it has one, with escapes for terminals."""
        found = self._found
        function = None if found is None else found.elements.get(index)
        if found is None or function is None:
            return None
        name = found.names.get(function) or found.exported.get(function) or f"function[{function}]"
        return printable(name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}...")

    @cached_property
    def _found(self) -> _ModuleNames | None:
        try:
            return _ModuleNames(self._code)
        except NotUnderstood:
            return None


class _ModuleNames:
    """The active element segments of the entrypoints' table, and the names of the functions in them.

    Other functions are not kept, because a module may have millions.
    """

    def __init__(self, code: bytes) -> None:
        self.names: dict[int, str] = {}
        """Names by the function's index, from the name section."""
        self.exported: dict[int, str] = {}
        """Names by the function's index, from the exports."""
        self.elements: dict[int, int] = {}
        """The function's index, by its place in the table."""
        self._table = -1
        for section in sections(code):  # exports name the table, and come before elements
            if section.id == EXPORTS:
                self._read_table_export(section.reader(code))
            elif section.id == ELEMENTS:
                self._read_elements(section.reader(code))
        self._wanted = {*self.elements.values()}
        for section in sections(code):
            reader = section.reader(code)
            if section.id == EXPORTS:
                self._read_exports(reader)
            elif section.id == CUSTOM and reader.name() == "name":
                self._read_names(reader, section.end)

    def _read_table_export(self, reader: Reader) -> None:
        for _ in range(reader.number()):
            name, kind, index = reader.export()
            if kind == TABLE and name == FUNCTION_TABLE:
                self._table = index

    def _read_exports(self, reader: Reader) -> None:
        for _ in range(reader.number()):
            name, kind, index = reader.export()
            if kind == FUNCTION and index in self._wanted:
                self.exported.setdefault(index, name)

    def _read_names(self, reader: Reader, end: int) -> None:
        while reader.position < end:
            subsection, length = reader.byte(), reader.number()
            after = reader.position + length
            if subsection == _FUNCTION_NAMES:
                for _ in range(reader.number()):
                    index = reader.number()
                    name = reader.name()
                    if index in self._wanted:
                        self.names[index] = name
            reader.position = after

    def _read_elements(self, reader: Reader) -> None:
        for _ in range(reader.number()):
            flags = reader.number()
            active = not flags & _PASSIVE
            table = reader.number() if active and flags & _WITH_TABLE else 0
            offset = _read_constant(reader, (_I32_CONST, _I64_CONST)) if active else None
            if flags & (_PASSIVE | _WITH_TABLE):
                reader.value_type()  # or the kind of element: one kind exists
            for index in range(reader.number()):
                expressions = flags & _EXPRESSIONS
                function = _read_constant(reader, (_REF_FUNC,)) if expressions else reader.number()
                if table == self._table and offset is not None and function is not None:
                    self.elements[offset + index] = function
                    if len(self.elements) == MAX_ELEMENTS:
                        return


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
