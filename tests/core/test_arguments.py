"""Arguments and names of entrypoints, and objects that cannot be ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from greenctx import ContextSwitchingEnvironment, Instrument, Statistics, SwitchTargetMissing

if TYPE_CHECKING:
    from collections.abc import Callable


class Names(Instrument):
    pass


@pytest.fixture(params=[False, True], ids=["plain", "reporting"])
def env(request: pytest.FixtureRequest) -> ContextSwitchingEnvironment:
    return ContextSwitchingEnvironment(instruments=[Names()] if request.param else [])


def test_arguments(env: ContextSwitchingEnvironment) -> None:
    """An entrypoint is called with the arguments that create_context was given."""
    seen: list[tuple[object, ...]] = []

    def actor(*args: object) -> None:
        seen.append(args)
        env.switch_context(0)

    def main() -> None:
        for args in ((), (1,), ("a", [2])):
            env.switch_context(env.create_context(actor, *args))

    env.run_main_context(main)
    assert seen == [(), (1,), ("a", [2])]


def test_names(env: ContextSwitchingEnvironment) -> None:
    """Dumps name a context as create_context was told, or by its entrypoint."""

    def actor(*_: object) -> None:
        env.switch_context(0)

    def main() -> None:
        for name in ("reader", None, ""):
            env.switch_context(env.create_context(actor, 1, name=name))
        env.create_context(actor, name="idle")
        assert [info.name for info in env.contexts()] == ["main", "reader", "actor", "", "idle"]
        assert "context 1 (reader), suspended" in env.format_stacks()

    env.run_main_context(main)


def test_names_in_statistics() -> None:
    statistics = Statistics()
    env = ContextSwitchingEnvironment(instruments=[statistics])

    def main() -> None:
        env.create_context(print, 1, name="reader")

    env.run_main_context(main)
    assert statistics.contexts[1].name == "reader"


def test_what_is_no_name_or_entrypoint(env: ContextSwitchingEnvironment) -> None:
    """A TypeError, and nothing is created."""

    def main() -> None:
        with pytest.raises(TypeError, match="the name of a context must be a string, not 5"):
            env.create_context(print, name=5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="the entrypoint of a context must be callable, not 5"):
            env.create_context(5, 1)  # type: ignore[arg-type]
        assert env.create_context(print) == 1

    env.run_main_context(main)


@pytest.mark.parametrize("context_id", ["1", None, 1.5, b"1"])
@pytest.mark.parametrize("operation", ["switch_context", "destroy_context"])
def test_ids_that_are_none(operation: str, context_id: Any, env: ContextSwitchingEnvironment) -> None:
    """An object that cannot be an id raises TypeError. An int without a context is an unknown id."""

    def main() -> None:
        env.create_context(print)
        call: Callable[[object], object] = getattr(env, operation)
        with pytest.raises(TypeError, match="the id of a context is an int, which create_context returned, not "):
            call(context_id)
        if operation == "switch_context":
            with pytest.raises(SwitchTargetMissing):
                call(7)
        else:
            assert call(7) is False

    env.run_main_context(main)
