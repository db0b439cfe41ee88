"""Guests that mean harm end in a status and a message, whatever they do: none ends the process, or makes it hang."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from attacks import ATTACKS, WHATEVER
from hostile import run_all

if TYPE_CHECKING:
    from pathlib import Path

LONG = bool(os.environ.get("GREENCTX_LONG"))


def test_attacks(tmp_path: Path) -> None:
    """Each attack ends as it should, and afterwards the same process runs a good guest as if nothing had been."""
    runs = []
    for number, attack in enumerate(ATTACKS):
        file = tmp_path / f"{number}.wat"
        file.write_text(attack.text)
        options = [option.replace("DIRECTORY", str(tmp_path)) for option in attack.options]
        runs.append([*options, str(file)])
    wrong = []
    for attack, ran in zip(ATTACKS, run_all(runs), strict=True):
        try:
            ran.check()
            assert attack.status in (ran.status, WHATEVER)
            assert attack.message in ran.stderr
        except AssertionError:
            wrong.append(f"{attack.name}: {ran.status}, not {attack.status} with {attack.message!r}; {ran}")
    assert not wrong, "\n".join([f"{len(wrong)} of {len(ATTACKS)}:", *wrong])
