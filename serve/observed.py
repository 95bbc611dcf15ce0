"""What the workers' own reports tell a scraper: phases, loads, memory, cache, cost.

A worker has no port of its own that could be scraped, and each of its replies says what the job took: so the figures
are taken from the replies as they pass. A reply of another shape (of a ping, of a worker that isn't Livery's) changes
nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import get_args

from pipeline.types import Phase
from serve.metrics import Histogram, histograms, labelled, single

MOST_NAMES = 64
"""Values that a label may have: a scraper keeps a series for each, and replies are not to make them without end."""

LARGEST = 1e12
"""No figure of a report is as large."""

_NAME = re.compile(r"[a-z0-9][a-z0-9 _.-]{0,40}", re.ASCII)


@dataclass(slots=True)
class Observed:
    """Counted over all replies of a run of this server."""

    phases: dict[str, Histogram] = field(default_factory=lambda: {phase: Histogram() for phase in get_args(Phase)})
    engines: Counter[str] = field(default_factory=Counter)
    loads: Counter[str] = field(default_factory=Counter)
    load_ms: Counter[str] = field(default_factory=Counter)
    cached: int = 0
    reinked: int = 0
    vram_mb: int = 0
    cost_micro_usd: int = 0

    def observe(self, output: object) -> None:
        """Count the reply of a job that made an illustration."""
        report = output.get("report") if isinstance(output, Mapping) and "svg" in output else None
        if not isinstance(report, Mapping):
            return
        for phase, spent_ms in _figures(report.get("timings_ms")):
            if phase in self.phases:
                self.phases[phase].observe(spent_ms / 1000)
        for unit, spent_ms in _figures(report.get("loads")):
            if _NAME.fullmatch(unit) and (unit in self.loads or len(self.loads) < MOST_NAMES):
                self.loads[unit] += 1
                self.load_ms[unit] += round(spent_ms)
        if report.get("engine") in ("draft", "studio"):
            self.engines[report["engine"]] += 1
        self.cached += report.get("cached") is True
        self.reinked += report.get("reinked") is True
        one = dict(_figures(report))
        self.vram_mb = max(self.vram_mb, round(one.get("vram_peak_mb", 0.0)))
        self.cost_micro_usd += round(one.get("cost_estimate_usd", 0.0) * 1e6)

    def lines(self) -> Iterator[str]:
        """The metrics in Prometheus' text format."""
        yield from histograms("livery_phase_seconds", "What the phases of illustrations took.", "phase", self.phases)
        yield from labelled("livery_illustrations_total", "Illustrations.", "engine", self.engines)
        yield from labelled("livery_model_loads_total", "Loads of models.", "unit", self.loads)
        yield from labelled("livery_model_load_ms_total", "Time of loading models.", "unit", self.load_ms)
        yield from single("livery_cache_hits_total", "counter", "Illustrations from the cache.", self.cached)
        yield from single("livery_reinked_total", "counter", "Illustrations inked anew without a model.", self.reinked)
        yield from single("livery_vram_peak_mb", "gauge", "Most GPU memory that a job held, in MiB.", self.vram_mb)
        yield from single("livery_cost_micro_usd_total", "counter", "Cost of illustrations.", self.cost_micro_usd)


def _figures(values: object) -> Iterator[tuple[str, float]]:
    """The names in a mapping that have a sensible number, none below zero."""
    for name, value in values.items() if isinstance(values, Mapping) else ():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if isinstance(name, str) and number and 0 <= value < LARGEST:
            yield name, float(value)
