"""The text of ``greenctx --version``. It imports neither wasmtime nor greenctx.wasix, which takes long and may fail."""

from __future__ import annotations

import os
import platform
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of

import greenctx
from greenctx._core.switching import COMPILED


def version() -> str:
    """Return the versions, whether guests can run, and whether switches are compiled."""
    lines = [
        f"greenctx {greenctx.__version__} on {platform.python_implementation()} {platform.python_version()}",
        f"greenlet {_installed('greenlet')}",
        f"wasmtime {_installed('wasmtime')}",
        f"guests: {_guests()}",
        f"switches: {'compiled' if COMPILED else 'pure Python'}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _installed(package: str) -> str:
    try:
        return version_of(package)
    except PackageNotFoundError:
        return "is not installed"


def _guests() -> str:
    native = os.path.join(os.path.dirname(greenctx.__file__), "wasix", "_native")
    if PathFinder.find_spec("wasmtime") is None:
        return "cannot run, because wasmtime is not installed"
    if PathFinder.find_spec("_fiber", [native]) is None:
        return "cannot run, because the native part is not built"
    return "can run"
