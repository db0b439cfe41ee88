"""The events of a trace that a timeline needs, checked, because other programs may have written the trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_TIME = 1e15
"""Microseconds, some thirty years. Beyond it, doubles have no fractions of a microsecond."""

_MAX_ID = 2**53
_NAMED = {"process_name": "name", "thread_name": "name", "thread_sort_index": "sort_index"}
"""The metadata that a timeline reads, and the argument that holds it."""


def matters(event: Mapping[str, Any]) -> bool:
    """Whether a timeline shows the event. Raises ValueError if it does, and a value that it needs is wrong."""
    phase, name = event.get("ph"), event.get("name")
    if phase not in ("M", "X", "i", "s", "f") or (phase == "M" and name not in [*_NAMED]):
        return False
    for key in ("pid", "tid"):
        _require(_is_id(event.get(key)), event, key, "a number of a process or thread")
    _require(isinstance(name, str), event, "name", "a text")
    if phase == "M":
        args, key = event.get("args"), _NAMED[str(name)]
        _require(isinstance(args, dict), event, "args", "an object")
        value = event["args"].get(key)
        _require(_is_id(value) if key == "sort_index" else isinstance(value, str), event["args"], key, f"a {name}")
        return True
    _require(_is_time(event.get("ts"), -MAX_TIME), event, "ts", "a time in microseconds")
    if phase == "X":
        _require(_is_time(event.get("dur"), 0), event, "dur", "a duration in microseconds")
        _require(_is_time(event.get("tdur", 0), 0), event, "tdur", "a duration in microseconds")
        _require(isinstance(event.get("cat"), str), event, "cat", "a text")
    elif phase == "i":
        _require(isinstance(event.get("args", {}), dict), event, "args", "an object")
    else:
        _require(isinstance(event.get("id"), int | str), event, "id", "a number or a text")
    return True


def _require(holds: bool, of: Mapping[str, Any], key: str, wanted: str) -> None:
    if not holds:
        found = f"{of[key]!r:.80}" if key in of else "missing"
        raise ValueError(f"{key!r} of an event is {found}, not {wanted}")


def _is_id(value: object) -> bool:
    return isinstance(value, int) and -_MAX_ID < value < _MAX_ID


def _is_time(value: object, least: float) -> bool:
    return isinstance(value, int | float) and least <= value <= MAX_TIME
