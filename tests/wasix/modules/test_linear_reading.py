"""The work of greenctx's own code is proportional to the module's size: counted in lines of Python, not in seconds."""

from __future__ import annotations

import sys
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
import wasmtime
from wasmtime import Engine, Module, Store

from greenctx.wasix import Limits, Linker, Program
from greenctx.wasix._modules import names
from greenctx.wasix._modules.binary import encode_number, encode_section
from greenctx.wasix._modules.names import EntrypointNames
from greenctx.wasix._modules.shared_memory import unshare_memory
from greenctx.wasix._modules.sizes import Sizes
from greenctx.wasix._program.inspection import inspect_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType

START_EXPORT = b"\6_start\0\0"
TABLE_EXPORT = b"\x19__indirect_function_table\1\0"
SMALL, TWICE = 400, 800
MOST = 2.2
"""Times the lines, for twice the entries. (Their numbers become longer, too.) A quadratic reader takes four times."""


def module(exports: int = 0, elements: int = 1, segments: int = 0, functions: int = 0, imports: int = 0) -> bytes:
    """Return a command with so many entries in its sections."""
    entries = b"".join(b"\7e%06d\0\0" % number for number in range(exports))
    wanted = b"".join(b"\1m\6%06d\0\0" % number for number in range(imports))
    named = b"".join(encode_number(number) + b"\2fn" for number in range(functions))
    segment = b"\0\x41\0\x0b" + encode_number(elements) + b"\0" * elements
    return b"\0asm\1\0\0\0" + b"".join(
        encode_section(section_id, content)
        for section_id, content in (
            (1, b"\1\x60\0\0"),
            (2, encode_number(imports) + wanted),
            (3, encode_number(functions + 1) + b"\0" * (functions + 1)),
            (4, b"\1\x70\0" + encode_number(elements + 1)),
            (7, encode_number(exports + 2) + START_EXPORT + TABLE_EXPORT + entries),
            (9, encode_number(segments + 1) + b"\0\x41\0\x0b\1\0" * segments + segment),
            (10, encode_number(functions + 1) + b"\2\0\x0b" * (functions + 1)),
            (0, b"\4name\1" + encode_number(len(encode_number(functions) + named)) + encode_number(functions) + named),
        )
    )


def lines(function: Callable[[], object]) -> int:
    """Count the lines of Python that it runs. Comprehensions count once for each of their steps."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count


READERS: dict[str, Callable[[bytes], object]] = {
    "names": lambda code: EntrypointNames(code).at(0),
    "sizes": lambda code: Sizes(code).with_maxima([], [2**20]),
    "shared memory": unshare_memory,
    "limits": lambda code: Limits(memory=2**30).cap("guest", code),
}


@pytest.mark.parametrize("section", ["exports", "elements", "segments", "functions", "imports"])
@pytest.mark.parametrize("reader", READERS)
def test_readers(reader: str, section: str) -> None:
    """Twice the entries are at most twice the lines."""
    small, twice = (module(**{section: size}) for size in (SMALL, TWICE))
    assert lines(lambda: READERS[reader](twice)) <= MOST * lines(lambda: READERS[reader](small))


@pytest.mark.parametrize("section", ["exports", "elements", "segments", "functions"])
def test_programs(section: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To load and run a program takes lines in proportion, and nothing reads all exports of an instance.

    For an export by its number wasmtime walks over all exports before it, so reading all takes quadratic time.
    """
    monkeypatch.setattr(wasmtime.Instance, "exports", None)

    def run(size: int) -> int:
        code = module(**{section: size})
        return lines(lambda: Program(code, limits=Limits(memory=2**30)).run())

    run(1)  # imports and caches
    assert run(TWICE) <= MOST * run(SMALL)


def test_inspection(tmp_path: Path) -> None:
    """Exports and missing imports are looked up, not searched."""
    found = {}
    for size in (1, SMALL, TWICE):
        path = tmp_path / "guest.wasm"
        path.write_bytes(module(exports=size, imports=size))
        found[size] = lines(lambda path=path: inspect_file(path))  # type: ignore[misc]
    assert found[TWICE] <= MOST * found[SMALL]


def test_modules_in_a_linker(monkeypatch: pytest.MonkeyPatch) -> None:
    """An embedder's `Linker.define_module` does not read all exports of the instance either."""
    monkeypatch.setattr(wasmtime.Instance, "exports", None)
    engine = Engine()
    store, linker = Store(engine), Linker(engine)
    linker.define_module(store, "m", Module(engine, '(module (func (export "a")) (func (export "_initialize")))'))
    linker.define_module(store, "c", Module(engine, '(module (func (export "_start")))'))
    assert isinstance(linker.get(store, "m", "a"), wasmtime.Func)


@pytest.mark.parametrize("section", ["exports", "elements", "segments", "functions"])
def test_memory_for_names(section: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the names of entrypoints are kept, and only a bounded number of them."""
    monkeypatch.setattr(names, "MAX_ELEMENTS", 100)
    code = module(**{section: 50_000})
    tracemalloc.start()
    try:
        assert EntrypointNames(code).at(0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(code) + 65536


def test_long_names() -> None:
    """A name is shown up to a thousand characters, so contexts cannot repeat a module's size."""
    entry = b"\0" + encode_number(3000) + b"n" * 3000
    subsection = b"\1" + encode_number(1 + len(entry)) + b"\1" + entry
    code = module() + encode_section(0, b"\4name" + subsection)
    assert EntrypointNames(code).at(0) == "n" * names.MAX_NAME + "..."
