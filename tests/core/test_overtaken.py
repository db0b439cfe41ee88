"""Overtaken destroyers: other code resumes them, or another context, before the victim has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from contexts import MAIN, start, state, suspended, then_main
from greenlet import getcurrent, greenlet

from greenctx import (
    ContextCanceled,
    ContextEntrypointReturned,
    ContextSwitchingEnvironment,
    SwitchTargetMissing,
)

if TYPE_CHECKING:
    from collections.abc import Callable


class TestOvertakenDestroyer:
    """A bare greenlet switch resumes main in a cleanup: context 2 waits in destroy_context, main destroys first."""

    def overtake(self, env: ContextSwitchingEnvironment, main_goes_on: Callable[[], object]) -> list[str]:
        log: list[str] = []
        main_greenlet = getcurrent()

        def victim() -> None:
            try:
                env.switch_context(MAIN)
            finally:
                log.append("cleanup")
                main_greenlet.switch()

        def destroyer() -> None:
            try:
                log.append(f"destroyed: {env.destroy_context(1)}")
                env.switch_context(MAIN)
            finally:
                log.append("destroyer unwound")

        def main() -> None:
            start(env, victim)
            start(env, destroyer)
            assert state(env) == (0, [1])
            main_goes_on()

        env.run_main_context(main)
        return log

    def test_neither_the_victim_nor_its_destroyer_can_be_switched_to(self, env: ContextSwitchingEnvironment) -> None:
        """No context can switch to a context under destruction, or to its destroyer; the error tells which is which."""

        def main() -> None:
            with pytest.raises(SwitchTargetMissing, match="context 1: it is being destroyed; switch to an id"):
                env.switch_context(1)
            with pytest.raises(SwitchTargetMissing, match="2: it waits in destroy_context for context 1 to end; swit"):
                env.switch_context(2)
            with pytest.raises(SwitchTargetMissing, match="context 3: it was never created; switch to an id"):
                env.switch_context(3)
            assert env.destroy_context(2) is False

        self.overtake(env, main)

    def test_the_destroyer_is_suspended_then(self, env: ContextSwitchingEnvironment) -> None:
        """When main has destroyed the victim, the first destroyer is suspended; switched to, it goes on: True."""

        def main() -> None:
            assert env.destroy_context(1) is True
            assert suspended(env) == [2]
            env.switch_context(2)

        assert self.overtake(env, main) == ["cleanup", "destroyed: True", "destroyer unwound"]

    def test_the_destroyer_is_not_lost_at_the_end_of_main(self, env: ContextSwitchingEnvironment) -> None:
        """If main ends then, both are destroyed, and the finally blocks of both run."""
        assert self.overtake(env, list) == ["cleanup", "destroyer unwound"]

    def test_both_destroyers_wait_for_the_end(self, env: ContextSwitchingEnvironment) -> None:
        """If the first destroyer is resumed before the end, it cancels the victim again; main is suspended then, and
        its destroy_context returns True at the end."""
        log: list[str] = []

        def victim() -> None:
            try:
                env.switch_context(MAIN)
            finally:
                try:
                    main_greenlet.switch()
                finally:
                    log.append(f"active {state(env)[0]}, suspended {state(env)[1]}")
                    destroyer_greenlet[0].switch()

        def destroyer() -> None:
            destroyer_greenlet.append(getcurrent())
            log.append(f"destroyed: {env.destroy_context(1)}")
            log.append(f"active {state(env)[0]}, suspended {state(env)[1]}")
            env.switch_context(MAIN)

        def main() -> None:
            start(env, victim)
            start(env, destroyer)
            assert env.destroy_context(1) is True
            log.append(f"active {state(env)[0]}, suspended {state(env)[1]}")

        main_greenlet = getcurrent()
        destroyer_greenlet: list[greenlet] = []
        env.run_main_context(main)
        assert log == [
            "active 1, suspended [2]",
            "destroyed: True",
            "active 2, suspended [0]",
            "active 0, suspended [2]",
        ]

    def test_main_of_an_inner_environment_waits_as_main(self, env: ContextSwitchingEnvironment) -> None:
        """Where main is itself a context of an outer environment, the error still names it by its id here, 0."""
        inner = ContextSwitchingEnvironment()
        third_greenlet: list[greenlet] = []

        def victim() -> None:
            try:
                inner.switch_context(MAIN)
            finally:
                third_greenlet[0].switch()

        def third() -> None:
            third_greenlet.append(getcurrent())
            inner.switch_context(MAIN)
            with pytest.raises(SwitchTargetMissing, match="context 0: it waits in destroy_context for context 1 to"):
                inner.switch_context(MAIN)

        def inner_main() -> None:
            start(inner, victim)
            start(inner, third)
            with pytest.raises(ContextEntrypointReturned):
                inner.destroy_context(1)

        env.run_main_context(lambda: start(env, then_main(env, lambda: inner.run_main_context(inner_main))))

    def test_any_delivery_ends_it_silently(self, env: ContextSwitchingEnvironment) -> None:
        """A context destroyed again may let out the ContextCanceled of the first time."""

        def victim() -> None:
            try:
                env.switch_context(MAIN)
            except ContextCanceled as first:
                with pytest.raises(ContextCanceled):
                    main_greenlet.switch()
                raise first

        def main() -> None:
            start(env, victim)
            start(env, then_main(env, lambda: env.destroy_context(1)))
            assert env.destroy_context(1) is True

        main_greenlet = getcurrent()
        env.run_main_context(main)

    def test_a_destroyer_that_is_being_destroyed(self, env: ContextSwitchingEnvironment) -> None:
        """If the overtaken destroyer is being destroyed itself, it is suspended, but only to be destroyed again."""
        main_greenlet = getcurrent()

        def waits_then(cleanup: Callable[[], object]) -> Callable[[], None]:
            def entrypoint() -> None:
                try:
                    env.switch_context(MAIN)
                finally:
                    cleanup()

            return entrypoint

        def main() -> None:
            start(env, waits_then(main_greenlet.switch))
            start(env, waits_then(lambda: env.destroy_context(1)))
            start(env, then_main(env, lambda: env.destroy_context(2)))
            assert state(env) == (0, [1])
            assert env.destroy_context(1) is True
            assert state(env) == (0, [2])
            with pytest.raises(SwitchTargetMissing, match="context 2: it is being destroyed"):
                env.switch_context(2)
            assert env.destroy_context(2) is True
            assert state(env) == (0, [3])

        env.run_main_context(main)

    def test_an_exception_thrown_into_the_destroyer_comes_out_there(self, env: ContextSwitchingEnvironment) -> None:
        """A timeout thrown into a destroyer is raised by destroy_context; the victim can be destroyed again."""
        log: list[object] = []

        def victim() -> None:
            try:
                env.switch_context(MAIN)
            finally:
                try:
                    main_greenlet.throw(TimeoutError())
                finally:
                    log.append("unwound")

        def main() -> None:
            start(env, victim)
            with pytest.raises(TimeoutError):
                env.destroy_context(1)
            assert (env.active_context_id, suspended(env), log) == (0, [1], [])
            with pytest.raises(SwitchTargetMissing, match="it is being destroyed"):
                env.switch_context(1)
            log.append(env.destroy_context(1))

        main_greenlet = getcurrent()
        env.run_main_context(main)
        assert log == ["unwound", True]

    def test_without_a_destroyer_main_gets_the_end(self, env: ContextSwitchingEnvironment) -> None:
        """If no destroyer waits for the victim any more, and other code resumes it, main gets its cleanup's error."""
        log: list[str] = []
        destroyer_greenlet: list[greenlet] = []

        def victim() -> None:
            try:
                env.switch_context(MAIN)
            finally:
                destroyer_greenlet[0].throw(TimeoutError())
                raise ZeroDivisionError

        def destroyer() -> None:
            destroyer_greenlet.append(getcurrent())
            with pytest.raises(TimeoutError):
                env.destroy_context(1)
            env.switch_context(MAIN)
            log.append("never")

        def main() -> None:
            start(env, victim)
            victim_greenlet = env._registry.started[1].greenlet
            start(env, destroyer)
            with pytest.raises(ZeroDivisionError):
                victim_greenlet.switch()
            assert env.active_context_id == MAIN
            assert suspended(env) == [2]

        env.run_main_context(main)
        assert log == []

    def test_a_destroyer_that_ended_meanwhile(self, env: ContextSwitchingEnvironment) -> None:
        """If that exception ends the destroyer, main gets it; the victim can still be destroyed."""
        destroyer_greenlet: list[greenlet] = []

        def victim() -> None:
            try:
                env.switch_context(MAIN)
            finally:
                destroyer_greenlet[0].throw(TimeoutError())

        def destroyer() -> None:
            destroyer_greenlet.append(getcurrent())
            env.destroy_context(1)

        def main() -> None:
            start(env, victim)
            with pytest.raises(TimeoutError):
                start(env, destroyer)
            assert state(env) == (0, [1])
            assert env.destroy_context(1) is True
            assert state(env) == (0, [])

        env.run_main_context(main)

    def test_a_start_does_not_go_through_main_then(self, env: ContextSwitchingEnvironment) -> None:
        """A context started while main waits in destroy_context, overtaken in its turn, starts all the same."""
        log: list[str] = []

        def victim() -> None:
            try:
                env.switch_context(MAIN)
            finally:
                try:
                    main_greenlet.switch()
                finally:
                    destroyer_greenlet[0].switch()

        def destroyer() -> None:
            destroyer_greenlet.append(getcurrent())
            env.destroy_context(1)
            third = env.create_context(then_main(env, lambda: log.append("started")))
            env.switch_context(third)
            raise AssertionError("no context switches back")

        def main() -> None:
            start(env, victim)
            start(env, destroyer)
            assert env.destroy_context(1) is True
            log.append(f"active {state(env)[0]}, suspended {state(env)[1]}")

        main_greenlet = getcurrent()
        destroyer_greenlet: list[greenlet] = []
        env.run_main_context(main)
        assert log == ["started", "active 0, suspended [2, 3]"]
