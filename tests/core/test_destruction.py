"""The rules of destroy_context, of cancellation and of the end of main, a test each."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from contexts import MAIN, end_four, go_to_main, raises, start, state, suspended, then_main
from frames import frames
from greenlet import GreenletExit

from greenctx import (
    CancellationSwallowed,
    ContextCanceled,
    ContextSwitchingEnvironment,
    DestroyNotAllowed,
    EnvironmentNotRunning,
)

if TYPE_CHECKING:
    from collections.abc import Callable


class TestDestroy:
    def test_suspended_context_unwinds_at_once(self, env: ContextSwitchingEnvironment) -> None:
        """A destroyed context gets ContextCanceled where it waits, runs its finally blocks and is gone before
        destroy_context returns True."""
        log: list[str] = []

        def entrypoint() -> None:
            try:
                env.switch_context(MAIN)
            except ContextCanceled as canceled:
                log.append(f"canceled {canceled.context_id}")
                raise
            finally:
                log.append("finally")

        def main() -> None:
            context_id = start(env, entrypoint)
            log.append("destroy")
            assert env.destroy_context(context_id) is True
            log.append("destroyed")
            assert suspended(env) == []

        env.run_main_context(main)
        assert log == ["destroy", "canceled 1", "finally", "destroyed"]

    def test_control_comes_back_to_the_caller(self, env: ContextSwitchingEnvironment) -> None:
        """After the victim's end the destroyer goes on, not main."""
        log: list[object] = []

        def main() -> None:
            victim = start(env, go_to_main(env))
            start(env, then_main(env, lambda: log.append(env.destroy_context(victim))))
            log.append("main")

        env.run_main_context(main)
        assert log == [True, "main"]

    def test_unstarted_context_never_runs(self, env: ContextSwitchingEnvironment) -> None:
        """Destroying a context that never ran drops it; its entrypoint is never called."""
        calls: list[None] = []

        def main() -> None:
            context_id = env.create_context(lambda: calls.append(None))
            assert env.destroy_context(context_id) is True
            assert suspended(env) == []

        env.run_main_context(main)
        assert calls == []

    @pytest.mark.parametrize(
        "target",
        [1, 2, 3, 4, 9, -1],
        ids=["unstarted, destroyed", "destroyed", "returned", "raised", "never created", "negative"],
    )
    def test_absent_context_is_a_no_op(self, env: ContextSwitchingEnvironment, target: int) -> None:
        """Destroying an id under which no context lives returns False; nothing has changed."""

        def main() -> None:
            end_four(env)
            before = repr(env)
            assert env.destroy_context(target) is False
            assert repr(env) == before

        env.run_main_context(main)

    def test_main_cannot_be_destroyed(self, env: ContextSwitchingEnvironment) -> None:
        """Destroying main, from a context or from itself, raises DestroyNotAllowed; nothing has changed."""

        def destroy() -> None:
            before = repr(env)
            with pytest.raises(DestroyNotAllowed, match=r"context 0 is the main.*return from main instead") as caught:
                env.destroy_context(MAIN)
            assert caught.value.context_id == 0
            assert repr(env) == before

        def main() -> None:
            destroy()
            start(env, then_main(env, destroy))

        env.run_main_context(main)

    def test_a_context_cannot_destroy_itself(self, env: ContextSwitchingEnvironment) -> None:
        """Destroying oneself raises DestroyNotAllowed; nothing has changed."""

        def entrypoint() -> None:
            before = repr(env)
            with pytest.raises(DestroyNotAllowed, match=r"context 1 is the active.*switch to another") as caught:
                env.destroy_context(1)
            assert caught.value.context_id == 1
            assert repr(env) == before
            env.switch_context(MAIN)

        env.run_main_context(lambda: start(env, entrypoint))


