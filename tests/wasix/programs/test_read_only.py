"""Directories that a guest may read but not change: wasmtime refuses each call, also where greenctx serves the call."""

from __future__ import annotations

import io
import os
import pickle
from typing import TYPE_CHECKING

import pytest
from processes import run_greenctx

from greenctx.wasix import InvalidProgram, Program, ReadOnly
from greenctx.wasix._files.wasmtime_wasi import PARAMETERS

if TYPE_CHECKING:
    from pathlib import Path

BADF, INVAL, NOTSUP, PERM = 8, 28, 58, 63
RO, RW = 3, 4  # the descriptors of the directories
READ, WRITE = 2, 64  # rights
CREATE, DIRECTORY, TRUNCATE = 1, 2, 8
ATIM_NOW_MTIM_NOW = 2 | 8

NAMES = {"file": 256, "new": 272, "dir": 288, "mine": 304, "link": 320, "/ro/file": 336, "/ro/new": 352}
OPENED = 64
"""Where the guest stores the descriptor that it has opened."""

Call = tuple[str, list[int | str]]


def path(name: str) -> list[int]:
    return [NAMES[name], len(name)]


def opening(name: str, *, oflags: int = 0, rights: int = READ, fdflags: int = 0, fd: int = RO) -> Call:
    return "path_open", [fd, 0, *path(name), oflags, rights, 0, fdflags, OPENED]


CHANGES: dict[str, Call] = {
    "open to write": opening("file", rights=WRITE),
    "open to read and write": opening("file", rights=READ | WRITE),
    "open to append": opening("file", rights=WRITE, fdflags=1),
    "truncate": opening("file", oflags=TRUNCATE, rights=WRITE),
    "truncate without the right to write": opening("file", oflags=TRUNCATE),
    "create": opening("new", oflags=CREATE, rights=WRITE),
    "create without the right to write": opening("new", oflags=CREATE),
    "make a directory": ("path_create_directory", [RO, *path("new")]),
    "remove a directory": ("path_remove_directory", [RO, *path("dir")]),
    "remove a file": ("path_unlink_file", [RO, *path("file")]),
    "rename within": ("path_rename", [RO, *path("file"), RO, *path("new")]),
    "rename out of it": ("path_rename", [RO, *path("file"), RW, *path("new")]),
    "rename into it": ("path_rename", [RW, *path("mine"), RO, *path("new")]),
    "link within": ("path_link", [RO, 0, *path("file"), RO, *path("new")]),
    "link out of it": ("path_link", [RO, 0, *path("file"), RW, *path("new")]),
    "link into it": ("path_link", [RW, 0, *path("mine"), RO, *path("new")]),
    "make a symbolic link": ("path_symlink", [*path("file"), RO, *path("new")]),
    "set times": ("path_filestat_set_times", [RO, 0, *path("file"), 0, 0, ATIM_NOW_MTIM_NOW]),
}
"""Calls that change a directory, by its path."""

ABSOLUTE: dict[str, Call] = {
    "open to write": opening("/ro/file", rights=WRITE),
    "create": opening("/ro/new", oflags=CREATE, rights=WRITE),
    "remove a file": ("path_unlink_file", [RO, *path("/ro/file")]),
    "rename": ("path_rename", [RW, *path("/ro/file"), RW, *path("new")]),
    "link": ("path_link", [RW, 0, *path("/ro/file"), RW, *path("new")]),
    "make a symbolic link": ("path_symlink", [*path("file"), RW, *path("/ro/new")]),
    "set times": ("path_filestat_set_times", [RW, 0, *path("/ro/file"), 0, 0, ATIM_NOW_MTIM_NOW]),
}
"""The calls by paths from the root, which only programs of WASIX use."""

OF_OPEN_FILES: dict[str, Call] = {
    "write": ("fd_write", ["opened", 0, 1, 96]),
    "write at a place": ("fd_pwrite", ["opened", 0, 1, 0, 96]),
    "set the size": ("fd_filestat_set_size", ["opened", 0]),
    "set times": ("fd_filestat_set_times", ["opened", 0, 0, ATIM_NOW_MTIM_NOW]),
    "allocate": ("fd_allocate", ["opened", 0, 10_000]),
}


@pytest.fixture
def directories(tmp_path: Path) -> Path:
    for name in ("ro/dir", "rw"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "ro/file").write_text("content")
    (tmp_path / "ro/link").symlink_to("file")
    (tmp_path / "rw/mine").write_text("mine")
    for name in ("ro/file", "ro/dir", "ro"):
        os.utime(tmp_path / name, (1, 1))
    return tmp_path


def state(directory: Path) -> list[object]:
    """Everything that a guest could change."""
    found = [directory, *sorted(directory.rglob("*"))]
    stats = [each.lstat() for each in found]
    return [(str(each), stat.st_mode, stat.st_nlink, stat.st_mtime) for each, stat in zip(found, stats, strict=True)]


