"""Attacks on the readers of messages about a guest."""

from __future__ import annotations

from attacks.writing import ATTACKS, REFUSED, TRAPPED, Attack, attack, main

attack(
    "names that would paint on a terminal",
    TRAPPED,
    '(func $"\\1b[31m\\07\\u{202e}" unreachable)' + main('(call $"\\1b[31m\\07\\u{202e}")'),
    message="unreachable",
)
attack(
    "an import that would paint on a terminal",
    REFUSED,
    main(""),
    head='(import "\\1b[2J" "\\00" (func))',
    message="\\x1b[2J.\\x00",
)
attack(
    "a name without end",
    TRAPPED,
    f"(func ${'x' * 5_000} unreachable)" + main(f"(call ${'x' * 5_000})"),
    message="unreachable",
)
attack("an import that nobody has", REFUSED, main(""), head='(import "env" "x" (memory 1))', message="env.x")
attack(
    "a context call of another type",
    REFUSED,
    '(import "wasix_32v1" "context_create" (func (param i64 i32) (result i32)))' + main(""),
    head="",
    message="incompatible import type",
)
attack(
    "a context call that is a memory",
    REFUSED,
    '(import "wasix_32v1" "context_create" (memory 1))' + main(""),
    head="",
    message="incompatible import type",
)
ATTACKS += [
    Attack("text that is nested a million times", REFUSED, "does not compile", "(" * 1_000_000),
    Attack("text that is nested, and closed", REFUSED, "", "(module " + "(func " * 1000 + ")" * 1001),
    Attack("a module that is empty", REFUSED, "_start", "(module)"),
    Attack(
        "expressions that are nested", REFUSED, "", "(module (func " + "(drop " * 5000 + "(i32.const 0)" + ")" * 5002
    ),
]