class TestCancellation:
    """The operations of a context under destruction, and their outcomes."""

    def cancel(
        self, env: ContextSwitchingEnvironment, cleanup: Callable[[ContextCanceled], object], *, also: int = 0
    ) -> bool:
        """Run ``cleanup`` as a handler of ContextCanceled in context 1 while context 2 destroys it."""
        outcome: list[bool] = []

        def victim() -> None:
            try:
                env.switch_context(MAIN)
            except ContextCanceled as canceled:
                cleanup(canceled)

        def destroyer() -> None:
            outcome.append(env.destroy_context(1))
            env.switch_context(MAIN)

        def main() -> None:
            start(env, victim)
            env.create_context(destroyer)
            for _ in range(also):
                start(env, go_to_main(env))
            env.switch_context(2)

        env.run_main_context(main)
        return outcome[0]

    def test_not_an_exception(self) -> None:
        """``except Exception`` does not stop ContextCanceled; it is a GreenletExit."""
        assert not issubclass(ContextCanceled, Exception)
        assert issubclass(ContextCanceled, GreenletExit)

    def test_let_out_it_ends_the_context_silently(self, env: ContextSwitchingEnvironment) -> None:
        """A ContextCanceled that leaves the entrypoint ends the context; destroy_context returns True."""

        def cleanup(canceled: ContextCanceled) -> None:
            raise canceled

        assert self.cancel(env, cleanup) is True

    def test_the_victim_is_active(self, env: ContextSwitchingEnvironment) -> None:
        """While a context unwinds it is the active one; its destroyer is neither active nor suspended."""
        log: list[object] = []

        def cleanup(canceled: ContextCanceled) -> None:
            log.extend([env.active_context_id, suspended(env), env.destroy_context(2)])
            raise canceled

        assert self.cancel(env, cleanup) is True
        assert log == [1, [0], False]

    @pytest.mark.parametrize("target", [0, 1, 2, 3, 99], ids=["main", "oneself", "destroyer", "suspended", "absent"])
    def test_every_switch_is_canceled_again(self, env: ContextSwitchingEnvironment, target: int) -> None:
        """A context under destruction that tries to switch, to whatever id, gets its ContextCanceled again."""

        def cleanup(canceled: ContextCanceled) -> None:
            for _ in range(3):
                with pytest.raises(ContextCanceled) as caught:
                    env.switch_context(target)
                assert caught.value is not canceled
                assert caught.value.context_id == 1
            env.switch_context(target)

        assert self.cancel(env, cleanup, also=1) is True

    def test_may_create(self, env: ContextSwitchingEnvironment) -> None:
        """A context under destruction may create others, which stay."""

        def cleanup(canceled: ContextCanceled) -> None:
            assert env.create_context(list) == 3
            assert suspended(env) == [0, 3]
            raise canceled

        assert self.cancel(env, cleanup) is True

    def test_may_destroy(self, env: ContextSwitchingEnvironment) -> None:
        """A context under destruction may destroy others, and goes on after each."""

        def cleanup(canceled: ContextCanceled) -> None:
            assert env.destroy_context(3) is True
            assert env.active_context_id == 1
            assert env.destroy_context(4) is True
            with pytest.raises(DestroyNotAllowed):
                env.destroy_context(1)
            with pytest.raises(DestroyNotAllowed):
                env.destroy_context(MAIN)
            raise canceled

        assert self.cancel(env, cleanup, also=2) is True

    def test_cannot_destroy_one_that_waits_for_its_end(self, env: ContextSwitchingEnvironment) -> None:
        """A context that waits in destroy_context for another's end cannot be destroyed meanwhile, even if it is being
        destroyed itself."""
        log: list[object] = []

        def inner(canceled: ContextCanceled) -> None:
            log.extend([env.active_context_id, suspended(env), env.destroy_context(1), env.destroy_context(2)])
            raise canceled

        def cleanup(canceled: ContextCanceled) -> None:
            log.append(env.destroy_context(env.create_context(list)))
            log.append(env.destroy_context(4))
            raise canceled

        def waits(cleanup: Callable[[ContextCanceled], object]) -> None:
            try:
                env.switch_context(MAIN)
            except ContextCanceled as canceled:
                cleanup(canceled)

        def main() -> None:
            start(env, lambda: waits(cleanup))
            env.create_context(then_main(env, lambda: env.destroy_context(1)))
            env.create_context(list)
            start(env, lambda: waits(inner))
            env.switch_context(2)

        env.run_main_context(main)
        assert log == [True, 4, [0, 3], False, False, True]

    def test_returning_swallows_it(self, env: ContextSwitchingEnvironment) -> None:
        """An entrypoint that catches its ContextCanceled and returns makes destroy_context raise
        CancellationSwallowed; the context has ended all the same."""

        def swallow() -> None:
            try:
                env.switch_context(MAIN)
            except ContextCanceled:
                return

        def main() -> None:
            context_id = start(env, swallow)
            with pytest.raises(CancellationSwallowed, match="context 1 caught its ContextCanceled and ret") as caught:
                env.destroy_context(context_id)
            assert caught.value.context_id == 1
            assert env.destroy_context(context_id) is False
            assert state(env) == (0, [])

        env.run_main_context(main)

    def test_defused_it_may_be_swallowed(self, env: ContextSwitchingEnvironment) -> None:
        """After ContextCanceled.defuse() the entrypoint may return; destroy_context returns True."""
        assert self.cancel(env, lambda canceled: canceled.defuse()) is True

    def test_any_delivery_can_be_defused(self, env: ContextSwitchingEnvironment) -> None:
        """Defusing a repeated delivery of the cancellation is as good as defusing the first."""

        def cleanup(canceled: ContextCanceled) -> None:
            try:
                env.switch_context(MAIN)
            except ContextCanceled as again:
                again.defuse()
            assert canceled.defused

        assert self.cancel(env, cleanup) is True

    @pytest.mark.parametrize("defuse", [False, True], ids=["", "defused"])
    def test_anything_else_comes_out_of_destroy_context(
        self, env: ContextSwitchingEnvironment, error: BaseException, defuse: bool
    ) -> None:
        """destroy_context raises any other exception of the entrypoint, defused or not; the context has ended."""

        def entrypoint() -> None:
            try:
                env.switch_context(MAIN)
            except ContextCanceled as canceled:
                if defuse:
                    canceled.defuse()
            raise error

        def main() -> None:
            context_id = start(env, entrypoint)
            with pytest.raises(type(error)) as caught:
                env.destroy_context(context_id)
            assert caught.value is error
            assert error.__context__ is None
            assert env.destroy_context(context_id) is False
            assert state(env) == (0, [])

        env.run_main_context(main)

    @pytest.mark.parametrize("error", [ValueError(), GreenletExit()], ids=repr)
    def test_what_is_handled_meanwhile_is_the_context_of_the_error(
        self, env: ContextSwitchingEnvironment, error: BaseException
    ) -> None:
        """An error that destroy_context raises has the exception that its caller handles as its context."""

        def entrypoint() -> None:
            with suppress(ContextCanceled):
                env.switch_context(MAIN)
            raise error

        def main() -> None:
            start(env, entrypoint)
            try:
                raise ZeroDivisionError
            finally:
                env.destroy_context(1)

        with pytest.raises(type(error)) as caught:
            env.run_main_context(main)
        assert caught.value is error
        assert isinstance(error.__context__, ZeroDivisionError)

    def test_traceback_of_cleanup_is_whole(self, env: ContextSwitchingEnvironment) -> None:
        """The traceback of an error in a cleanup goes from destroy_context on into the victim's frames; the
        cancellation is its context."""

        def tidy() -> None:
            raise ValueError("a")

        def entrypoint() -> None:
            try:
                env.switch_context(MAIN)
            finally:
                tidy()

        def main() -> None:
            env.destroy_context(start(env, entrypoint))

        with pytest.raises(ValueError, match="a") as caught:
            env.run_main_context(main)

        assert frames(caught.value) == [
            "test_traceback_of_cleanup_is_whole",
            "run_main_context",
            "main",
            "destroy_context",
            "_cancel",
            "run",
            "entrypoint",
            "tidy",
        ]
        assert isinstance(caught.value.__context__, ContextCanceled)

    def test_cancellation_of_another_context_is_not_ones_own(self, env: ContextSwitchingEnvironment) -> None:
        """A context that ends with the cancellation of another one does not end silently."""
        taken: list[ContextCanceled] = []

        def main() -> None:
            def victim() -> None:
                try:
                    env.switch_context(MAIN)
                except ContextCanceled as canceled:
                    taken.append(canceled)
                    raise

            env.destroy_context(start(env, victim))
            with pytest.raises(ContextCanceled) as caught:
                start(env, raises(taken[0]))
            assert caught.value is taken[0]

        env.run_main_context(main)