def run(directories: Path, *calls: Call, wasix: bool = False) -> int:
    """Run a guest that makes the calls; return the errno of the last one. The others have to succeed."""
    names = sorted({name for name, _ in calls})
    imports = "".join(
        f'(import "wasi_snapshot_preview1" "{name}" (func ${name} (param {PARAMETERS[name]}) (result i32)))'
        for name in names
    )
    if wasix:
        imports += '(import "wasix_32v1" "getcwd" (func (param i32 i32) (result i32)))'
    data = "".join(f'(data (i32.const {address}) "{name}")' for name, address in NAMES.items())
    texts = []
    for name, arguments in calls:
        types = PARAMETERS[name].split()
        given = " ".join(
            f"(i32.load (i32.const {OPENED}))" if argument == "opened" else f"({ty}.const {argument})"
            for ty, argument in zip(types, arguments, strict=True)
        )
        texts.append(f"(call ${name} {given})")
    before = "".join(f"(if {text} (then unreachable))" for text in texts[:-1])
    guest = f"""(module {imports} (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
      (memory (export "memory") 1) (data (i32.const 0) "\\00\\04\\00\\00\\04") {data}
      (func (export "_start") {before} (call $exit {texts[-1]})))"""
    preopens: dict[str, str | ReadOnly] = {"/ro": ReadOnly(directories / "ro"), "/rw": str(directories / "rw")}
    with Program(guest.encode(), preopens=preopens, stdin=b"", stdout=io.BytesIO()) as program:
        return program.run()


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("wasix", [False, True])
def test_changes_are_refused(what: str, wasix: bool, directories: Path) -> None:
    """Each call is EPERM, and nothing has changed."""
    before = state(directories)
    assert run(directories, CHANGES[what], wasix=wasix) == PERM
    assert state(directories) == before


@pytest.mark.parametrize("what", ABSOLUTE)
def test_changes_by_paths_from_the_root_are_refused(what: str, directories: Path) -> None:
    """The preopened directory of the path decides, not the one whose descriptor is given."""
    before = state(directories)
    assert run(directories, ABSOLUTE[what], wasix=True) == PERM
    assert state(directories) == before


@pytest.mark.parametrize("what", OF_OPEN_FILES)
@pytest.mark.parametrize("wasix", [False, True])
def test_open_files(what: str, wasix: bool, directories: Path) -> None:
    """A file opened to read cannot be changed by its descriptor."""
    before = state(directories)
    name, arguments = OF_OPEN_FILES[what]
    assert run(directories, opening("file"), (name, arguments), wasix=wasix) in (BADF, INVAL, NOTSUP, PERM)
    assert state(directories) == before
    assert (directories / "ro/file").read_text() == "content"


def test_directories_within(directories: Path) -> None:
    """A directory opened within a read-only one is read-only, too. So is the directory itself."""
    before = state(directories)
    opened = opening("dir", oflags=DIRECTORY)
    assert run(directories, opened, ("path_create_directory", ["opened", *path("new")])) == PERM
    assert run(directories, opened, opening("new", oflags=CREATE, rights=WRITE)) == PERM
    times: Call = ("fd_filestat_set_times", [RO, 0, 0, ATIM_NOW_MTIM_NOW])
    assert run(directories, times) == PERM
    assert state(directories) == before


@pytest.mark.parametrize("wasix", [False, True])
def test_reading(wasix: bool, directories: Path) -> None:
    """The guest reads files, links, directories and their facts; it may change the other directory."""
    calls: list[Call] = [
        opening("file"),
        ("fd_read", ["opened", 0, 1, 96]),
        ("fd_pread", ["opened", 0, 1, 0, 96]),
        ("fd_filestat_get", ["opened", 128]),
        ("path_filestat_get", [RO, 0, *path("file"), 128]),
        ("path_readlink", [RO, *path("link"), 1024, 64, 96]),
        ("fd_readdir", [RO, 1024, 512, 0, 96]),
        ("path_rename", [RW, *path("mine"), RW, *path("new")]),
    ]
    assert run(directories, *calls, wasix=wasix) == 0
    assert (directories / "rw/new").read_text() == "mine"


def test_command_line(directories: Path) -> None:
    """``--dir HOST::GUEST::ro`` works. Any other third part is refused."""
    guest = directories / "guest.wat"
    guest.write_text(
        """(module (import "wasi_snapshot_preview1" "path_unlink_file" (func $unlink (param i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1) (data (i32.const 0) "file")
        (func (export "_start") (call $exit (call $unlink (i32.const 3) (i32.const 0) (i32.const 4)))))"""
    )
    ran = run_greenctx("run", "--dir", f"{directories / 'ro'}::/data::ro", guest)
    assert (ran.returncode, ran.stderr) == (PERM, b"")
    for end in ("::/data::rw", "::/data::ro::ro", "::::ro", "::/data::"):
        ran = run_greenctx("run", "--dir", f"{directories / 'ro'}{end}", guest)
        assert ran.returncode == 2
        assert ran.stderr.endswith(b"is not HOST, HOST::GUEST or HOST::GUEST::ro\n")
    assert run_greenctx("run", "--dir", f"{directories / 'ro'}::/data", guest).returncode == 0
    assert not (directories / "ro/file").exists()


def test_values(directories: Path) -> None:
    """A read-only directory is a path with a repr, and can be pickled with its program."""
    directory = ReadOnly(directories / "ro")
    assert os.fspath(directory) == str(directories / "ro")
    assert repr(directory) == f"ReadOnly({str(directories / 'ro')!r})"
    assert os.fspath(pickle.loads(pickle.dumps(directory))) == os.fspath(directory)
    with pytest.raises(InvalidProgram, match="nowhere' to preopen is not there"):
        Program(b"", preopens={"/": ReadOnly("nowhere")})
