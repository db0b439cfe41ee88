"""The core in pure Python (``GREENCTX_PURE=1``) beside the compiled core: a switch and a life, in new processes."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

# Each prints the processor time of one, in seconds, after a warm-up.
SWITCH = """
def other():
    while True:
        environment.switch_context(0)

def main():
    context = environment.create_context(other)
    for count in (2_000, 40_000):
        began = thread_time()
        for _ in range(count // 2):
            environment.switch_context(context)
    return (thread_time() - began) / count
"""
LIFE = """
def wait():
    environment.switch_context(0)

def main():
    for count in (500, 5_000):
        began = thread_time()
        for _ in range(count):
            context = environment.create_context(wait)
            environment.switch_context(context)
            environment.destroy_context(context)
    return (thread_time() - began) / count
"""
AROUND = """
from time import thread_time
from greenctx import ContextSwitchingEnvironment
environment = ContextSwitchingEnvironment()
{}
print(environment.run_main_context(main))
"""
CODE = {"switch": AROUND.format(SWITCH), "life": AROUND.format(LIFE)}


def seconds(figure: str, pure: str) -> float:
    """Return the seconds of a switch or a life, measured in a process with that GREENCTX_PURE."""
    environment = {**os.environ, "GREENCTX_PURE": pure}
    command = [sys.executable, "-c", CODE[figure]]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("figure", CODE)
def test_compiled(figure: str, record: Callable[..., None]) -> None:
    """Measure a switch, or a life, of the compiled core."""
    record(lambda: seconds(figure, "0"))


@pytest.mark.parametrize("figure", CODE)
def test_pure(figure: str, record: Callable[..., None]) -> None:
    """Measure the same of the core in Python."""
    record(lambda: seconds(figure, "1"), baseline=f"compiled[{figure}]")
