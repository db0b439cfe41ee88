"""The command line: ``greenctx run``, ``greenctx demo``, ``greenctx inspect``, ``timeline`` and ``include``."""

from __future__ import annotations

import _thread
import gc
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import greenctx
from greenctx.cli.arguments import COMMANDS, Arguments
from greenctx.cli.exit_status import EXIT_INTERRUPTED, EXIT_TRAP, EXIT_USAGE, fail, forget_unwritten, show
from greenctx.cli.observing import draw_timeline
from greenctx.errors import GreenctxError, InvalidProgram, InvalidTrace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    sys.unraisablehook = _deliver_again
    try:
        return _main(argv)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    finally:
        sys.unraisablehook = sys.__unraisablehook__
        if argv is None:
            forget_unwritten()


def _main(argv: Sequence[str] | None) -> int:
    given = parse(sys.argv[1:] if argv is None else argv)
    given.owns_process = argv is None
    _occupy_standard_streams()
    if given.command == "timeline":
        try:
            draw_timeline(given.file, given.output)
        except InvalidTrace as error:
            return fail(EXIT_USAGE, str(error))
        return 0
    if given.command == "include":
        return show(os.path.join(os.path.dirname(greenctx.__file__), "wasix", "include") + "\n")
    try:
        with _no_collection(freeze=argv is None):
            from greenctx.wasix import Program  # noqa: F401
    except ImportError as error:
        return fail(EXIT_USAGE, str(error))
    if given.command == "inspect":
        from greenctx.cli.inspecting import inspect

        return inspect(given.file, given.json, owns_process=given.owns_process)
    from greenctx.cli.running import run_demo, run_file

    try:
        return run_demo(given) if given.command == "demo" else run_file(given, given.argv)
    except InvalidProgram as error:
        return fail(EXIT_USAGE, str(error))
    except GreenctxError as error:
        return fail(EXIT_TRAP, str(error))


def parse(argv: Sequence[str]) -> Arguments:
    """Parse the command line. Raises SystemExit after printing a help text or an error."""
    if argv and argv[0] not in COMMANDS and _names_a_module(argv[0]):
        argv = ["run", *argv]
    given = Arguments()
    if len(argv) > 1 and argv[0] == "run" and not argv[1].startswith("-"):
        # The usual case, without options. Importing argparse and making a parser takes a tenth of a small guest's run.
        given.command, given.argv = "run", argv[1:]
        return given
    from greenctx.cli.parser import parse_by_argparse

    return parse_by_argparse(argv, given)


def _names_a_module(text: str) -> bool:
    return not text.startswith("-") and (text.endswith((".wasm", ".wat")) or os.path.isfile(text))


@contextmanager
def _no_collection(freeze: bool) -> Iterator[None]:
    """Keep Python's garbage collector from running. With ``freeze`` it never looks at the objects made meanwhile.

    wasmtime's package makes tens of thousands of objects, which all live to the end. Traversing them again and again,
    and at exit, takes longer than a small guest. Only a process that does nothing else may freeze them.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if freeze:
            gc.freeze()
        if was_enabled:
            gc.enable()


def _deliver_again(lost: sys.UnraisableHookArgs) -> None:
    """Send Ctrl-C once more if it came in a ``__del__`` of wasmtime's package, where Python drops exceptions."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        _thread.start_new_thread(_thread.interrupt_main, ())
    elif not getattr(lost.object, "__module__", "").startswith("wasmtime"):  # may find an object half made
        sys.__unraisablehook__(lost)


def _occupy_standard_streams() -> None:
    """Open the null device for each closed standard stream, so that no other file becomes a guest's stream."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next file gets this number, the lowest free one
            os.open(os.devnull, os.O_RDWR)
