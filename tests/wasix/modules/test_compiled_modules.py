"""The cache of compiled modules: it serves only the same module, only whole files, and never causes an error."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from processes import TIMEOUT, run_greenctx
from wasmtime import wat2wasm

from greenctx.cli import main
from greenctx.wasix import Program
from greenctx.wasix._modules import cache
from greenctx.wasix._modules.cache import ModuleCache
from greenctx.wasix._modules.compile import compile_binary

if TYPE_CHECKING:
    from collections.abc import Iterator

EXITS = (
    '(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32))) (memory (export "memory") 1) {})'
)
SEVEN = EXITS.format('(func (export "_start") (call $exit (i32.const 7)))')
EIGHT = EXITS.format('(func (export "_start") (call $exit (i32.const 8)))')
CATCHES = EXITS.format(
    """(tag $e (param i32))
    (func (export "_start")
      (call $exit
        (block $caught (result i32) (try_table (catch $e $caught) (throw $e (i32.const 9))) (i32.const 1))))"""
)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "greenctx"


@pytest.fixture
def kept(directory: Path) -> ModuleCache:
    found = ModuleCache.of_the_user()
    assert found is not None
    assert Path(found.directory) == directory
    return found


def run(text: str) -> int:
    with Program(text.encode(), cache=True) as program:
        return program.run()


def the_file(directory: Path) -> Path:
    (file,) = directory.iterdir()
    return file


def forbid_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_it(*_: object, **__: object) -> None:
        raise AssertionError("it is compiled once more")

    monkeypatch.setattr("greenctx.wasix._modules.compile.compile_binary", compile_it)


@pytest.mark.parametrize(("text", "status"), [(SEVEN, 7), (CATCHES, 9)], ids=["plain", "with the collector"])
def test_once(text: str, status: int, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next process loads the compiled module, which does the same."""
    assert run(text) == status
    assert the_file(directory).stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700
    forbid_compiling(monkeypatch)
    assert run(text) == status


def test_others(directory: Path) -> None:
    """Each module has its own, also where a limit makes another one of it."""
    assert (run(SEVEN), run(EIGHT), run(SEVEN), run(EIGHT)) == (7, 8, 7, 8)
    assert len([*directory.iterdir()]) == 2


def test_only_if_asked(directory: Path) -> None:
    """A Program keeps nothing by itself, and the command line nothing with --no-cache."""
    with Program(SEVEN.encode()) as program:
        assert program.run() == 7
    file = directory.parent / "seven.wat"
    file.write_text(SEVEN)
    assert main(["run", "--no-cache", str(file)]) == 7
    assert not directory.exists()
    assert main(["run", str(file)]) == 7
    assert the_file(directory)


def test_damage(kept: ModuleCache, directory: Path) -> None:
    """A file of which any bit is another one, or that ends early or late, is not used."""
    kept.keep(b"code", False, b"compiled")
    assert kept.find(b"code", False) == b"compiled"
    file = the_file(directory)
    whole = file.read_bytes()
    damaged = [whole[:end] for end in range(len(whole))] + [whole + b"\0", bytes(len(whole)), whole * 2]
    for position in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[position] ^= 1 << bit
            damaged.append(bytes(changed))
    for content in damaged:
        file.write_bytes(content)
        assert kept.find(b"code", False) is None
    kept.keep(b"code", False, b"compiled")
    assert kept.find(b"code", False) == b"compiled"


