"""What the usual tools show of contexts, as README.md says."""

from __future__ import annotations

import faulthandler
import sys
import tempfile
from typing import TYPE_CHECKING, Any

from contexts import MAIN, go_to_main, start

from greenctx._core.switching import COMPILED

if TYPE_CHECKING:
    from types import FrameType

    from greenctx import ContextSwitchingEnvironment


def test_settrace_sees_contexts(env: ContextSwitchingEnvironment) -> None:
    """A trace function follows into contexts: greenlets started while one is set have it, and keep it.

    (README.md says what it shows.)
    """
    seen: list[str] = []

    def tracer(frame: FrameType, event: str, _arg: object) -> Any:
        if frame.f_code.co_filename == __file__ and event == "call":
            seen.append(frame.f_code.co_name)
        return None

    def worker() -> None:
        step()
        env.switch_context(MAIN)
        step()
        env.switch_context(MAIN)

    def step() -> None: ...

    def main() -> None:
        before = sys.gettrace()
        context = env.create_context(worker)
        sys.settrace(tracer)
        try:
            env.switch_context(context)
            env.switch_context(context)
        finally:
            sys.settrace(before)

    env.run_main_context(main)
    assert seen == ["worker", "step", "step"]


def test_faulthandler_shows_the_active_context(env: ContextSwitchingEnvironment) -> None:
    """faulthandler shows the stack of the active context, down to its entrypoint, and none that waits."""
    written: list[str] = []

    def ask() -> None:
        with tempfile.TemporaryFile("w+") as file:
            faulthandler.dump_traceback(file, all_threads=False)
            file.seek(0)
            written.append(file.read())
        env.switch_context(MAIN)

    def main() -> None:
        start(env, go_to_main(env))
        start(env, ask)

    env.run_main_context(main)
    [text] = written
    assert "in ask\n" in text
    assert text.splitlines()[-1].endswith("in ask" if COMPILED else "in run")
    assert "in main\n" not in text
    assert "switch_context" not in text