class TestEndOfMain:
    @pytest.mark.parametrize("main_raises", [False, True], ids=["main returned", "main raised"])
    def test_destroys_the_rest_in_ascending_order(self, env: ContextSwitchingEnvironment, main_raises: bool) -> None:
        """However main ends, every remaining context is destroyed in ascending order of id; their finally blocks
        run, and each is active while it unwinds."""
        log: list[int] = []

        def entrypoint() -> None:
            try:
                env.switch_context(MAIN)
            finally:
                log.append(env.active_context_id)

        def main() -> None:
            for _ in range(4):
                env.create_context(entrypoint)
            for context_id in (4, 1, 3):
                env.switch_context(context_id)
            if main_raises:
                raise KeyError

        try:
            env.run_main_context(main)
        except KeyError:
            assert main_raises
        assert log == [1, 3, 4]

    def test_create_is_refused(self, env: ContextSwitchingEnvironment) -> None:
        """While the environment is torn down create_context raises EnvironmentNotRunning, and creates nothing."""
        log: list[str] = []

        def entrypoint() -> None:
            try:
                env.switch_context(MAIN)
            finally:
                with pytest.raises(EnvironmentNotRunning) as caught:
                    env.create_context(list)
                log.append(str(caught.value))
                log.append(caught.value.state)

        env.run_main_context(lambda: start(env, entrypoint))
        assert log == [
            "the environment is being torn down; its contexts live within run_main_context only",
            "is being torn down",
        ]

    def test_cleanup_cannot_switch_but_destroy(self, env: ContextSwitchingEnvironment) -> None:
        """While the environment is torn down a switch is canceled again; destroying another context works."""
        log: list[object] = []

        def entrypoint() -> None:
            try:
                env.switch_context(MAIN)
            finally:
                log.append(env.active_context_id)
                with pytest.raises(ContextCanceled):
                    env.switch_context(MAIN)
                log.append(env.destroy_context(3) if env.active_context_id == 1 else "no other")

        def main() -> None:
            for _ in range(3):
                start(env, entrypoint)

        env.run_main_context(main)
        assert log == [1, 3, "no other", True, 2, "no other"]
