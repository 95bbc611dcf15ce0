"""What all rows of one process share, and how a piece of work becomes a row."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.clock import Clock, Row, spread_of
from benchmarks.studio.least import Least
from benchmarks.studio.optimisations import uncompiled, unrecorded
from benchmarks.studio.subject import Subject
from benchmarks.studio.targets import verdicts
from models.floor import Floor
from models.loader import Unit
from models.requests import unchecked
from models.studio import StudioWorker

ONCE = "once"
_TIMES = ("n", "p50_s", "p95_s", "floor_s", "ratio", "first_s", "ours_p50_s", "speedup")
_SHOWN = (*_TIMES, "vram_peak_mb", "parameters_m", "files_read", "l2", "tolerance_l2", "equal")


@dataclass(frozen=True, slots=True)
class Bench:
    """One process's worker, and what it is measured on.

    Attributes:
        worker: the resident set.
        subject: what is computed on.
        floor: what the device can do.
        runs: timed runs of each row.
        full_size: whether the networks have the published sizes: only then a row has a ratio to the floor.
    """

    worker: StudioWorker
    subject: Subject
    floor: Floor
    runs: int
    full_size: bool

    def networks(self, unit: Unit[Any]) -> tuple[Any, ...]:
        """The modules of torch that a unit computes with, loaded now where it is not."""
        worker = self.worker
        return worker.thread.run(lambda: tuple(worker.residents().get(unit).networks))

    @contextmanager
    def plainly(self, unit: Unit[Any]) -> Iterator[None]:
        """While it is open, a unit's layers are called one by one: recorded or compiled, they run no hook of theirs."""
        thread, residents, undone = self.worker.thread, self.worker.residents, ExitStack()

        def undo() -> None:
            model = residents().get(unit)
            for name, without in (("graphs", unrecorded), ("regions", uncompiled)):
                if hasattr(model, name):
                    undone.enter_context(without(model))

        try:
            thread.run(undo)
            yield
        finally:
            thread.run(undone.close)

    def stage(self, name: str, work: Callable[[Any], object], least: Least) -> Row:
        """A row of a piece of work as the phases ask for it: with a first run, untimed, that loads what it needs."""
        first, clock = self.worker.job(unchecked), Clock()
        clock.time(ONCE, lambda: work(first))
        warm = self.worker.job(unchecked)
        for _ in range(self.runs):
            clock.time(name, lambda: work(warm))
        more = {"first_s": round(clock.seconds[ONCE][0], 3), "first_loads": first.loads}
        return self.row(name, clock.seconds[name], least, warm, **more)

    def row(self, name: str, seconds: list[float], least: Least, studio: Any, **more: Any) -> Row:
        """A row of what was timed already, within one job's view."""
        peak_mb = studio.vram_peak_mb()
        codes = sorted({warning.code for warning in studio.warnings})
        return self.bare_row(
            name, seconds, least, loads=dict(studio.loads), vram_peak_mb=peak_mb, warnings=codes, **more
        )

    def bare_row(self, name: str, seconds: list[float], least: Least, **more: Any) -> Row:
        """A row of seconds, with the ratio of their median to the floor; `more` is as the function takes it."""
        floor_s = least.floor_s(self.floor) if self.full_size else None
        return bare_row(name, seconds, floor_s, **more)


def bare_row(
    name: str,
    seconds: list[float],
    floor_s: float | None = None,
    *,
    loads: Mapping[str, float] = MappingProxyType({}),
    vram_peak_mb: float | None = None,
    warnings: Sequence[str] = (),
    **more: Any,
) -> Row:
    """A row of seconds, and what every row has.

    Args:
        name: of the row.
        seconds: of its runs.
        floor_s: what they can't be less than; None where nothing was counted.
        loads: unit → milliseconds that loading it took.
        vram_peak_mb: the most GPU memory at one moment, in MiB; None where there is no GPU.
        warnings: codes of what memory made the job give up.
        more: what the row says besides.
    """
    spread = spread_of(seconds)
    return {
        "name": name,
        "n": len(seconds),
        **spread,
        "floor_s": None if floor_s is None else round(floor_s, 5),
        "ratio": None if floor_s is None else round(spread["p50_s"] / floor_s, 2),
        "vram_peak_mb": None if vram_peak_mb is None else round(vram_peak_mb),
        "loads": dict(loads),
        "warnings": list(warnings),
        **more,
    }


@dataclass(frozen=True, slots=True)
class Ledger:
    """Where rows go: a line on standard output and a line of JSON in a file, both at once.

    What a row says of its device's targets is written with it.

    Attributes:
        file: that the lines are added to.
        about: what every row says.
        since_s: when the benchmark began, by `time.monotonic`.
    """

    file: Path
    about: Row
    since_s: float

    def write(self, row: Row) -> None:
        """Write a row."""
        judged = verdicts(self.about["device"], row)
        row = {**self.about, **row, "targets": judged}
        cells = [f"{name} {row[name]}" for name in _SHOWN if row.get(name) is not None]
        warned = [f"warned {code}" for code in row["warnings"]]
        met = [f"{one['figure']} {'met' if one['met'] else 'MISSED'} {one['target']:g}" for one in judged]
        tell(self.since_s, "  ".join((f"{row['name']:34}", *cells, *warned, *met)))
        with self.file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")


def tell(since_s: float, line: str) -> None:
    """A line on standard output, after the seconds since the benchmark began."""
    sys.stdout.write(f"[{time.monotonic() - since_s:6.1f} s] {line}\n")
    sys.stdout.flush()
