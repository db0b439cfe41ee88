"""The rules of the house. Each is a function that returns a line for each place that breaks it."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from house.sources import Sources, groups, longest_chain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Rule = Callable[[Sources], list[str]]

ORDER = """
errors
_core
_reports
environment
_instruments
.
wasix._native
wasix._modules
wasix._clock
wasix._fibers
wasix._files wasix._shadow_stacks
wasix._syscalls
wasix._linking
wasix._program
wasix.
cli
__main__
"""
"""From the ground up: a module imports from lines above its own, never from lines below or from the same line. A name
that ends with a dot is the ``__init__`` of that folder alone: the face of what it exports."""

_CYTHON_NAME = re.compile(r"(?:\bself\.|(?<![.\w]))(_\w+)")
"""Matches a private name, but not a private attribute."""

MAX_LEVELS = 13
MAX_ENTRIES = 12
MAX_LINES = 250

LONG_MODULES = {
    "greenctx/_core/_switching.pyx": (290, "the twin of switching.py, in the same order, which a split would hide"),
    "greenctx/wasix/_native/_fiber.pyx": (300, "one class: a call into a guest, from its start to its end"),
    "greenctx/wasix/_native/_direct_calls.pxi": (
        365,
        "what a fiber does without Python, and the data it needs for that",
    ),
    "greenctx/wasix/_linking/linker.py": (270, "the methods of wasmtime.Linker, each with what it checks first"),
    "greenctx/wasix/_native/capi.py": (280, "an adapter: one function for each thing that wasmtime's package hides"),
    "greenctx/errors.py": (520, "every exception that users may meet, in one place: a list, not a story"),
}
"""The modules that may have more lines, how many, and why."""

WASMTIME_ADAPTERS = ("greenctx.wasix._native.capi", "greenctx.wasix._native.capi_values")
"""The only modules that may name what is private in wasmtime's package."""

DOCUMENTED = ("greenlet._C_API", "os._exit", "sys._current_frames", "sys._getframe", "one._asdict")
"""Attributes that are public in spite of their names. (``one`` is a named tuple.)"""

BEYOND_SIBLINGS = {
    (
        "greenctx.cli",
        "greenctx.wasix._program",
    ): "greenctx inspect shows what it finds",
}
"""Imports from a private folder that are allowed elsewhere: by which module, from where, and why."""


def circles(sources: Sources) -> list[str]:
    """No module imports itself, through whichever others."""
    graph = sources.graph()
    return [
        f"a circle of {len(group)} modules: {' > '.join(circle_through(group[0], graph))}"
        for group in groups(graph)
        if len(group) > 1
    ]


def circle_through(name: str, graph: dict[str, dict[str, str]]) -> list[str]:
    """Return the shortest way from a module back to itself."""
    ways = [[name]]
    seen: set[str] = set()
    for way in ways:  # which grows meanwhile
        for other in graph[way[-1]]:
            if other == name:
                return [*way, name]
            if other not in seen:
                seen.add(other)
                ways.append([*way, other])
    raise AssertionError(f"{name} is in no circle")


def arrows(sources: Sources) -> list[str]:
    """Imports point down in `ORDER`."""
    places = {
        f"{sources.folder.name}.{name}".replace("..", "."): rank
        for rank, line in enumerate(ORDER.split("\n"))
        for name in line.split()
    }

    def place_of(module: str) -> str | None:
        """Return the longest prefix that the module lies in."""
        if f"{module}." in places:
            return f"{module}."
        while module not in places and module:
            module = module.rpartition(".")[0]
        return module or None

    broken = []
    for name, imports in sources.graph().items():
        here = place_of(name)
        if here is None:
            broken.append(f"{sources.place(sources.modules[name].files[0])}: {name} has no place in the order")
            continue
        for target, line in imports.items():
            there = place_of(target)
            if there is None or there == here or places[there] < places[here]:
                continue
            where = "above" if places[there] > places[here] else "beside"
            broken.append(f"{line}: {name} imports {target}, which stands {where} it")
    return broken


def levels(sources: Sources) -> list[str]:
    """No chain of imports leads through many rooms."""
    links = longest_chain(rooms_of(sources))
    return [] if len(links) <= MAX_LEVELS else [f"{len(links)} levels, not {MAX_LEVELS}: {' > '.join(links)}"]


def rooms_of(sources: Sources) -> dict[str, dict[str, str]]:
    """The imports between rooms, and for each a line where it is."""
    rooms: dict[str, dict[str, str]] = {}
    for name, imports in sources.graph().items():
        here = room_of(name)
        others = {room_of(target): line for target, line in imports.items()}
        rooms.setdefault(here, {}).update({room: line for room, line in others.items() if room != here})
    return rooms


def room_of(module: str) -> str:
    """The room that a module is in: the innermost private folder around it, or the command line; else itself."""
    folders = [
        folder for folder in ancestors(module) if is_private(folder.rpartition(".")[2]) or folder.endswith(".cli")
    ]
    return folders[-1] if folders else module


