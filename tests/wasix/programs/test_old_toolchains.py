"""C programs as WASIX's toolchains of 2022 and 2023 made them: WASI's functions imported under WASIX's name."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from guests.compile import TOOLCHAIN, compile_guest

from greenctx.wasix import Program
from greenctx.wasix._modules.binary import IMPORTS, encode_number, encode_section, sections
from greenctx.wasix._modules.sizes import read_import

if TYPE_CHECKING:
    from pathlib import Path


def of_old_toolchain(code: bytes) -> bytes:
    """The module with all of WASI imported from ``wasix_32v1``."""
    (imports,) = [section for section in sections(code) if section.id == IMPORTS]
    reader = imports.reader(code)
    content = encode_number(reader.number())
    while reader.position < imports.end:
        start = reader.position
        wanted = read_import(reader)
        entry = code[start : reader.position]
        if wanted.module == "wasi_snapshot_preview1":
            old = b"wasix_32v1"
            entry = bytes([len(old)]) + old + entry[1 + len(wanted.module) :]
        content += entry
    return code[: imports.begin] + encode_section(IMPORTS, content) + code[imports.end :]


def outcome(code: bytes, directory: Path, *arguments: str) -> tuple[int, bytes]:
    directory.mkdir()
    stdout = io.BytesIO()
    with Program(
        code,
        argv=["guest", *arguments],
        env={"KEY": "value"},
        preopens={"/": directory},
        stdin=b"to read\n",
        stdout=stdout,
        stderr=stdout,
    ) as program:
        return program.run(), stdout.getvalue()


@pytest.mark.parametrize(
    ("guest", "flags", "arguments"),
    [
        ("process", (), ("env",)),
        ("process", (), ("streams",)),
        ("toolchain", ("-O1", *TOOLCHAIN), ()),
        ("toolchain", ("-O1", *TOOLCHAIN), ("abort",)),
        ("endings", (), ("exit", "3")),
        ("reads", (), ("getline",)),
    ],
)
def test_like_the_new_one(guest: str, flags: tuple[str, ...], arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Such a program does what it does with its imports from WASI."""
    code = compile_guest(guest, *flags).read_bytes()
    old = of_old_toolchain(code)
    assert b"wasi_snapshot_preview1" not in old[: old.index(b"fd_write") + 1]
    expected = outcome(code, tmp_path / "new", *arguments)
    assert outcome(old, tmp_path / "old", *arguments) == expected
    assert expected[1] or arguments == ("abort",)
