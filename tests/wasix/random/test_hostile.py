"""Guests that mean harm end in a status and a message, whatever they do: none ends the process, or makes it hang.

With ``--long`` there are 400 mutants and 200 random guests. ``GREENCTX_SEED`` in the environment chooses which: a
failure says what it was.
"""

from __future__ import annotations

import os
import shutil
from importlib.resources import files
from random import Random
from typing import TYPE_CHECKING

from attacks import ATTACKS, LIMITS, REFUSED, SHORT
from attacks.mutations import mutate
from attacks.runner import GOOD_GUEST, run_all
from guests.compile import TOOLCHAIN, compile_guest
from processes import check_embedder
from random_runs.random_guests import random_guest
from wasmtime import WasmtimeError, wat2wasm

if TYPE_CHECKING:
    from pathlib import Path

SEED = int(os.environ.get("GREENCTX_SEED") or Random().randrange(1_000_000))
ENDINGS = ["return-from-entrypoint", "trap-in-context", "leave-suspended", "exit-in-context"]


def test_attacks(tmp_path: Path) -> None:
    """Each attack ends as it should. After every fourth the same process runs a good guest as if nothing had been."""
    runs = []
    for number, attack in enumerate(ATTACKS):
        file = tmp_path / f"{number}.wat"
        file.write_text(attack.text)
        options = [option.replace("DIRECTORY", str(tmp_path)) for option in attack.options]
        runs.append(["run", *options, str(file)])
    wrong = []
    for attack, ran in zip(ATTACKS, run_all(runs, good_guest_every=4), strict=True):
        try:
            ran.check()
            attack.check(ran.status, ran.stderr)
        except AssertionError:
            wrong.append(f"{attack.name}: {ran.status}, not {attack.status} with {attack.message!r}; {ran}")
    assert not wrong, "\n".join([f"{len(wrong)} of {len(ATTACKS)}:", *wrong])


def test_mutants(tmp_path: Path, long: bool) -> None:
    """Modules that were valid until bytes were changed and sections moved: each ends well, and can be inspected."""
    print(f"GREENCTX_SEED={SEED}")
    count = 400 if long else 40
    flags = ("-O1", "-Wl,--export=__stack_pointer", "-Wl,--export=malloc")
    in_c = [compile_guest(name, *flags) for name in ("endings", "errnos")]
    in_c += [compile_guest("toolchain", "-O1", *TOOLCHAIN)] * 2
    in_text = [GOOD_GUEST.read_text(), (files("greenctx.wasix") / "demo" / "demo.wat").read_text()]
    in_text += [attack.text for attack in ATTACKS if attack.status != REFUSED]
    small = [wasm for text in in_text if (wasm := to_wasm(text))]
    large = [path.read_bytes() for path in in_c]
    for first in range(0, count, 200):
        runs = []
        for number in range(first, min(first + 200, count)):
            random = Random(f"{SEED} {number}")
            file = tmp_path / f"mutant-{SEED}-{number}.wasm"
            file.write_bytes(mutate(random.choice(large if number % 8 == 0 else small), small + large, random))
            options = random.choice([(), (), ("--shadow-stack", "4KiB"), ("--no-contexts",), ("--max-contexts", "2")])
            mode = random.choice([*ENDINGS, "everything", "deadlock"])
            runs.append(["run", *LIMITS, *SHORT, *options, str(file), mode])
            if number % 4 == 0:
                runs.append(["inspect", str(file)])
        for ran in run_all(runs, good_guest_every=20):
            ran.check()
        for file in tmp_path.iterdir():
            file.unlink()


def test_random_guests(tmp_path: Path, long: bool) -> None:
    """Valid guests that call what WASI and WASIX have, in many contexts, with odd arguments: each ends well."""
    print(f"GREENCTX_SEED={SEED}")
    count = 200 if long else 25
    directory = tmp_path / "directory"
    for first in range(0, count, 200):
        directory.mkdir()
        runs = []
        for number in range(first, min(first + 200, count)):
            random = Random(f"{SEED} {number}")
            file = tmp_path / f"random-{SEED}-{number}.wat"
            file.write_text(random_guest(random))
            options = random.choice([(), ("--dir", f"{directory}::/"), ("--no-contexts",), ("--max-contexts", "2")])
            runs.append(["run", *LIMITS, *SHORT, *options, *random.choice([(), ("--stats",)]), str(file)])
        for ran in run_all(runs, good_guest_every=20):
            ran.check()
        shutil.rmtree(directory)
        for file in tmp_path.iterdir():
            file.unlink()


def to_wasm(text: str) -> bytes | None:
    try:
        return bytes(wat2wasm(text))
    except WasmtimeError:
        return None


RECURSION = """
    NESTED = '(module (import "host" "again" (func $again)) (func (export "call") (call $again)))'
    depth = 0
    def again():
        global depth
        depth += 1
        if depth < deepest:
            call(store, exports["call"])
        else:
            at_the_bottom()
    linker.define_func("host", "again", NOTHING, again)
    exports = load(NESTED)
"""


def test_guest_and_host_call_each_other_for_ever() -> None:
    """Endless mutual calls raise RecursionError, and the store can be used afterwards."""
    check_embedder(
        RECURSION
        + """
    from ctypes import ArgumentError
    deepest = 10**9
    for _ in range(3):
        try:
            call(store, exports["call"])
        except (RecursionError, ArgumentError) as error:  # the latter is how ctypes passes the former on
            assert "maximum recursion depth exceeded" in str(error)
        else:
            raise AssertionError("it came back")
    deepest = depth + 10
    at_the_bottom = lambda: None
    call(store, exports["call"])
    assert depth == deepest
    """
    )


def test_thousands_of_nested_calls() -> None:
    """Guest and host may call each other as deeply as Python may recurse: they all return, or all raise."""
    check_embedder(
        RECURSION
        + """
    sys.setrecursionlimit(10**6)
    deepest = 5000
    at_the_bottom = lambda: None
    call(store, exports["call"])
    assert depth == 5000
    depth = 0
    at_the_bottom = lambda: unknown
    refused(NameError, call, store, exports["call"])
    assert depth == 5000
    """
    )


def test_contexts_are_destroyed_in_nested_calls() -> None:
    """Whoever destroys a context, itself deep in nested calls, unwinds all of those that it is in."""
    check_embedder(
        RECURSION
        + """
    unwound = []
    def nested(number):
        global depth
        depth = 0
        try:
            call(store, exports["call"])
        finally:
            unwound.append(number)
    def at_the_bottom():
        if env.active_context_id == 0:
            for number in reversed(contexts):
                assert env.destroy_context(number)
        else:
            env.switch_context(0)
    def main():
        global contexts
        contexts = [env.create_context(lambda number=number: nested(number)) for number in range(1, 6)]
        for number in contexts:
            env.switch_context(number)
        nested(0)
    deepest = 20
    env.run_main_context(main)
    assert unwound == [5, 4, 3, 2, 1, 0], unwound
    """
    )
