"""Python of a plain wasmtime.Func, which runs on the guest's fiber: what it must not call, it cannot.

Each test runs in a process of its own, which must get to its end.
"""

from __future__ import annotations

import textwrap

import pytest
from processes import check_embedder

DEFINE = """
linker.define(store, "host", "plain", Func(store, NOTHING, on_a_fiber))
"""
DEFINE_INSTANCE = """
inner = Linker(engine)
inner.define(store, "host", "plain", Func(store, NOTHING, on_a_fiber))
module = Module(engine, '(module (import "host" "plain" (func $plain)) (export "plain" (func $plain)))')
linker.define_instance(store, "host", inner.instantiate(store, module))
"""


def check_on_a_fiber(define: str, script: str) -> None:
    """Run a script that sets ``CALLS``, a list of errors, functions and their arguments, and calls ``guest["run"]``.

    The guest calls ``on_a_fiber``, which makes those calls and notes the errors' messages in ``seen``.
    """
    begin = """
seen = []
def on_a_fiber():
    for error, function, *args in CALLS:
        seen.append(refused(error, function, *args))
    CALLS[0][1](*CALLS[0][2:])  # and once more, to see it come out of the guest
"""
    load = """
guest = load('''(module (import "host" "plain" (func $plain)) (memory (export "memory") 1)
  (table (export "__indirect_function_table") funcref (elem $entry)) (func $entry)
  (func (export "run") (call $plain)) (func (export "other")))''')
"""
    check_embedder(f"{begin}{define}{load}{textwrap.dedent(script)}")


@pytest.mark.parametrize("define", [DEFINE, DEFINE_INSTANCE])
def test_environment(define: str) -> None:
    """Every call of the environment is refused, in main and in other contexts (NotTheActiveContext), and so are calls
    of guests (CalledWithinGuest). The environment and the guest are good afterwards."""
    check_on_a_fiber(
        define,
        """
        CALLS = [
            (NotTheActiveContext, env.switch_context, 0),
            (NotTheActiveContext, env.switch_context, 1),
            (NotTheActiveContext, env.create_context, print),
            (NotTheActiveContext, env.destroy_context, 1),
            (NotTheActiveContext, lambda: env.active_context_id),
            (CalledWithinGuest, call, store, guest["other"]),
            (CalledWithinGuest, linker.instantiate, store, Module(engine, "(module)")),
        ]

        def in_context():
            assert "context 1 is the active one" in refused(NotTheActiveContext, call, store, guest["run"])
            env.switch_context(0)

        def main():
            assert "context 0 is the active one" in refused(NotTheActiveContext, call, store, guest["run"])
            assert len(seen) == len(CALLS)
            assert all("guest code on its fiber" in message for message in seen[:5])
            assert env.create_context(in_context) == 1
            env.switch_context(1)
            assert len(seen) == 2 * len(CALLS)
            assert env.active_context_id == 0 and env.destroy_context(1)
            call(store, guest["other"])

        env.run_main_context(main)
        """,
    )


def test_guests() -> None:
    """Without an environment, too, guests cannot be called from there: not in any store, and not programs."""
    check_on_a_fiber(
        DEFINE,
        """
        other_store = Store(engine)
        other = load('(module (func (export "other")))', other_store)["other"]
        program = Program(b'(module (func (export "_start")))')
        CALLS = [
            (CalledWithinGuest, call, store, guest["other"]),
            (CalledWithinGuest, call, store, guest["run"]),
            (CalledWithinGuest, call, other_store, other),
            (CalledWithinGuest, linker.instantiate, store, Module(engine, "(module)")),
            (CalledWithinGuest, program.run),
        ]
        assert "greenctx.wasix.Linker.define_func" in refused(CalledWithinGuest, call, store, guest["run"])
        assert len(seen) == len(CALLS)
        call(store, guest["other"])
        call(other_store, other)
        assert program.run() == 0
        """,
    )


def test_what_it_raises() -> None:
    """The exception of a plain wasmtime.Func reaches its caller unchanged, and only that caller."""
    check_embedder(
        """
        error = LookupError("original")
        def plain():
            raise error
        linker.define(store, "host", "plain", Func(store, NOTHING, plain))
        guest = load('(module (import "host" "plain" (func $f)) (func (export "run") (call $f)) (func (export "trap") '
                     'unreachable))')
        for _ in range(2):
            try:
                call(store, guest["run"])
            except LookupError as raised:
                assert raised is error
            else:
                raise AssertionError("it was lost")
            refused(GuestTrap, call, store, guest["trap"])
        """
    )
