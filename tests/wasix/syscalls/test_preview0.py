"""WASI preview 0: its differences from preview 1, and the presence of all other functions."""

from __future__ import annotations

import io
import logging
from struct import pack, unpack
from typing import TYPE_CHECKING

import pytest
from guests.wasi_guest import BUFFERS, END, ENGINE, EVENT, EVENTS, PREVIEW0_MODULE, RESULT, SUBSCRIPTIONS, WasiGuest
from wasmtime import Module, Store, WasiConfig, WasmtimeError

from greenctx.wasix import InvalidProgram, Linker, Program, Stdio
from greenctx.wasix._files.wasmtime_wasi import PARAMETERS
from greenctx.wasix._program.inspection import inspect_file

if TYPE_CHECKING:
    from pathlib import Path

BADF, FAULT, INVAL, NAMETOOLONG, NOENT, NOTSUP = 8, 21, 28, 37, 44, 58
CURRENT, TO_END, SET = 0, 1, 2  # whence
FILESTAT_1, FILESTAT_0 = "<Q Q B 7x Q Q Q Q Q", "<Q Q B 3x I Q Q Q Q"
HOSTILE = [END, END - 1, 2**31 - 1, 2**31, 2**32 - 1, -1, -4, -(2**31)]


@pytest.fixture
def guest(tmp_path: Path) -> WasiGuest:
    (tmp_path / "file").write_bytes(b"0123456789")
    return WasiGuest(Stdio(b"input", io.BytesIO(), io.BytesIO()), str(tmp_path), module=PREVIEW0_MODULE)


def test_seek(guest: WasiGuest) -> None:
    """The numbers for whence differ."""
    file = guest.open("file")
    for offset, whence, expected in ((4, SET, 4), (2, CURRENT, 6), (-3, TO_END, 7), (-1, CURRENT, 6)):
        assert guest.call("fd_seek", file, offset, whence, RESULT) == 0
        assert guest.result() == expected
    assert guest.read(file, 2) == b"67"
    for whence in (3, 255, 256, -1, 2**31 - 1):
        assert guest.call("fd_seek", file, 0, whence, RESULT) == INVAL
    assert guest.call("fd_seek", 99, 0, SET, RESULT) == BADF


def test_filestat(guest: WasiGuest, tmp_path: Path) -> None:
    """filestat has the same facts, in 56 bytes."""
    (tmp_path / "link").hardlink_to(tmp_path / "file")
    later = WasiGuest(None, str(tmp_path), native=True)
    path = guest.path(b"file")
    later.path(b"file")
    for name, arguments in (("fd_filestat_get", [guest.open("file")]), ("path_filestat_get", [3, 0, *path])):
        assert later.open("file") >= 0
        assert later.call(name, *arguments, BUFFERS) == 0
        guest.put(BUFFERS, b"\xff" * 64)
        assert guest.call(name, *arguments, BUFFERS) == 0
        expected = unpack(FILESTAT_1, later.get(BUFFERS, 64))
        assert unpack(FILESTAT_0, guest.get(BUFFERS, 56)) == expected
        assert expected[3:5] == (2, 10), "links and bytes"
        assert guest.get(BUFFERS + 56, 8) == b"\xff" * 8
    assert guest.call("fd_filestat_get", 99, BUFFERS) == BADF
    assert guest.call("path_filestat_get", 3, 0, *guest.path(b"absent"), BUFFERS) == NOENT
    assert guest.call("path_filestat_get", 3, 0, *guest.path(b"x" * 5000), BUFFERS) == NAMETOOLONG


def subscription(userdata: int, tag: int, subject: int, timeout: int = 0, flags: int = 0) -> bytes:
    head = pack("<Q B 7x", userdata, tag)
    if tag == 0:
        return head + pack("<Q I 4x Q Q H 6x", 77, subject, timeout, 0, flags)
    return head + pack("<I 36x", subject)


def test_poll(guest: WasiGuest) -> None:
    """The number of a clock has another place than that of a descriptor, and a subscription has 56 bytes."""
    asked = [subscription(1, 0, 1, 10**18), subscription(2, 1, 0), subscription(3, 2, 1), subscription(4, 0, 0, 0)]
    guest.put(SUBSCRIPTIONS, b"".join(asked))
    assert guest.call("poll_oneoff", SUBSCRIPTIONS, EVENTS, len(asked), RESULT) == 0
    events = EVENT.iter_unpack(guest.get(EVENTS, guest.result() * EVENT.size))
    assert [event[:3] for event in events] == [(2, 0, 1), (3, 0, 2), (4, 0, 0)]
    guest.put(SUBSCRIPTIONS, subscription(5, 0, 0, 1, flags=1))  # an absolute time
    assert guest.call("poll_oneoff", SUBSCRIPTIONS, EVENTS, 1, RESULT) == 0
    assert guest.call("poll_oneoff", SUBSCRIPTIONS, EVENTS, 0, RESULT) == INVAL
    assert guest.call("poll_oneoff", END - 55, EVENTS, 1, RESULT) == FAULT
    assert guest.call("poll_oneoff", END - 56 * 2, EVENTS, 3, RESULT) == FAULT


