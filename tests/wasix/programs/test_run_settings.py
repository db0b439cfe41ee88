"""The settings of one run: a program is compiled, linked and checked once, and serves requests that differ."""

from __future__ import annotations

import asyncio
import io
import threading
from typing import TYPE_CHECKING, Any

import pytest
from guests.compile import compile_guest
from guests.embedding import IMPORTS, signature

from greenctx import Instrument
from greenctx.wasix import InvalidProgram, Limits, Program, TimeLimitExceeded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., int]

# Exits with the pages to which its memory grew, one at a time.
GROWS = """(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
    (call $exit (memory.size))))"""

CREATES = f"""(module {IMPORTS}
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (table (export "__indirect_function_table") funcref (elem $other))
  (global $count (mut i32) (i32.const 0))
  (func $other)
  (func (export "_start")
    (loop $more
      (if (i32.eqz (call $create (i32.const 0) (i32.const 0)))
        (then (global.set $count (i32.add (global.get $count) (i32.const 1)))
              (br_if $more (i32.lt_u (global.get $count) (i32.const 9))))))
    (call $exit (global.get $count))))"""

WORKS = """(module
  (import "host" "work" (func $work)) (memory (export "memory") 1) (func (export "_start") (call $work)))"""

SPINS = '(module (memory (export "memory") 1) (func (export "_start") (loop (br 0))))'

PAGE = 65536


