"""Reads the sources of a package: its modules, what each imports, and which private names of others it uses.

A module of Cython is one with its declarations (.pxd), its stub (.pyi) and the files that it includes (.pxi). Imports
count wherever they stand: at the top, in a function, or for type checkers only. Nothing of the package is imported.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SUFFIXES = (".py", ".pyi", ".pyx", ".pxd", ".pxi")

_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(?P<module>[\w.]+)[ \t]+c?import[ \t]+(?P<names>\([^)]*\)|[^\n]*)"
    r"|c?import[ \t]+(?P<modules>[^\n]*))",
    re.MULTILINE,
)
_ATTRIBUTE = re.compile(r"\b(?P<of>[A-Za-z_]\w*(?:\.\w+)*)\.(?P<name>\w+)")
_COMMENT = re.compile(r"#[^\n]*")
_INCLUDE = re.compile(r'^include "(.*)"', re.MULTILINE)


@dataclass(frozen=True, order=True)
class Import:
    """``from module import name``, or ``import module``."""

    place: str
    module: str
    name: str | None
    bound: str
    """The name that it is given here."""


@dataclass(frozen=True, order=True)
class Attribute:
    """``of.name``, where ``of`` is a name, or names with dots between."""

    place: str
    of: str
    name: str


@dataclass
class Module:
    name: str
    files: list[Path] = field(default_factory=list)
    imports: list[Import] = field(default_factory=list)
    attributes: list[Attribute] = field(default_factory=list)


class Sources:
    """A package, which is a folder of its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.modules: dict[str, Module] = {}
        self.files = sorted(file for file in folder.rglob("*") if file.suffix in SUFFIXES)
        included = {
            file.with_name(name): file
            for file in self.files
            if file.suffix == ".pyx"
            for name in _INCLUDE.findall(file.read_text())
        }
        for file in self.files:
            name = self._name_of(included.get(file, file))
            module = self.modules.setdefault(name, Module(name))
            module.files.append(file)
            (self._read_python if file.suffix in (".py", ".pyi") else self._read_cython)(module, file)

    def place(self, file: Path, line: int | None = None) -> str:
        path = file.relative_to(self.folder.parent).as_posix()
        return path if line is None else f"{path}:{line}"

    def _name_of(self, file: Path) -> str:
        parts = file.relative_to(self.folder.parent).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def _read_python(self, module: Module, file: Path) -> None:
        for node in ast.walk(ast.parse(file.read_text(), str(file))):
            match node:
                case ast.Import(names=names):
                    for alias in names:
                        self._add(module, file, node.lineno, alias.name, None, alias.asname)
                case ast.ImportFrom(names=names):
                    source = self._absolute(module, file, node)
                    for alias in names:
                        self._add(module, file, node.lineno, source, alias.name, alias.asname)
                case ast.Attribute(value=ast.Name() | ast.Attribute() as of, attr=name):
                    module.attributes.append(Attribute(self.place(file, node.lineno), ast.unparse(of), name))

    def _read_cython(self, module: Module, file: Path) -> None:
        text = _COMMENT.sub("", file.read_text())

        def line(found: re.Match[str]) -> int:
            return text.count("\n", 0, found.start()) + 1

        for found in _IMPORT.finditer(text):
            for name in (found["modules"] or found["names"]).strip("()\n").split(","):
                original, _, bound = name.strip().partition(" as ")
                if original and found["module"]:
                    self._add(module, file, line(found), found["module"], original, bound or None)
                elif original:
                    self._add(module, file, line(found), original, None, bound or None)
        for found in _ATTRIBUTE.finditer(text):
            module.attributes.append(Attribute(self.place(file, line(found)), found["of"], found["name"]))

    def _add(self, module: Module, file: Path, line: int, source: str, name: str | None, bound: str | None) -> None:
        bound = bound or name or source.partition(".")[0]
        module.imports.append(Import(self.place(file, line), source, name, bound))

    def _absolute(self, module: Module, file: Path, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parents = module.name.split(".")
        up = node.level - (file.stem == "__init__")
        return ".".join([*parents[: len(parents) - up], *([node.module] if node.module else [])])

    def target(self, one: Import) -> str | None:
        """Return the imported module, if it belongs to this package."""
        if one.name is not None and f"{one.module}.{one.name}" in self.modules:
            return f"{one.module}.{one.name}"
        return one.module if one.module in self.modules else None

    def graph(self) -> dict[str, dict[str, str]]:
        """Each module with those that it imports, and where it does so."""
        edges: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for module in self.modules.values():
            edges[module.name]  # also if it imports nothing
            for one in module.imports:
                if (target := self.target(one)) not in (None, module.name):
                    edges[module.name].setdefault(target, one.place)
        return {name: dict(sorted(edges[name].items())) for name in sorted(edges)}


def groups(graph: dict[str, dict[str, str]]) -> list[list[str]]:
    """Return the groups of modules that import one another, however indirectly; imported ones first (Tarjan)."""
    found: list[list[str]] = []
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []

    def visit(name: str) -> None:
        number[name] = lowest[name] = len(number)
        path.append(name)
        for other in graph[name]:
            if other not in number:
                visit(other)
            if other in path:
                lowest[name] = min(lowest[name], lowest[other])
        if lowest[name] == number[name]:
            found.append(sorted(path[path.index(name) :]))
            del path[path.index(name) :]

    for name in graph:
        if name not in number:
            visit(name)
    return found


def longest_chain(graph: dict[str, dict[str, str]]) -> list[str]:
    """Return the longest chain of imports, from its top. A group of modules that import one another is one link."""
    chains: dict[str, list[str]] = {}
    for group in groups(graph):
        below: Iterable[str] = {other for name in group for other in graph[name]} - {*group}
        chain = ["/".join(group), *max((chains[other] for other in sorted(below)), key=len, default=[])]
        chains.update(dict.fromkeys(group, chain))
    return max(chains.values(), key=len)
