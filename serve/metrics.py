"""Figures for a scraper, in Prometheus' text format."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

BOUNDS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 150.0, 600.0)
"""Upper bounds of the buckets, in seconds."""


@dataclass(slots=True)
class Histogram:
    """How many durations fell into each bucket; the last has no upper bound."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    sum_s: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum_s += seconds


def single(name: str, kind: Literal["gauge", "counter"], help: str, value: int) -> Iterator[str]:
    """The lines of a metric without labels."""
    yield from _head(name, kind, help)
    yield f"{name} {value}"


def labelled(name: str, help: str, label: str, values: Mapping[str, int]) -> Iterator[str]:
    """The lines of a counter with one label, whose values need no escaping."""
    yield from _head(name, "counter", help)
    for value, count in values.items():
        yield f'{name}{{{label}="{value}"}} {count}'


def histogram(name: str, help: str, counted: Histogram) -> Iterator[str]:
    """The lines of a histogram."""
    yield from _head(name, "histogram", help)
    yield from _histogram_lines(name, "", counted)


def histograms(name: str, help: str, label: str, counted: Mapping[str, Histogram]) -> Iterator[str]:
    """The lines of a histogram for each value of one label, which need no escaping."""
    yield from _head(name, "histogram", help)
    for value, durations in counted.items():
        yield from _histogram_lines(name, f'{label}="{value}"', durations)


def _histogram_lines(name: str, label: str, counted: Histogram) -> Iterator[str]:
    totals = list(accumulate(counted.counts))
    before, alone = (f"{label},", f"{{{label}}}") if label else ("", "")
    for bound, total in zip((*map(str, BOUNDS_S), "+Inf"), totals, strict=True):
        yield f'{name}_bucket{{{before}le="{bound}"}} {total}'
    yield f"{name}_sum{alone} {counted.sum_s:.6f}"
    yield f"{name}_count{alone} {totals[-1]}"


def page(*metrics: Iterable[str]) -> str:
    """All of them as one text."""
    return "".join(f"{line}\n" for metric in metrics for line in metric)


def _head(name: str, kind: str, help: str) -> Iterator[str]:
    yield f"# HELP {name} {help}"
    yield f"# TYPE {name} {kind}"
