"""The house: which module may import which, what is private, and how much there is in one place. The
rules are in tests/support/house/rules.py; each is seen to fail here on a small tree that breaks it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from house import rules
from house.sources import Sources, longest_chain

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def package() -> Sources:
    return Sources(ROOT / "greenctx")


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_the_package(rule: rules.Rule, package: Sources) -> None:
    """Every rule holds for the package as it is."""
    broken = rule(package)
    assert not broken, "\n".join(["", *broken])


@pytest.mark.parametrize("folder", ["greenctx", "tests"])
def test_few_entries_a_folder(folder: str) -> None:
    assert rules.entries(ROOT / folder) == []


LONG = {"greenctx/errors.py": (400, "a list, not a story")}


def broken_rules(package: Path) -> list[str]:
    sources = Sources(package)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "LONG_MODULES", LONG)
        return [*rules.entries(package), *(line for rule in rules.RULES for line in rule(sources))]


def make(at: Path, files: dict[str, str]) -> Path:
    """Write a package "greenctx" of those files, in which each folder has its ``__init__.py``."""
    package = at / "greenctx"
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for folder in {parent for name in files for parent in (package / name).parents if parent.is_relative_to(package)}:
        if not (folder / "__init__.py").exists():
            (folder / "__init__.py").write_text('"""A room."""\n')
    return package


GOOD = {
    "errors.py": "import os\nclass GreenctxError(Exception): ...\n" + "\n" * 260,
    "_core/switching.py": (
        "try:\n    from greenctx._core._switching import switch\nexcept ImportError:\n    def switch(): ...\n"
    ),
    "_core/_switching.pyx": "# from greenctx.environment import nothing\nfrom greenctx.errors import GreenctxError\n",
    "environment.py": "from greenctx._core import switching\nswitching.switch()\n_secret = 1\n",
    "__init__.py": "from greenctx.environment import switching\n",
    "wasix/_native/_fiber.pyx": (
        'from greenctx._core._switching cimport (\n    Switching,\n)\ninclude "_parts.pxi"\nself._part = 1\n'
    ),
    "wasix/_native/_parts.pxi": "from libc.stdint cimport int32_t\n",
    "wasix/_native/capi.py": "from wasmtime import _bindings\nfrom wasmtime._ffi import dll\n_bindings._private()\n",
    "wasix/_fibers/calls.py": (
        "from greenctx.wasix._native._fiber import Fiber\nfrom . import stores\n"
        "class Call:\n    def __init__(self):\n        self._fiber = 1\n    def other(self, of):\n        of._fiber\n"
    ),
    "wasix/_fibers/stores.py": "from ...errors import GreenctxError\nimport wasmtime\nwasmtime.Store()\n",
    "wasix/__init__.py": "from greenctx.wasix._fibers.calls import Call\n",
    "cli/main.py": "def main():\n    from greenctx.wasix import Call\n",
    "__main__.py": "import greenctx.cli.main\ngreenctx.cli.main.main()\n",
}


def test_a_good_tree(tmp_path: Path) -> None:
    package = make(tmp_path, GOOD)
    assert broken_rules(package) == []
    assert [module.rpartition(".")[2] for module in longest_chain(rules.rooms_of(Sources(package)))] == [
        "__main__", "cli", "wasix", "_fibers", "_native", "_core", "errors",
    ]  # fmt: skip


ROOMS = ("_program", "_linking", "_syscalls", "_files", "_fibers", "_clock", "_modules", "_native")

BAD = {
    "a circle, by way of an import in a function": (
        {"_core/a.py": "from greenctx._core.b import x\n", "_core/b.py": "def f():\n    import greenctx._core.a\n"},
        "a circle of 2 modules: greenctx._core.a > greenctx._core.b > greenctx._core.a",
    ),
    "a circle, by way of a stub and type checkers": (
        {
            "wasix/_native/_fiber.pyi": "if TYPE_CHECKING:\n    from greenctx.wasix._native.helper import x\n",
            "wasix/_native/helper.py": "from greenctx.wasix._native._fiber import y\n",
        },
        "a circle of 2 modules: greenctx.wasix._native._fiber > greenctx.wasix._native.helper"
        " > greenctx.wasix._native._fiber",
    ),
    "a circle, by way of an included file": (
        {
            "wasix/_native/_parts.pxi": "cimport greenctx.wasix._native.helper\n",
            "wasix/_native/helper.py": "from ._fiber import y\n",
        },
        "a circle of 2 modules: greenctx.wasix._native._fiber > greenctx.wasix._native.helper"
        " > greenctx.wasix._native._fiber",
    ),
    "an arrow upwards": (
        {"errors.py": "\n\ndef f():\n    from greenctx._core.other import x\n" + "\n" * 260, "_core/other.py": ""},
        "greenctx/errors.py:4: greenctx.errors imports greenctx._core.other, which stands above it",
    ),
    "an arrow upwards, for types only": (
        {"_core/other.py": "if TYPE_CHECKING:\n    from greenctx.environment import x\n"},
        "greenctx/_core/other.py:2: greenctx._core.other imports greenctx.environment, which stands above it",
    ),
    "an arrow upwards, in Cython": (
        {"_core/_other.pxd": "from greenctx.environment cimport x\n"},
        "greenctx/_core/_other.pxd:1: greenctx._core._other imports greenctx.environment, which stands above it",
    ),
    "an arrow to the face": (
        {"_core/other.py": "from greenctx import current\n"},
        "greenctx/_core/other.py:1: greenctx._core.other imports greenctx, which stands above it",
    ),
    "an arrow from the core to guests": (
        {"_core/other.py": "import greenctx.wasix\n"},
        "greenctx/_core/other.py:1: greenctx._core.other imports greenctx.wasix, which stands above it",
    ),
    "an arrow sideways": (
        {"wasix/_files/a.py": "import greenctx.wasix._shadow_stacks.b\n", "wasix/_shadow_stacks/b.py": ""},
        "greenctx/wasix/_files/a.py:1: greenctx.wasix._files.a imports greenctx.wasix._shadow_stacks.b,"
        " which stands beside it",
    ),
    "a module that has no place": (
        {"helpers.py": ""},
        "greenctx/helpers.py: greenctx.helpers has no place in the order",
    ),
    "a folder that has no place": (
        {"wasix/_more/__init__.py": '"""A room."""'},
        "greenctx/wasix/_more/__init__.py: greenctx.wasix._more has no place in the order",
    ),
    "a long chain of rooms": (
        {"wasix/__init__.py": "import greenctx.wasix._program.link\n"}
        | {f"wasix/{room}/link.py": f"import greenctx.wasix.{below}.link\n" for room, below in pairwise(ROOMS)}
        | {"wasix/_native/link.py": "import greenctx.environment\n"}
        | {"environment.py": "import greenctx._reports.link\n"}
        | {"_reports/link.py": "import greenctx._core.switching\n"},
        "15 levels, not 13: greenctx.__main__ > greenctx.cli > greenctx.wasix > "
        + "".join(f"greenctx.wasix.{room} > " for room in ROOMS)
        + "greenctx.environment > greenctx._reports > greenctx._core > greenctx.errors",
    ),
    "a full folder": (
        {f"wasix/_files/{n}.py": "" for n in range(12)} | {"wasix/_files/__pycache__/x.pyc": ""},
        "greenctx/wasix/_files: 13 entries, not 12",
    ),
    "a foreign private name, imported": (
        {"cli/other.py": "from greenctx.environment import _secret as s\n"},
        "greenctx/cli/other.py:1: _secret is private to greenctx.environment",
    ),
    "a foreign private name, in Cython": (
        {"_core/_other.pyx": "from greenctx.errors import one, _secret\n"},
        "greenctx/_core/_other.pyx:1: _secret is private to greenctx.errors",
    ),
    "a foreign private name, of the module": (
        {"cli/other.py": "from greenctx._core import switching as s\ns._secret = 1\n"},
        "greenctx/cli/other.py:2: s._secret is private to greenctx._core.switching",
    ),
    "a foreign private name, by the whole path": (
        {"cli/other.py": "import greenctx._core.switching\n\ngreenctx._core.switching._secret\n"},
        "greenctx/cli/other.py:3: greenctx._core.switching._secret is private to greenctx._core.switching",
    ),
    "a foreign private name, of a class": (
        {"cli/other.py": "from greenctx.environment import Environment\ndef f(): return Environment._secret\n"},
        "greenctx/cli/other.py:2: Environment._secret is private to greenctx.environment",
    ),
    "a foreign private folder": (
        {"cli/other.py": "from greenctx.wasix._fibers.calls import Call\n"},
        "greenctx/cli/other.py:1: greenctx.wasix._fibers is private to greenctx.wasix",
    ),
    "a private folder that exports": (
        {"_core/__init__.py": '"""A room."""\n\nfrom greenctx._core import switching\n'},
        "greenctx/_core/__init__.py: not a docstring only",
    ),
    "a private folder that says nothing": (
        {"_core/__init__.py": ""},
        "greenctx/_core/__init__.py: not a docstring only",
    ),
    "a long module": (
        {"environment.py": "\n" * 251},
        "greenctx/environment.py: 251 lines, not 250",
    ),
    "a long module that was to be": (
        {"errors.py": "\n" * 1000},
        "greenctx/errors.py: 1000 lines, not 400",
    ),
    "a private module of wasmtime": (
        {"wasix/_fibers/a.py": "def f():\n    from wasmtime._store import Storelike\n"},
        "greenctx/wasix/_fibers/a.py:2: wasmtime._store.Storelike is private to wasmtime",
    ),
    "a private name of wasmtime": (
        {"wasix/_fibers/a.py": "from wasmtime import _bindings\n"},
        "greenctx/wasix/_fibers/a.py:1: wasmtime._bindings is private to wasmtime",
    ),
    "a private attribute of wasmtime": (
        {"wasix/_fibers/a.py": "def f(store):\n    return store._context\n"},
        "greenctx/wasix/_fibers/a.py:2: store._context is private to another package",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_breaks_a_rule_is_named(name: str, tmp_path: Path) -> None:
    """Each broken rule gives one sentence that says what breaks it and where, and nothing else."""
    files, message = BAD[name]
    assert broken_rules(make(tmp_path, GOOD | files)) == [message]


def test_an_exception_that_is_no_longer_needed(tmp_path: Path) -> None:
    assert broken_rules(make(tmp_path, GOOD | {"errors.py": ""})) == [
        "greenctx/errors.py is no exception any more: it has at most 250 lines"
    ]
