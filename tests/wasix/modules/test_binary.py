"""The reader of a module's sections: linear in the module's size, whatever a hostile module says of itself."""

from __future__ import annotations

import time
import tracemalloc
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from wasmtime import wat2wasm

from greenctx.wasix._modules.binary import (
    HEADER,
    NotUnderstood,
    Reader,
    encode_number,
    encode_section,
    replace,
    sections,
)
from greenctx.wasix._modules.names import EntrypointNames
from greenctx.wasix._modules.shared_memory import unshare_memory
from greenctx.wasix._modules.sizes import Sizes

if TYPE_CHECKING:
    from collections.abc import Callable

EMPTY = b"\0asm\1\0\0\0"
SHARED = b"\3env\6memory\2\3\1\2"  # the import of a shared memory of 1 to 2 pages
COUNT = 2**69  # ten bytes as LEB128
SECONDS = 5.0
"""Many times the time of a linear reader."""


def test_sections() -> None:
    """Sections are yielded with their places, and cover the module."""
    code = bytes(wat2wasm('(module (import "a" "f" (func)) (memory 1) (export "m" (memory 0)))'))
    found = [*sections(code)]
    assert [section.id for section in found] == [1, 2, 5, 7]
    assert [section.begin for section in found] == [HEADER, *(section.end for section in found[:-1])]
    assert found[-1].end == len(code)
    assert EMPTY + b"".join(encode_section(one.id, code[one.start : one.end]) for one in found) == code
    for end in range(HEADER + 1, found[0].end):
        with pytest.raises(NotUnderstood):
            [*sections(code[:end])]


def test_reader_stays_in_its_section() -> None:
    """Neither a name nor a skip reads what comes after the end."""
    for content in (b"\5abcd", b"\x80", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7fabcd"):
        with pytest.raises(NotUnderstood):
            Reader(content + b"efgh", 0, len(content)).name()
    reader = Reader(b"abcd", 0, 2)
    reader.skip(2)
    for read in (reader.peek, reader.byte, reader.number):
        with pytest.raises(NotUnderstood):
            read()


@pytest.mark.parametrize("number", [0, 1, 127, 128, 16383, 16384, 2**32 - 1, 2**63, COUNT])
def test_numbers(number: int) -> None:
    """Numbers are read in any valid length, up to ten bytes."""
    encoded = encode_number(number)
    assert Reader(encoded, 0, len(encoded)).number() == number
    with pytest.raises(NotUnderstood):
        Reader(b"\x80" * 10 + encoded, 0, 20).number()


def test_replace() -> None:
    """Replacements may come in any order; an insertion comes before what is replaced there."""
    assert replace(b"abcdef", [(4, 6, b"Y"), (1, 2, b"X"), (1, 1, b"<"), (6, 6, b"1"), (6, 6, b"2")]) == b"a<XcdY12"


HOSTILE: dict[str, Callable[[], bytes]] = {
    "many empty sections": lambda: EMPTY + b"\0\1\0" * 40_000,
    "many imports": lambda: EMPTY + encode_section(2, encode_number(40_001) + b"\0\0\0\0" * 40_000 + SHARED),
    "many exports of one memory": lambda: (
        EMPTY + encode_section(5, b"\1\0\1") + encode_section(7, encode_number(100_000) + b"\0\2\0" * 100_000)
    ),
    "counts without entries": lambda: EMPTY + b"".join(encode_section(one, encode_number(COUNT)) for one in (2, 7, 9)),
    "names that go on after their section": lambda: EMPTY + encode_section(0, b"\4name\1\3\x7f\1\x7f") * 100_000,
    "long numbers": lambda: EMPTY + encode_section(2, b"\xff" * 300_000),
}


def names(code: bytes) -> object:
    return EntrypointNames(code).at(0)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("read", [unshare_memory, Sizes, names])
def test_hostile(name: str, read: Callable[[bytes], object]) -> None:
    """Reading takes seconds at most, and memory in proportion to the module."""
    code = HOSTILE[name]()
    began = time.process_time()
    with suppress(NotUnderstood):
        read(code)
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize("name", ["many empty sections", "many imports", "counts without entries", "long numbers"])
def test_memory(name: str) -> None:
    """No objects are kept of the sections and imports that do not matter."""
    code = HOSTILE[name]()
    tracemalloc.start()
    try:
        unshare_memory(code)
        with suppress(NotUnderstood):
            Sizes(code)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(code) + 65536