def test_mistaken_identity(kept: ModuleCache, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache never returns the file of another module, other settings, or another wasmtime, even of the same
    name."""
    monkeypatch.setattr(kept, "_path", lambda _: str(directory / "one"))
    kept.keep(b"code", False, b"compiled")
    assert kept.find(b"code", False) == b"compiled"
    assert kept.find(b"codE", False) is None
    assert kept.find(b"cod", False) is None
    assert kept.find(b"codecompiled", False) is None
    assert kept.find(b"code", True) is None
    library = directory.parent / "libwasmtime"
    library.write_bytes(b"50.0.1")
    monkeypatch.setattr(cache, "LIBRARY", library)
    assert kept.find(b"code", False) is None
    kept.keep(b"code", False, b"compiled")
    assert kept.find(b"code", False) == b"compiled"
    installed = library.stat().st_mtime_ns
    library.write_bytes(b"50.0.10")
    os.utime(library, ns=(installed, installed))
    assert kept.find(b"code", False) is None
    library.write_bytes(b"50.0.2")
    os.utime(library, ns=(installed, installed + 1))
    assert kept.find(b"code", False) is None
    library.unlink()  # as where it is being replaced
    assert kept.find(b"code", False) is None
    kept.keep(b"code", False, b"compiled")


@pytest.mark.parametrize("content", [b"", b"nonsense" * 1000, b"\x7fELF" + bytes(5000)])
def test_what_wasmtime_refuses(content: bytes, kept: ModuleCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the file is for another processor, the module is compiled and replaces it."""
    binary = bytes(wat2wasm(SEVEN))
    kept.keep(binary, False, content)
    assert run(SEVEN) == 7
    assert len(kept.find(binary, False) or b"") > 5004
    forbid_compiling(monkeypatch)
    assert run(SEVEN) == 7


def test_read_only(kept: ModuleCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be marked as used is used, too."""
    kept.keep(b"code", False, b"compiled")

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "utime", refuse)
    assert kept.find(b"code", False) == b"compiled"


def test_somebody_else(kept: ModuleCache, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever another user may have written is not used: it would be run. Nor is what is no file."""
    kept.keep(b"code", False, b"compiled")
    file = the_file(directory)
    for mode in (0o620, 0o602, 0o666):
        file.chmod(mode)
        assert kept.find(b"code", False) is None
    file.chmod(0o600)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
        assert kept.find(b"code", False) is None
        kept.keep(b"other code", False, b"compiled")
    directory.chmod(0o770)
    kept.keep(b"other code", False, b"compiled")
    directory.chmod(0o700)
    assert the_file(directory) == file
    assert kept.find(b"code", False) == b"compiled"
    file.rename(directory.parent / "elsewhere")
    file.symlink_to(directory.parent / "elsewhere")
    assert kept.find(b"code", False) is None
    file.unlink()
    os.mkfifo(file, 0o600)
    assert kept.find(b"code", False) is None
    writer = os.open(file, os.O_RDWR)
    assert kept.find(b"code", False) is None
    os.close(writer)
    file.unlink()
    file.mkdir()
    assert kept.find(b"code", False) is None
    kept.keep(b"code", False, b"compiled")
    assert [*directory.iterdir()] == [file]


def without_a_cache(tmp_path: Path) -> Iterator[dict[str, str | None]]:
    """Environments in which nothing can be kept, or only just."""
    (tmp_path / "file").write_text("")
    (tmp_path / "home" / ".cache").mkdir(parents=True)
    (tmp_path / "home" / ".cache" / "greenctx").write_text("")
    yield {"HOME": None, "XDG_CACHE_HOME": None}
    for home in ("/dev/null", "/proc", "relative", str(tmp_path / "file"), str(tmp_path / "home")):
        yield {"HOME": home, "XDG_CACHE_HOME": None}
    yield {"HOME": str(tmp_path), "XDG_CACHE_HOME": "/dev/null"}
    yield {"HOME": "/dev/null", "XDG_CACHE_HOME": "relative"}


def test_nowhere_to_keep_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a home, with one that cannot be written to, or with a file in place of the directory: it runs."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "seven.wat"
    file.write_text(SEVEN)
    for variables in without_a_cache(tmp_path):
        env = {key: value for key, value in {**os.environ, **variables}.items() if value is not None}
        if variables["HOME"] is None:  # the system knows another one
            ran = subprocess.run(
                [sys.executable, "-c", NO_HOME, file], env=env, capture_output=True, timeout=TIMEOUT, check=False
            )
        else:
            ran = run_greenctx("run", file, env=env)
        assert (ran.returncode, ran.stdout, ran.stderr) == (7, b"", b""), variables
    assert not (tmp_path / "relative").exists()


NO_HOME = """
import os, sys
os.path.expanduser = lambda path: path  # as where the system does not know the user either
from greenctx.cli import main
sys.exit(main(["run", sys.argv[1]]))
"""


def test_side_by_side(directory: Path) -> None:
    """Processes that run the same at once keep one file, and each does what it should."""
    file = directory.parent / "seven.wat"
    file.write_text(SEVEN)
    command = [sys.executable, "-m", "greenctx", "run", str(file)]
    for _ in range(2):
        running = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
        for process in running:
            assert process.communicate(timeout=TIMEOUT)[1] == b""
            assert process.returncode == 7
    assert the_file(directory).suffix == ""


def test_interrupted(kept: ModuleCache, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interruption in the middle of it leaves nothing behind, neither does a full disk."""
    for error in (KeyboardInterrupt(), OSError(28, "No space left on device")):

        def replace(*_: object, error: BaseException = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            if isinstance(error, OSError):
                kept.keep(b"code", False, b"compiled")
            else:
                with pytest.raises(KeyboardInterrupt):
                    kept.keep(b"code", False, b"compiled")
        assert [*directory.iterdir()] == []


def test_not_too_much(
    kept: ModuleCache, directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The least recently used modules are evicted; a module larger than the whole cache is not kept."""
    monkeypatch.setattr(cache, "MAX_BYTES", 40_000)
    (directory / "a directory").mkdir(parents=True)  # is another user's, or not a file
    os.utime(directory / "a directory", (0, 0))
    for number in range(4):
        kept.keep(b"%d" % number, False, bytes(9_000))
        os.utime(kept._path(cache._origin(b"%d" % number, False)), (number, number))
    assert kept.find(b"0", False)  # used right now
    kept.keep(b"4", False, bytes(9_000))
    assert [number for number in range(5) if kept.find(b"%d" % number, False)] == [0, 2, 3, 4]
    with caplog.at_level(logging.INFO, "greenctx"):
        kept.keep(b"5", False, bytes(40_001))
    assert kept.find(b"5", False) is None
    assert "not kept" in caplog.text
    assert len([*directory.iterdir()]) == 5
    kept.keep(b"6", False, bytes(39_000))
    assert kept.find(b"6", False) == bytes(39_000)
    assert len([*directory.iterdir()]) == 2, "it takes the room of all others"


def test_settings_that_differ(kept: ModuleCache) -> None:
    """wasmtime does not load a module that an engine of another kind compiled."""
    binary = bytes(wat2wasm(SEVEN))
    _, module = compile_binary(binary, collector=True)
    kept.keep(binary, False, bytes(module.serialize()))
    unloadable = kept.find(binary, False)
    assert unloadable
    assert run(SEVEN) == 7
    assert kept.find(binary, False) != unloadable
