"""The outcome of every call on Wasmer and on greenctx: the table in ``cases/*.txt``.

``python -m guests.oracle.table`` in ``tests/support`` runs each case on both, and writes the outcomes into the table.
"""

from __future__ import annotations

import sys
from pathlib import Path

from guests.oracle.sides import Case, on_greenctx, on_wasmer
from guests.oracle.wasmer import Wasmer

CASES = Path(__file__).parent / "cases"
_FIELDS = ("run", "wasmer", "greenctx", "why")


def load(file: Path) -> list[Case]:
    """Read the cases of a file: paragraphs of a title, ``call: case``, and indented lines, each a name and a text.

    The names are ``run``, the steps; those of the probe's other functions; ``wasmer`` and, if it is another outcome,
    ``greenctx``, with the reason ``why``.
    """
    return [_case(paragraph.splitlines()) for paragraph in file.read_text().strip().split("\n\n")]


def load_all() -> list[Case]:
    return [case for file in sorted(CASES.glob("*.txt")) for case in load(file)]


def _case(lines: list[str]) -> Case:
    call, _, case = lines[0].partition(": ")
    fields = {name: text for name, _, text in (line.strip().partition(" ") for line in lines[1:])}
    fields = {name: text.strip() for name, text in fields.items()}
    functions = {name: text for name, text in fields.items() if name not in _FIELDS}
    why, greenctx = fields.get("why", ""), fields.get("greenctx")
    return Case(call, case, fields["run"], fields.get("wasmer", ""), greenctx, why, functions)


def _text(case: Case, wasmer: str, greenctx: str) -> str:
    fields = {"run": case.steps, **case.functions, "wasmer": wasmer}
    if greenctx != wasmer:
        fields |= {"greenctx": greenctx, "why": case.why or "?"}
    width = max(map(len, fields))
    lines = [f"    {name:{width}} {text}".rstrip() for name, text in fields.items()]
    return "\n".join([f"{case.call}: {case.case}", *lines])


def regenerate() -> None:
    """Run everything, and rewrite the table."""
    with Wasmer() as wasmer:
        for file in sorted(CASES.glob("*.txt")):
            file.write_text("\n\n".join(_text(it, on_wasmer(wasmer, it), on_greenctx(it)) for it in load(file)) + "\n")


if __name__ == "__main__":
    regenerate()
    sys.exit(any(case.why == "?" for case in load_all()))