def entries(folder: Path) -> list[str]:
    """No folder holds many entries.

    An entry is a handwritten file or folder, not a built or cached one. A README.md is the door, not an entry, and a
    stub or a declaration file is one entry with its extension module.
    """

    def written(path: Path) -> bool:
        built = path.suffix in (".so", ".pyd") or (path.suffix == ".c" and path.with_suffix(".pyx").exists())
        return (
            not built
            and not path.name.startswith(".")
            and path.name not in ("__pycache__", "README.md")
            and path.suffix not in (".pyi", ".pxd")
        )

    def visit(at: Path) -> Iterator[str]:
        inside = sorted(filter(written, at.iterdir()))
        if len(inside) > MAX_ENTRIES:
            yield f"{at.relative_to(folder.parent).as_posix()}: {len(inside)} entries, not {MAX_ENTRIES}"
        for path in inside:
            if path.is_dir():
                yield from visit(path)

    return [*visit(folder)]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("_")


def privates(sources: Sources) -> list[str]:
    """No module uses a private name of another, or a private folder outside of the folders around it."""
    broken = []
    packages = {part for name in sources.modules for part in ancestors(name)}
    for module in sources.modules.values():
        names = {one.bound: one for one in module.imports if sources.target(one)}
        for one in module.imports:
            target = sources.target(one)
            if target is None:
                continue
            if one.name is not None and is_private(one.name) and f"{one.module}.{one.name}" not in sources.modules:
                broken.append(f"{one.place}: {one.name} is private to {one.module}")
            for folder in ancestors(f"{target}."):
                outside, _, name = folder.rpartition(".")
                if is_private(name) and folder in packages and not f"{module.name}.".startswith(f"{outside}."):
                    home = ".".join(module.name.split(".")[:2])
                    if (home, folder) not in BEYOND_SIBLINGS:
                        broken.append(f"{one.place}: {folder} is private to {outside}")
        for use in module.attributes:
            if is_private(use.name) and f"{use.of}.{use.name}" not in {*sources.modules, *packages}:
                imported = names.get(use.of.partition(".")[0])
                if imported is not None and ("." not in use.of or use.of in sources.modules):
                    broken.append(f"{use.place}: {use.of}.{use.name} is private to {sources.target(imported)}")
    return broken


def ancestors(name: str) -> list[str]:
    """The packages around a module, the outermost first."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def private_folders(sources: Sources) -> list[str]:
    """A private folder's ``__init__`` has a docstring, and nothing else: each name is imported from where it is."""
    broken = []
    for file in sources.files:
        if file.name == "__init__.py" and is_private(file.parent.name):
            tree = ast.parse(file.read_text())
            if ast.get_docstring(tree) is None or len(tree.body) != 1:
                broken.append(f"{sources.place(file)}: not a docstring only")
    return broken


def lines(sources: Sources) -> list[str]:
    """No module is long, and those that may be are."""
    broken = []
    lengths = {sources.place(file): len(file.read_text().splitlines()) for file in sources.files}
    for place, length in lengths.items():
        most, _ = LONG_MODULES.get(place, (MAX_LINES, ""))
        if length > most:
            broken.append(f"{place}: {length} lines, not {most}")
    return broken + [
        f"{place} is no exception any more: it has at most {MAX_LINES} lines"
        for place in LONG_MODULES
        if lengths.get(place, 0) <= MAX_LINES
    ]


def wasmtime_privates(sources: Sources) -> list[str]:
    """One module alone names what is private in wasmtime's package: its modules, their names, its objects' attributes.

    A private attribute counts as foreign if no module of this package has one of that name.
    """
    own = own_names(sources)
    broken = []
    for module in sources.modules.values():
        if module.name in WASMTIME_ADAPTERS:
            continue
        for one in module.imports:
            parts = [*one.module.split("."), *([one.name] if one.name else [])]
            if parts[0] == "wasmtime" and any(map(is_private, parts)):
                broken.append(f"{one.place}: {'.'.join(parts)} is private to wasmtime")
        for use in module.attributes:
            if is_private(use.name) and use.name not in own and f"{use.of}.{use.name}" not in DOCUMENTED:
                broken.append(f"{use.place}: {use.of}.{use.name} is private to another package")
    return broken


def own_names(sources: Sources) -> set[str]:
    """Return every private name that this package defines: functions, classes, attributes, parameters, modules."""
    names = {part for name in sources.modules for part in name.split(".")}
    for file in sources.files:
        if file.suffix not in (".py", ".pyi"):
            names.update(_CYTHON_NAME.findall(file.read_text()))
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case (
                    ast.FunctionDef(name=name)
                    | ast.AsyncFunctionDef(name=name)
                    | ast.ClassDef(name=name)
                    | ast.Name(id=name, ctx=ast.Store())
                ):
                    names.add(name)
                case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                    names.add(name)
                case ast.Assign(targets=[ast.Name(id="__slots__")], value=ast.Tuple(elts=slots)):
                    names.update(str(slot.value) for slot in slots if isinstance(slot, ast.Constant))
    return names


RULES: tuple[Rule, ...] = (circles, arrows, levels, privates, private_folders, lines, wasmtime_privates)