@pytest.mark.parametrize("pointer", HOSTILE)
def test_hostile_pointers(pointer: int, guest: WasiGuest) -> None:
    """A pointer to outside of the memory is EFAULT, and nothing is written."""
    file = guest.open("file")
    path, length = guest.path(b"file")
    before = guest.get(0, END)
    assert guest.call("fd_seek", file, 0, SET, pointer) == FAULT
    assert guest.call("fd_filestat_get", file, pointer) == FAULT
    assert guest.call("path_filestat_get", 3, 0, pointer, length, BUFFERS) == FAULT
    assert guest.call("path_filestat_get", 3, 0, path, length, pointer) == FAULT
    assert guest.call("poll_oneoff", pointer, EVENTS, 1, RESULT) == FAULT
    assert guest.call("clock_time_get", 0, 1, pointer) == FAULT
    assert guest.get(0, END) == before


def test_the_end_of_the_memory(guest: WasiGuest) -> None:
    """56 bytes at the very end are enough."""
    assert guest.call("fd_filestat_get", guest.open("file"), END - 56) == 0
    assert guest.call("fd_filestat_get", guest.open("file"), END - 55) == FAULT


ALL = {name: f"{parameters} -> i32".strip() for name, parameters in PARAMETERS.items()} | {
    "poll_oneoff": "i32 i32 i32 i32 -> i32",
    "proc_exit": "i32 ->",
    "proc_raise": "i32 -> i32",
}


def importing(functions: dict[str, str], body: str = "") -> str:
    imports = ""
    for name, ty in functions.items():
        parameters, results = ty.split("->")
        signature = f"(param {parameters}) (result {results})"
        imports += f'(import "wasi_unstable" "{name}" (func ${name} {signature}))\n'
    return f'(module {imports} (memory (export "memory") 1) (func (export "_start") {body}))'


def test_all_of_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every function is there, and a program that imports them runs. A signal cannot be raised."""
    path = tmp_path / "guest.wat"
    path.write_text(importing(ALL, "(call $proc_exit (i32.add (call $proc_raise (i32.const 6)) (i32.const 200)))"))
    found = inspect_file(path)
    assert found.runnable
    assert [one.name for one in found.imports if one.word != "provided"] == ["wasi_unstable.proc_raise"]
    with caplog.at_level(logging.INFO, "greenctx"), Program.from_file(path) as program:
        assert program.run() == 200 + NOTSUP
    assert caplog.messages == ["the guest called wasi_unstable.proc_raise, which greenctx does not provide"]


@pytest.mark.parametrize("functions", [{"sock_accept": "i32 i32 i32 -> i32"}, {"fd_close": "i64 -> i32"}])
def test_refused(functions: dict[str, str]) -> None:
    """Functions or types that preview 0 does not have are refused."""
    with Program(importing(functions).encode()) as program, pytest.raises(InvalidProgram, match="nothing provides"):
        program.run()


@pytest.mark.parametrize(
    ("module", "name", "ty"), [("wasi_unstable", "fd_close", "i32"), ("wasix_32v1", "proc_parent", "i32 i32")]
)
def test_imported_twice(module: str, name: str, ty: str) -> None:
    """A module may import the same function several times."""
    twice = f'(import "{module}" "{name}" (func (param {ty}) (result i32)))' * 2
    with Program(f'(module {twice} (memory (export "memory") 1) (func (export "_start")))'.encode()) as program:
        assert program.run() == 0


def test_it_is_a_part_of_wasi() -> None:
    """A linker has it as soon as it has WASI, and no sooner."""
    module = Module(ENGINE, importing({"fd_close": "i32 -> i32"}))
    linker = Linker(ENGINE)
    linker.define_wasix()
    with pytest.raises(WasmtimeError, match="fd_close"):
        linker.instantiate(Store(ENGINE), module)
    linker.define_wasi()
    store = Store(ENGINE)
    store.set_wasi(WasiConfig())
    linker.instantiate(store, module)
