"""A guest, the core, and a model without stacks obey the same random scripts (scripts.py), and agree on every call.

With ``GREENCTX_LONG=1`` in the environment there are 100,000 scripts.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

import pytest
from guests.compile import TOOLCHAIN
from hypothesis import given, settings
from hypothesis import strategies as st
from random_runs.scripts import ERROR_OF_MISTAKE, MAIN, Do, InGuest, InPython, Model, Operation, Script

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import DrawFn

LONG = bool(os.environ.get("GREENCTX_LONG"))
SCRIPTS = 100_000 if LONG else 600

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
def scripts(draw: DrawFn) -> tuple[list[Operation], Model]:
    """Operations that fit the state they find, and a model that has obeyed them."""
    model, script = Model(), []
    for _ in range(draw(st.integers(0, 70))):
        script.append(draw_operation(draw, model))
        model.obey(script[-1])
    script.append(draw(endings))
    model.obey(script[-1])
    return script, model


def draw_operation(draw: DrawFn, model: Model) -> Operation:
    """Most operations are about the other living contexts; some about ids that are something else, or would be a living
    one's if they were cut off or taken for negative."""
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


def check(obedient: Callable[[Script], str], operations: list[Operation], model: Model) -> None:
    script = Script(operations)
    assert (obedient(script), script.log) == (model.end, model.log)


@pytest.mark.timeout(0 if LONG else 300)
@settings(max_examples=SCRIPTS)
@given(scripts())
def test_a_guest_does_what_the_core_and_the_model_do(drawn: tuple[list[Operation], Model]) -> None:
    """Every call has the same result, the same contexts run in the same order, and the program ends the same way."""
    check(lambda script: InPython(script).run(), *drawn)
    check(guest().run, *drawn)


@pytest.mark.timeout(0 if LONG else 300)
@settings(max_examples=SCRIPTS // 2)
@given(scripts())
def test_a_guest_of_the_toolchain_does_so(drawn: tuple[list[Operation], Model]) -> None:
    """So it is for a guest as WASIX's toolchain makes them, with shadow stacks from memory.grow."""
    check(guest("-O1", *TOOLCHAIN, shadow_stack=16384).run, *drawn)


@pytest.mark.timeout(0 if LONG else 300)
@settings(max_examples=SCRIPTS // 2)
@given(scripts())
def test_a_guest_with_all_locals_in_memory_does_so(drawn: tuple[list[Operation], Model]) -> None:
    """So it is for a guest compiled without optimisation, whose contexts have shadow stacks of their own."""
    exports = ("-Wl,--export=__stack_pointer", "-Wl,--export=malloc")
    check(guest("-O0", *exports, shadow_stack=16384).run, *drawn)
