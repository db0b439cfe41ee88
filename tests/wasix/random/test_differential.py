"""A guest, the core, Wasmer, and a model without stacks obey the same random scripts, and agree on every call.

With ``--long`` there are ten times as many. A failure prints the script: paste it as ``@example([...])`` above
the test, or call ``check(guest().run, [...])``. ``guests.oracle.scripts`` names the rules in which Wasmer differs.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest
from guests.compile import TOOLCHAIN
from guests.oracle.scripts import DIFFERENCES, WASMER_RULES, OnWasmer
from guests.oracle.wasmer import needs_wasmer, running_wasmer
from hypothesis import given, settings
from hypothesis import strategies as st
from random_runs.scripts import ERROR_OF_MISTAKE, MAIN, RULES, Do, InGuest, InPython, Model, Operation, Rules, Script

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import DrawFn

SCRIPTS = settings().max_examples  # of the profile that tests/conftest.py has chosen

number = st.integers(0, 99)
operations = st.sampled_from(
    [
        *["create"] * 3,
        "create with a mistake",
        *["switch"] * 6,
        "switch to a special id",
        "destroy",
        "destroy a special id",
        *["enter"] * 2,
        "leave",
    ]
)
endings = st.builds(Operation, st.sampled_from([Do.RETURN, Do.EXIT]), st.integers(0, 255)) | st.just(Operation(Do.TRAP))


@st.composite
def scripts(draw: DrawFn) -> list[Operation]:
    """Operations that fit the state they find."""
    model, script = Model(), []
    for _ in range(draw(st.integers(0, 70))):
        script.append(draw_operation(draw, model))
        model.obey(script[-1])
    return [*script, draw(endings)]


def draw_operation(draw: DrawFn, model: Model) -> Operation:
    """Most operations are about the other living contexts; some with ids of other things, or ids that would be a live
    context's if they were truncated or taken as negative."""
    living = sorted({*model.depths} - {model.active})
    special = [model.active, MAIN, *(set(range(model.next_id)) - {*model.depths}), model.next_id, 2**32, 2**63]
    special += [2**64 - 1, 2**32 + model.next_id - 1]
    match draw(operations):
        case "create with a mistake":
            return Operation(Do.CREATE, pick(range(1, len(ERROR_OF_MISTAKE)), draw(number)))
        case "switch" if living:
            return Operation(Do.SWITCH, pick(living, draw(number)))
        case "switch to a special id":
            return Operation(Do.SWITCH, pick(special, draw(number)))
        case "destroy" if living:
            return Operation(Do.DESTROY, pick(living, draw(number)))
        case "destroy a special id":
            return Operation(Do.DESTROY, pick(special, draw(number)))
        case "enter":
            return Operation(Do.ENTER)
        case "leave":
            return Operation(Do.LEAVE)
        case _:
            return Operation(Do.CREATE)


def pick(things: range | list[int], number: int) -> int:
    return things[number % len(things)]


@cache
def guest(*flags: str, shadow_stack: int | None = None) -> InGuest:
    return InGuest(*flags, shadow_stack=shadow_stack)


def check(obedient: Callable[[Script], str], operations: list[Operation], rules: Rules = RULES) -> None:
    """Whoever obeys the operations does what the model does, by the same rules."""
    model, script = Model(rules), Script(operations)
    for operation in operations:
        model.obey(operation)
    assert (obedient(script), script.log) == (model.end, model.log)


@pytest.mark.both_forms
@settings(max_examples=SCRIPTS)
@given(scripts())
def test_a_guest_does_what_the_core_and_the_model_do(script: list[Operation]) -> None:
    """Every call has the same result, the same contexts run in the same order, and the program ends the same way."""
    check(lambda script: InPython(script).run(), script)
    check(guest().run, script)


@pytest.mark.both_forms
@settings(max_examples=SCRIPTS // 2)
@given(scripts())
def test_a_guest_of_the_toolchain_does_so(script: list[Operation]) -> None:
    """A guest of WASIX's toolchain obeys the scripts as the model does, with shadow stacks from memory.grow."""
    check(guest("-O1", *TOOLCHAIN, shadow_stack=16384).run, script)


@pytest.mark.both_forms
@settings(max_examples=SCRIPTS // 2)
@given(scripts())
def test_a_guest_with_all_locals_in_memory_does_so(script: list[Operation]) -> None:
    """A guest compiled without optimisation, with shadow stacks, obeys the scripts as the model does."""
    exports = ("-Wl,--export=__stack_pointer", "-Wl,--export=malloc")
    check(guest("-O0", *exports, shadow_stack=16384).run, script)


@needs_wasmer
@pytest.mark.both_forms
@settings(max_examples=10 * SCRIPTS)
@given(scripts())
def test_wasmer_does_so_by_its_own_rules(script: list[Operation]) -> None:
    """Wasmer does what the model does that has the rules in which Wasmer differs."""
    check(OnWasmer(running_wasmer()).run, script, WASMER_RULES)


def test_each_difference_from_wasmer_has_a_reason() -> None:
    """greenctx differs from Wasmer in the rules that the table names, and in no other."""
    ours = RULES._asdict()
    assert {name for name, rule in WASMER_RULES._asdict().items() if rule != ours[name]} == {*DIFFERENCES}


@pytest.mark.both_forms
@settings(max_examples=SCRIPTS // 2)
@given(scripts())
def test_what_a_failure_prints_can_be_pasted(script: list[Operation]) -> None:
    """The script of a failing test is Python, with two names."""
    assert eval(repr(script), {"Do": Do, "Operation": Operation}) == script
    assert [type(operation.do) for operation in eval(repr(script))] == [Do] * len(script)