@pytest.fixture(params=["run", "run_async"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a program, either way, with settings of its own."""

    def run(program: Program, **settings: Any) -> int:
        if request.param == "run":
            return program.run(**settings)
        return asyncio.run(program.run_async(**settings))

    return run


def printed(run: Run, program: Program, **settings: Any) -> str:
    output = io.BytesIO()
    assert run(program, stdout=output, **settings) == 0
    return output.getvalue().decode()


def test_arguments(run: Run) -> None:
    """Each run has its own arguments; without any it has the program's, and None is the default of programs."""
    with Program.from_file(compile_guest("process"), argv=["own", "1"]) as program:
        assert printed(run, program, argv=["x", "two words"]) == "[x]\n[two words]\n"
        assert printed(run, program) == "[own]\n[1]\n"
        assert printed(run, program, argv=None) == f"[{compile_guest('process')}]\n"


def test_environment_variables(run: Run) -> None:
    """A run's environment variables replace all of the program's."""
    with Program.from_file(compile_guest("process"), argv=["x", "env"], env={"A": "1"}) as program:
        assert printed(run, program, env={"B": "2"}) == "B=2\n"
        assert printed(run, program) == "A=1\n"
        assert printed(run, program, env=None) == ""


def test_directories(tmp_path: Path, run: Run) -> None:
    """A run may have directories that no other run has."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "in").write_text(name)
    with Program.from_file(compile_guest("process"), argv=["x", "copy", "/d/in", "/d/out"]) as program:
        for name in ("one", "two"):
            assert run(program, preopens={"/d": tmp_path / name}) == 0
            assert (tmp_path / name / "out").read_text() == name
        assert run(program, stderr=io.BytesIO()) == 1
        with pytest.raises(InvalidProgram, match="nowhere"):
            run(program, preopens={"/d": tmp_path / "nowhere"})


def test_standard_streams(run: Run) -> None:
    """Each run reads and writes its own streams; a missing one is the program's."""
    own_output, errors = io.BytesIO(), io.BytesIO()
    guest = compile_guest("process")
    with Program.from_file(guest, argv=["x", "streams"], stdin=b"own", stdout=own_output, stderr=errors) as program:
        assert printed(run, program, stdin=b"one") == "ONE"
        assert printed(run, program, stdin=io.BytesIO(b"two")) == "TWO"
        assert printed(run, program) == "OWN"
        assert own_output.getvalue() == b""
        assert errors.getvalue() == b"on stderr\n" * 3
        assert run(program) == 0
        assert own_output.getvalue() == b"OWN"


def test_streams_side_by_side() -> None:
    """Runs in several threads at once do not write into each other's streams."""
    outputs = [io.BytesIO() for _ in range(8)]
    with Program.from_file(compile_guest("process")) as program:

        def serve(number: int) -> None:
            for _ in range(10):
                program.run(argv=["x", str(number)], stdout=outputs[number])

        threads = [threading.Thread(target=serve, args=[number]) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [output.getvalue().decode() for output in outputs] == [f"[x]\n[{number}]\n" * 10 for number in range(8)]


def test_limit_of_contexts(run: Run) -> None:
    with Program(CREATES.encode(), limits=Limits(contexts=5)) as program:
        assert [run(program, limits=Limits(contexts=count)) for count in (2, 7)] == [2, 7]
        assert run(program) == 5
        assert run(program, limits=None) == 9


def test_limit_of_time(run: Run) -> None:
    with Program(SPINS.encode()) as program, pytest.raises(TimeLimitExceeded, match=r"0\.05"):
        run(program, limits=Limits(seconds=0.05))


def test_limit_of_memory(run: Run) -> None:
    """A run may have less memory than the program's limit, and never more."""
    with Program(GROWS.encode(), limits=Limits(memory=10 * PAGE)) as program:
        pages = [run(program, limits=Limits(memory=count * PAGE)) for count in (1, 3, 10, 20)]
        assert pages == [1, 3, 10, 10]
        assert run(program) == run(program, limits=Limits(contexts=1)) == 10
        with pytest.raises(InvalidProgram, match="starts with 65536 bytes of memory, more than the limit of 65535"):
            run(program, limits=Limits(memory=PAGE - 1))


def test_limit_of_memory_that_fits_no_run() -> None:
    """Memories that start beyond what others may grow to: said, rather than limited otherwise than asked."""
    several = GROWS.replace("(memory (export", "(memory 9) (memory 2) (memory (export")
    with Program(several.encode()) as program, pytest.raises(InvalidProgram, match="give the limit to the Program"):
        program.run(limits=Limits(memory=14 * PAGE))


class Calls(Instrument):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def host_call_started(self, environment: object, context_id: int, name: str) -> None:  # noqa: ARG002
        self.seen.append(name)


def test_instruments(run: Run) -> None:
    """A run's instruments are told of that run alone, of host functions also that were defined long before."""
    with Program(WORKS.encode()) as program:
        program.linker.define_func("host", "work", signature("->"), lambda: None)
        assert run(program) == 0
        first, second = Calls(), Calls()
        for calls in (first, second, first):
            assert run(program, instruments=[calls]) == 0
        assert run(program) == 0
        assert first.seen == ["host.work"] * 2
        assert second.seen == ["host.work"]


def test_compiled_linked_and_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of a run do not compile the module again, nor look up its imports again."""
    with Program.from_file(compile_guest("process")) as program:
        assert program.run(stdout=io.BytesIO()) == 0
        for name in ("compile_module", "check_imports", "Linker"):
            monkeypatch.delattr(f"greenctx.wasix._program.executable.{name}")
        settings: dict[str, Any] = {"argv": ["x"], "env": {"A": "1"}, "limits": Limits(memory=2**25), "instruments": []}
        for _ in range(2):
            assert program.run(stdout=io.BytesIO(), **settings) == 0


def test_a_program_run_by_a_host_function() -> None:
    """Settings reach a program run from within an asynchronous run."""
    output = io.BytesIO()
    with Program(WORKS.encode()) as outer, Program.from_file(compile_guest("process")) as inner:
        outer.linker.define_func("host", "work", signature("->"), lambda: inner.run(argv=["in"], stdout=output) or None)
        asyncio.run(outer.run_async())
    assert output.getvalue() == b"[in]\n"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limits": {}}, r"limits must be None or such as Limits\(.*\), not \{\}"),
        ({"limits": {"seconds": 1}}, "limits must be None or such as Limits"),
        ({"preopens": ["."]}, r"preopens must be a dictionary, such as .*, not \['.'\]"),
        ({"env": ["A=1"]}, "env must be a dictionary, such as .*, not"),
        ({"argv": "x 1"}, "argv must be a list of strings, the program's name first, not 'x 1'"),
        ({"stdout": io.StringIO()}, "stdout must be a binary file"),
    ],
)
def test_settings_of_a_wrong_type(settings: dict[str, Any], message: str) -> None:
    """A TypeError that says what is expected, of programs and runs alike."""
    with pytest.raises(TypeError, match=message):
        Program(SPINS.encode(), **settings)
    with Program(SPINS.encode()) as program, pytest.raises(TypeError, match=message):
        program.run(**settings)


@pytest.mark.parametrize("name", ["shadow_stack", "contexts", "cache", "arguments"])
def test_unknown_settings(name: str, run: Run) -> None:
    """Settings of the program alone, and misspelt ones, are refused."""
    with (
        Program(SPINS.encode()) as program,
        pytest.raises(TypeError, match=f"no setting {name!r}; it has argv"),
    ):
        run(program, **{name: None})
