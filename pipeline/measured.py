"""What jobs took on this worker: the basis of a dry run's estimate."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median

from models.registry import Mode
from pipeline.schema import Engine, Report

LATEST = 50
"""Jobs of an engine and mode whose times are kept."""


@dataclass(slots=True)
class Measured:
    """Seconds of the latest jobs, by engine and mode."""

    _spent_s: dict[tuple[Engine, Mode | None], deque[float]] = field(default_factory=dict)

    def note(self, report: Report) -> None:
        """Keep what a job took without the loading of models, which the next job finds loaded, and its wait for them.

        What came from an earlier job, in whole or in part, tells nothing of the next photo's time.
        """
        if report.reinked or report.cached:
            return
        waited_ms = 0.0 if report.timings_ms.turn is None else report.timings_ms.turn
        spent_ms = report.timings_ms.total - waited_ms - sum(report.loads.values())
        key = report.engine, report.mode
        self._spent_s.setdefault(key, deque(maxlen=LATEST)).append(spent_ms / 1000)

    def typical_s(self, engine: Engine, mode: Mode | None) -> tuple[float | None, int]:
        """The median in seconds, None where there is none, and of how many jobs it is."""
        spent_s = self._spent_s.get((engine, mode), ())
        return (median(spent_s) if spent_s else None), len(spent_s)
