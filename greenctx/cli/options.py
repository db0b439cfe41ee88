"""Values of the command line's options, and messages about wrong ones."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError

_SIZE = re.compile(r"(\d{1,30}(?:\.\d{1,30})?) ?([KMGT]?)(?:I?B)?", re.ASCII | re.IGNORECASE)
_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def count(text: str) -> int:
    """A number of things."""
    if not re.fullmatch(r"\d{1,18}", text, re.ASCII):
        raise ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def seconds(text: str) -> float:
    """A positive, finite time: ``1.5``, ``1s``, ``500ms``, ``2m``. The unit is seconds by default."""
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz") if text[:1].isdigit() or text[:1] == "." else text
    try:
        value = float(number) * _UNITS[text[len(number) :]]
    except (KeyError, ValueError):
        value = 0.0
    if not 0 < value < float("inf"):
        raise ArgumentTypeError(f"{text!r} is not a positive number of seconds, such as 1.5, 1s or 500ms")
    return value


def size(text: str) -> int:
    """A number of bytes: ``65536``, ``64KiB``, ``1.5MiB``, ``2G``. The units are powers of 1024, however written."""
    from fractions import Fraction  # takes long to import, and is seldom needed

    match = _SIZE.fullmatch(text)
    value = int(Fraction(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " ")) if match else 0
    if value <= 0:
        raise ArgumentTypeError(f"{text!r} is not a size, such as 65536, 64KiB or 1.5GiB")
    return value
