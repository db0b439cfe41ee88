"""What README.md shows is run: its Python, its guest in C, and its claims about the commands."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from processes import TIMEOUT

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DEMO = Path(str(files("greenctx.wasix") / "demo" / "demo.wat"))
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [
    (code, BLOCKS[index + 1][1])  # each example is followed by what it prints
    for index, (language, code) in enumerate(BLOCKS)
    if language == "python" and "run_app" not in code  # tests/wasix/test_server.py runs the server
]


@pytest.mark.parametrize(("code", "printed"), PYTHON, ids=["core", "guest", "instruments"])
def test_python_examples_print_what_they_say(code: str, printed: str) -> None:
    """Each Python example runs as it stands and prints the block that follows it."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, printed, "")


def test_the_guest_in_c_runs(tmp_path: Path) -> None:
    """The C example compiles with the command that is shown, and runs."""
    [code] = [code for language, code in BLOCKS if language == "c"]
    [shell] = [code for language, code in BLOCKS if language == "sh" and "ziglang" in code]
    compile_command, run_command = shell.splitlines()
    (tmp_path / "hello.c").write_text(code)
    arguments = compile_command.replace(
        "-Igreenctx/wasix/include", f"-I{ROOT / 'greenctx' / 'wasix' / 'include'}"
    ).split()
    subprocess.run([sys.executable, *arguments[1:]], cwd=tmp_path, timeout=TIMEOUT, check=True)
    assert run_command == "greenctx run hello.wasm"
    done = subprocess.run(
        [sys.executable, "-m", *run_command.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello from a context\n" * 2, "")


def test_the_commands_that_made_the_picture(tmp_path: Path) -> None:
    """They make a page and a picture like the one that is shown."""
    [shell] = [code for language, code in BLOCKS if language == "sh" and "--trace" in code]
    for command in shell.splitlines():
        arguments = command.replace("greenctx/wasix/demo/demo.wat", str(DEMO)).split()
        subprocess.run(
            [sys.executable, "-m", *arguments], cwd=tmp_path, timeout=TIMEOUT, check=True, capture_output=True
        )
    [shown] = re.findall(r"^!\[.*\]\((.*)\)$", README, re.MULTILINE)
    assert (tmp_path / "primes.html").stat().st_size > 10_000
    made, kept = (tmp_path / "primes.svg").read_text(), (ROOT / shown).read_text()
    for part in ('class="switch"', "sieve: active for", "sieve: created by", 'class="title"'):
        assert made.count(part) == kept.count(part) > 0


def test_the_demo_shows_contexts_at_work() -> None:
    """The bundled guest finds the primes below 60, one context each."""
    command = [sys.executable, "-m", "greenctx", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = [line.split() for line in done.stdout.splitlines() if line.startswith("  context")]
    primes = [n for n in range(2, 61) if all(n % d for d in range(2, n))]
    assert [(int(words[1]), int(words[-1])) for words in found] == list(enumerate(primes, start=1))
    assert f"between {len(primes)} contexts" in done.stdout.splitlines()[-1]
