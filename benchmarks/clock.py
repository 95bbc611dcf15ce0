"""Seconds of named pieces of work, and what their runs come to."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
Row = dict[str, Any]


class Clock:
    """Collects the seconds of each phase over several runs."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def time(self, phase: str, work: Callable[[], T]) -> T:
        """Run `work` and note its seconds under `phase`."""
        began_s = time.perf_counter()
        result = work()
        self.note(phase, time.perf_counter() - began_s)
        return result

    def note(self, phase: str, seconds: float) -> None:
        """Note seconds that were measured elsewhere, such as a report's."""
        self.seconds.setdefault(phase, []).append(seconds)

    def row(self, phases: tuple[str, ...]) -> Row:
        """p50 and p95 of the sum of some phases, run by run."""
        return spread_of(list(np.sum([self.seconds[phase] for phase in phases], axis=0)))


def spread_of(seconds: list[float]) -> Row:
    """p50 and p95 of some runs."""
    return {"p50_s": round(float(np.median(seconds)), 4), "p95_s": round(float(np.quantile(seconds, 0.95)), 4)}
