"""The options of ``greenctx run`` that show what contexts do, and ``greenctx timeline``."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from greenctx._core.scope import nesting
from greenctx._reports.foreign import reason_of
from greenctx.cli.exit_status import EXIT_TERMINATED, say
from greenctx.environment import ContextSwitchingEnvironment
from greenctx.errors import InvalidProgram, InvalidTrace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from greenctx._instruments.instrument import Instrument
    from greenctx._instruments.trace import Trace
    from greenctx.cli.arguments import Arguments


@contextmanager
def observing(given: Arguments, name: str) -> Iterator[list[Instrument]]:
    """Yield the instruments that the options ask for. Raises `InvalidProgram` if the trace cannot be written."""
    with ExitStack() as stack:
        instruments: list[Instrument] = []
        if given.verbose:
            stack.callback(_log_to_stderr())
        if given.dump_on_signal:
            stack.callback(_dump_on_signal())
        if given.stats:
            from greenctx._instruments.statistics import Statistics

            statistics = Statistics()
            instruments.append(statistics)
            stack.callback(lambda: say(str(statistics)))
        if given.trace is not None:
            from greenctx._instruments.trace import Trace

            try:
                trace = Trace(given.trace, Path(name).name)
            except (OSError, ValueError) as error:
                raise InvalidProgram("--trace", f"{given.trace!r} cannot be written: {reason_of(error)}") from error
            instruments.append(trace)
            stack.callback(_close, trace)
            stack.callback(_unwind_on_sigterm())
        yield instruments


def draw_timeline(file: str, output: str) -> None:
    """Draw a trace file as a page or a picture. Raises `InvalidTrace`."""
    from greenctx._instruments.timeline import Timeline
    from greenctx._instruments.timeline_svg import as_svg

    kind = Path(output).suffix.lower()
    if kind not in (".html", ".svg"):
        raise InvalidTrace(output, "a timeline is drawn as .html or .svg")
    timeline = Timeline.read(file)
    try:
        Path(output).write_text(timeline.as_html() if kind == ".html" else as_svg(timeline), encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InvalidTrace(output, reason_of(error)) from error


def _close(trace: Trace) -> None:
    try:
        try:
            trace.close()
        except KeyboardInterrupt:  # a second one, while the first unwinds the program
            trace.close()
            raise
    except OSError as error:
        say(f"greenctx: the trace is not complete: {error.strerror}")


def _unwind_on_sigterm() -> Callable[[], object]:
    """Let SIGTERM raise an exception, so that the trace has all events. Return a function that undoes this."""
    import signal

    def end(*_: object) -> None:
        raise SystemExit(EXIT_TERMINATED)

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # not the main thread
        return lambda: None
    return lambda: signal.signal(signal.SIGTERM, before)


def _log_to_stderr() -> Callable[[], object]:
    """Print what the logger says at INFO and above; return a function that ends this."""
    import logging

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(f"greenctx: {self.format(record)}")

    logger, handler = logging.getLogger("greenctx"), Handler()
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)

    def end() -> None:
        logger.removeHandler(handler)
        logger.setLevel(before)

    return end


def _dump_on_signal() -> Callable[[], object]:
    """Print the stacks of all contexts at each SIGUSR1. Return a function that undoes this."""
    import signal

    # Not in the handler, which may interrupt the import of a module that this one needs.
    import greenctx._reports.snapshot  # noqa: F401

    if not hasattr(signal, "SIGUSR1"):
        raise InvalidProgram("--dump-on-signal", "this system has no SIGUSR1")
    before = signal.signal(signal.SIGUSR1, lambda *_: _dump_stacks())
    return lambda: signal.signal(signal.SIGUSR1, before)


def _dump_stacks() -> None:
    environments = [scope for scope in nesting() if isinstance(scope, ContextSwitchingEnvironment)]
    text = "".join(environment.format_stacks() for environment in environments)
    say(text.removesuffix("\n") or "no contexts run here")
