"""The language of attacks.

``$create``, ``$switch`` and ``$destroy`` are the context calls. ``$try`` creates a context that will run that element
of the table, stores its id at 0, and returns the errno.
"""

from __future__ import annotations

from dataclasses import dataclass

from guests.embedding import IMPORTS

TRAPPED, RETURNED, TIMED_OUT, REFUSED = 134, 129, 124, 2
AGAIN, BADF, FAULT, INVAL, NAMETOOLONG, NOENT, NOMEM, NOTDIR, NOTSUP, PERM = 6, 8, 21, 28, 37, 44, 48, 54, 58, 63
MEMVIOLATION = 78
WHATEVER = None
"""Versions of wasmtime differ: an errno, a trap, and other outcomes are all right."""

HEAD = f"""{IMPORTS} (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))"""
MEMORY = '(memory (export "memory") 1)'
TABLE = '(table $table (export "__indirect_function_table") 8 64 funcref)'
TRY = "(func $try (param i32) (result i32) (call $create (i32.const 0) (local.get 0)))"

LIMITS = ("--max-contexts", "100", "--max-memory", "64MiB", "--timeout", "20")
SHORT = ("--timeout", "0.1")
"""The time limit, for attacks that never end."""


FUNC, GLOBAL, TAG = "(func (export {}))", "(global (export {}) i32 (i32.const 0))", "(tag (export {}))"
OTHER_KINDS = {"a function": FUNC, "a global": GLOBAL, "a tag": TAG}
"""Exports that are neither a memory nor a table."""

ENTRYPOINT = "(elem (i32.const 0) $e) (func $e (call $exit (i32.const 13)))"


@dataclass(frozen=True)
class Attack:
    """A guest, and the status and the words on stderr with which it must end."""

    name: str
    status: int | None
    message: str
    text: str
    options: tuple[str, ...] = ()

    def check(self, status: int | str, stderr: str) -> None:
        """Whether the attack ended like this, or an older wasmtime did not know the text's features."""
        unknown = "without the gc feature", "function references required"
        if status == REFUSED and any(words in stderr for words in unknown):
            return
        assert self.status in (status, WHATEVER)
        assert self.message in stderr
        assert stderr.startswith("greenctx: ") or not stderr


ATTACKS: list[Attack] = []


def attack(
    name: str, status: int | None, body: str, *options: str, message: str = "", head: str = MEMORY + TABLE
) -> None:
    """Add one. Its module has the context calls and proc_exit, the ``head``, ``$try`` if there is a table, the body."""
    text = f"(module {HEAD} {head} {TRY if TABLE in head else ''} {body})"
    limits = (*LIMITS, *SHORT) if status == TIMED_OUT else LIMITS
    ATTACKS.append(Attack(name, status, message, text, (*limits, *options)))


def main(body: str) -> str:
    return f'(func (export "_start") {body})'


START = main(
    "(local $error i32) (local.set $error (call $try (i32.const 0)))"
    "(if (local.get $error) (then (call $exit (local.get $error)))) (drop (call $switch (i64.const 1)))"
)
"""A main that creates a context and switches to it, or exits with the errno of creating it."""
