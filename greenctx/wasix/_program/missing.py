"""Advice for an installation without the native part."""

from __future__ import annotations

from pathlib import Path

COMPILERS = (
    "Debian: apt install gcc python3-dev; Fedora: dnf install gcc python3-devel; "
    "Alpine: apk add gcc musl-dev python3-dev; macOS: xcode-select --install"
)


def advice(is_there: bool, package: Path = Path(__file__).parents[2]) -> str:
    """Return the advice for the package in that folder: an installed one, or a source tree that Python found first.

    ``is_there``: there is a native part, but one that was built from other sources, or for another system.
    """
    tree = package.parent
    if (tree / "pyproject.toml").is_file():
        if is_there:
            return (
                f"the native part in the source tree at {tree} was built from other sources than are there now; "
                "build it again by pip install -e ."
            )
        return (
            f"this is the source tree at {tree}, where nothing was built for this Python, and which hides an installed "
            "greenctx; run Python in another directory, or build it here by pip install -e ."
        )
    if is_there:
        return "it was built from other sources, or for another system; pip install --force-reinstall greenctx"
    return f"install a C compiler and Python's headers ({COMPILERS}), then pip install --force-reinstall greenctx"
