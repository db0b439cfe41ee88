"""What wasmtime's package keeps to itself is named in one place: a new major version of it is the work of that one."""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import greenctx

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(greenctx.__file__).parent
ADAPTERS = {PACKAGE / "wasix" / "_native" / name for name in ("capi.py", "capi_values.py")}
MODULES = sorted({*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyi")} - ADAPTERS)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def wasmtime_files() -> list[Path]:
    spec = find_spec("wasmtime")
    assert spec is not None
    assert spec.submodule_search_locations
    return sorted(Path(spec.submodule_search_locations[0]).glob("*.py"))


def defined_names(tree: ast.AST) -> Iterator[str]:
    """Every name that the code defines, as a variable, an attribute, a function, a class or a slot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def owned_privates(tree: ast.AST) -> set[str]:
    """What the module's own classes define. Then ``self._x`` is theirs, should wasmtime have an ``_x``, too."""
    return {name for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for name in defined_names(node)}


PRIVATE_NAMES = {
    name for file in wasmtime_files() for name in defined_names(ast.parse(file.read_text())) if is_private(name)
} | {"ptr"}
"""Of all objects of wasmtime's. ``ptr`` is not marked, but its value means something to the C library only."""


def naming_of_privates(source: str) -> list[str]:
    """What a module names of wasmtime's privates, each with its line."""
    tree = ast.parse(source)
    owned = owned_privates(tree)
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                named = [one.name for one in names if re.match(r"wasmtime\.(.*\.)?_", one.name)]
            case ast.ImportFrom(module="wasmtime", names=names):
                named = [one.name for one in names if is_private(one.name)]
            case ast.ImportFrom(module=str(module)) if re.match(r"wasmtime\.(.*\.)?_", module):
                named = [module]
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=attr) if attr in owned:
                named = []
            case ast.Attribute(attr=attr) if attr in PRIVATE_NAMES or re.match(r"_[A-Z]\w*?__", attr):
                named = [attr]
            case ast.Call(func=ast.Name(id="getattr" | "setattr" | "hasattr" | "delattr"), args=[_, name, *_]):
                named = [name.value] if isinstance(name, ast.Constant) and name.value in PRIVATE_NAMES else []
            case _:
                named = []
        found += [f"line {node.lineno}: {name}" for name in named if isinstance(node, ast.stmt | ast.expr)]
    return found


def test_wasmtime_is_read() -> None:
    """Its privates are found: names of each kind that greenctx has used."""
    assert {"_func", "_context", "_set_ptr", "_consume", "_from_raw", "_convert_to_raw"} <= PRIVATE_NAMES
    assert all(file.exists() for file in ADAPTERS)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_no_module_but_the_adapters_names_privates(module: Path) -> None:
    """Neither private modules of wasmtime's nor private attributes of its objects, whatever they are called here."""
    assert naming_of_privates(module.read_text()) == []


def test_native_part_knows_no_package() -> None:
    """It is given addresses, so it imports nothing of wasmtime's package."""
    for source in (*PACKAGE.rglob("*.pyx"), *PACKAGE.rglob("*.pxi"), *PACKAGE.rglob("*.pxd")):
        assert not re.search(r"^\s*c?(import|from)\s+wasmtime\b", source.read_text(), re.MULTILINE), source


@pytest.mark.parametrize(
    "line",
    [
        "import wasmtime._ffi",
        "import wasmtime.component._types as types",
        "from wasmtime import Store, _bindings as ffi",
        "from wasmtime._ffi import dll",
        "store._context()",
        "self.store._delete(pointer)",
        "super()._delete(pointer)",
        "self._set_ptr(pointer)",
        "Instance._from_raw(instance)",
        "store._Store__context = None",
        "engine.ptr()",
        "getattr(func, '_func')",
    ],
)
def test_what_names_privates(line: str) -> None:
    """Each of these would be noticed."""
    assert len(naming_of_privates(f"class Own:\n    def method(self): self._memory\n{line}")) >= 1


def test_what_does_not() -> None:
    """An attribute of one's own may have a name that wasmtime uses, too."""
    own = (
        "class Own:\n    def __init__(self): self._memory = self._context = 1\n    def read(self): return self._memory"
    )
    assert {"_memory", "_context"} <= PRIVATE_NAMES
    assert naming_of_privates(own) == []
    assert naming_of_privates("other._needs; environment._outer; wasmtime.Linker; __name__; x.__dict__") == []
