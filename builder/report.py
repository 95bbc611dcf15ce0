"""What a command found or did: for people as lines, for programs as one JSON object."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from tqdm import tqdm

from builder.volume import in_units


@dataclass(slots=True)
class Report:
    """A command's outcome.

    Attributes:
        command: its name.
        rows: one object for each model, with at least `name` and `state`.
        totals: sums and further facts.
        faults: what keeps the command from being content; it then exits with 1.
        lines: further lines for people.
    """

    command: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    totals: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def as_object(self) -> dict[str, Any]:
        """For programs."""
        return {
            "command": self.command,
            "ok": not self.faults,
            "rows": self.rows,
            **self.totals,
            "faults": self.faults,
        }

    def as_lines(self) -> list[str]:
        """For people: a line for each model, then the rest."""
        shown = []
        for row in self.rows:
            size = "" if row.get("bytes") is None else in_units(row["bytes"])
            extra = "  ".join(str(row[key]) for key in ("licence", "repo", "revision") if row.get(key) is not None)
            shown.append(f"{row['name']:24} {row['state']:12} {size:>10}  {extra}".rstrip())
        return [*shown, *self.lines, *(f"fault: {fault}" for fault in self.faults)]


class SharedBar:
    """A progress bar over bytes that several threads advance. Silent where standard error is no terminal.

    Args:
        what: goes on.
        total_bytes: that it goes on for.
    """

    def __init__(self, what: str, total_bytes: int) -> None:
        self._bar = tqdm(
            total=total_bytes, desc=what, unit="B", unit_scale=True, disable=None, file=sys.stderr, dynamic_ncols=True
        )
        self._lock = threading.Lock()

    def update(self, size_bytes: int) -> None:
        """Advance; a negative number takes back what turned out to be useless."""
        with self._lock:
            self._bar.update(size_bytes)

    def __enter__(self) -> SharedBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
