"""How far a benchmark is: kept in a file, which its processes hand on to each other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.studio.plan import Step


@dataclass(slots=True)
class Tally:
    """What was done and what was left out.

    Attributes:
        done: names of the steps.
        left_out: names of the steps that were passed over, with the reason.
        expected_s, spent_s: of the steps that are done.
        rows_file: where the rows go, once a process knows its device.
        about: what every row of the last process says.
    """

    done: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    expected_s: float = 0.0
    spent_s: float = 0.0
    rows_file: str | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def pace(self) -> float:
        """How many times as long as expected a step takes here."""
        return self.spent_s / self.expected_s if self.expected_s > 0 else 1.0

    def ahead(self, steps: Sequence[Step]) -> list[Step]:
        """Those that are still to do."""
        return [step for step in steps if step.name not in self.done and step.name not in self.left_out]

    def note(self, step: Step, asked: int, spent_s: float) -> None:
        """A step is done."""
        self.done.append(step.name)
        self.expected_s += step.expected_s(asked)
        self.spent_s += spent_s

    def save(self, file: Path) -> None:
        """Write it, as a whole or not at all: a process may be ended at any time."""
        new = file.with_suffix(".new")
        new.write_text(json.dumps(asdict(self)))
        new.replace(file)


def load_tally(file: Path) -> Tally:
    """What `save` wrote; a new one where nothing is there."""
    return Tally(**json.loads(file.read_text())) if file.exists() else Tally()
