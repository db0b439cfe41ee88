"""The code of each README.md is run: its Python, its guests in C, and its commands."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import pytest
from guests.compile import kept
from processes import TIMEOUT

ROOT = Path(__file__).parents[2]
DEMO = Path(str(files("greenctx.wasix") / "demo" / "demo.wat"))
INCLUDE = Path(str(files("greenctx.wasix") / "include"))


class Block(NamedTuple):
    """A block of code in a document."""

    readme: str
    line: int
    language: str
    code: str


def _blocks() -> list[Block]:
    tracked = subprocess.run(["git", "ls-files", "*README.md"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = tracked.stdout.split() or [
        name
        for path in ROOT.glob("[!.]*/**/README.md")
        if not (name := str(path.relative_to(ROOT))).startswith("build/")
    ]
    found = []
    for name in sorted({"README.md", *names}):
        text = (ROOT / name).read_text()
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            found.append(Block(name, text.count("\n", 0, match.start()) + 1, *match.groups()))
    return found


BLOCKS = _blocks()
PYTHON = [
    (block, following.code)  # each example is followed by what it prints
    for block, following in zip(BLOCKS, [*BLOCKS[1:], Block("", 0, "", "")], strict=True)
    if block.language == "python"
    and "run_app" not in block.code  # tests/wasix/event_loops/test_server.py runs the server
]


@pytest.mark.parametrize(
    ("block", "printed"), [pytest.param(*each, id=f"{each[0].readme}:{each[0].line}") for each in PYTHON]
)
def test_python_examples_print_what_they_say(block: Block, printed: str) -> None:
    """Each Python example runs as it stands and prints the block that follows it."""
    done = subprocess.run(
        [sys.executable, "-c", block.code], capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, printed, "")


def test_the_guest_in_c_is_right_as_printed(tmp_path: Path) -> None:
    """The C example compiles with the command shown, and its contexts do not corrupt each other's locals."""
    [code] = [block.code for block in BLOCKS if block.readme == "README.md" and block.language == "c"]
    [shell] = [block.code for block in BLOCKS if block.readme == "README.md" and "ziglang" in block.code]
    (tmp_path / "hello.c").write_text(code)
    compile_command, run_command = shell.splitlines()

    def compile_to(module: Path) -> None:
        done = _run(tmp_path, compile_command)
        assert (done.returncode, done.stderr) == (0, "")
        shutil.copy(tmp_path / "hello.wasm", module)

    # zig builds its C library again for each environment that it is installed in, which takes long.
    shutil.copy(kept("readme", [code.encode(), compile_command.encode()], compile_to), tmp_path / "hello.wasm")
    done = _run(tmp_path, run_command)
    lines = [f"hello from a context, {number}\n" * 2 for number in (1, 2)]
    assert (done.returncode, done.stdout, done.stderr) == (0, "".join(lines), "")


def test_the_commands_that_made_the_picture(tmp_path: Path) -> None:
    """They make a page, and a picture like the one shown."""
    [block] = [block for block in BLOCKS if block.language == "sh" and "--trace" in block.code]
    for command in block.code.splitlines():
        assert _run(tmp_path, command.replace("greenctx/wasix/demo/demo.wat", str(DEMO))).returncode == 0
    readme = ROOT / block.readme
    [shown] = re.findall(r"^!\[.*\]\((.*)\)$", readme.read_text(), re.MULTILINE)
    assert (tmp_path / "primes.html").stat().st_size > 10_000
    made, kept = (tmp_path / "primes.svg").read_text(), (readme.parent / shown).read_text()
    for part in ('class="switch"', "sieve: active for", "sieve: created by", 'class="title"'):
        assert made.count(part) == kept.count(part) > 0


def test_links_lead_somewhere() -> None:
    """Each relative link of each README.md leads to a file, and each anchor to a heading of it."""
    for name in {block.readme for block in BLOCKS}:
        text = (ROOT / name).read_text()
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" in target:
                continue
            path, _, anchor = target.partition("#")
            file = (ROOT / name).parent / path if path else ROOT / name
            assert file.exists(), f"{name} links to {target}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
                assert anchor in map(_anchor, headings), f"{name} links to {target}"


def test_the_demo_shows_contexts_at_work() -> None:
    """The bundled guest finds the primes below 60, one context each."""
    command = [sys.executable, "-m", "greenctx", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = [line.split() for line in done.stdout.splitlines() if line.startswith("  context")]
    primes = [n for n in range(2, 61) if all(n % d for d in range(2, n))]
    assert [(int(words[1]), int(words[-1])) for words in found] == list(enumerate(primes, start=1))
    assert f"between {len(primes)} contexts" in done.stdout.splitlines()[-1]


def _run(directory: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of a document, with this Python in place of the one that a reader has."""
    words = shlex.split(command.replace('"$(greenctx include)"', shlex.quote(str(INCLUDE))))
    words[:1] = [sys.executable] if words[0] == "python" else [sys.executable, "-m", words[0]]
    return subprocess.run(words, cwd=directory, capture_output=True, text=True, timeout=TIMEOUT, check=False)


def _anchor(heading: str) -> str:
    """The anchor that a heading gets where Markdown is rendered."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
