"""C modules with their own functions, whatever gevent, eventlet or a test has replaced in them."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any


def unpatched(name: str) -> Any:
    """Return a new instance of a module written in C. Other code replaces functions in the usual instance."""
    spec = import_module(name).__spec__
    assert spec is not None
    assert spec.loader is not None
    module = spec.loader.create_module(spec)
    assert isinstance(module, ModuleType)
    spec.loader.exec_module(module)
    return module
