"""One process of the benchmark: the networks alone, or one mode. Started by `benchmarks.studio` with a task as JSON."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.clock import Row
from benchmarks.commit import commit_of_tree
from benchmarks.studio.bench import Bench, Ledger, tell
from benchmarks.studio.jobs import Jobs, mode_rows, start, start_row, worker_on
from benchmarks.studio.networks import network_rows
from benchmarks.studio.paced import pace_reads
from benchmarks.studio.patience import patient_settings
from benchmarks.studio.sound import UnsoundError
from benchmarks.studio.steady import SteadyWorker
from benchmarks.studio.subject import Subject, load_subject
from benchmarks.studio.table import RESULTS
from models.floor import device_facts, measure_floor
from models.studio import StudioWorker
from pipeline.errors import LiveryError


@dataclass(frozen=True, slots=True)
class Task:
    """What one process measures.

    Attributes:
        part: the networks alone, or a mode.
        volume: the models' folder.
        subject: the file that holds what is measured on.
        runs: timed runs of each row.
        only: what a network's name must contain.
        paced_mb_s: what the volume gives at most, in 10^6 bytes a second, as a network's does; None: what it can.
        file: that rows are added to; None: one for the device, in `benchmarks/results`.
        run: what the rows of all processes of one benchmark have in common.
        since_s, began_s: when the benchmark and this process began, by `time.monotonic`.
    """

    part: Literal["networks", "fast", "faithful"]
    volume: str
    subject: str
    runs: int
    only: str
    paced_mb_s: float | None
    file: str | None
    run: str
    since_s: float
    began_s: float


def main() -> int:
    """Do the task. Returns the exit code."""
    task = Task(**json.loads(sys.argv[1]))
    written = 0
    try:
        for ledger, row in _rows(task):
            ledger.write(row)
            written += 1
    except UnsoundError as fault:
        tell(task.since_s, f"unsound: {fault}")
        return 1
    except LiveryError as fault:
        tell(task.since_s, f"{fault.code}: {fault.message}")
        return 1
    if not written:
        tell(task.since_s, f"nothing is called {task.only!r}")
    return 0 if written else 1


def _rows(task: Task) -> Iterator[tuple[Ledger, Row]]:
    subject, volume = load_subject(Path(task.subject)), Path(task.volume)
    if task.part == "networks":
        bench, ledger = _bench(task, StudioWorker(volume), subject)
        yield from ((ledger, row) for row in network_rows(bench, task.only))
        return
    settings = patient_settings()
    if task.paced_mb_s is not None:
        pace_reads(task.paced_mb_s)
    steady = SteadyWorker(volume, prefetch_mb=settings.prefetch_mb)
    steady.subject, steady.enlarged = subject, subject.art_twice
    jobs = Jobs(steady, worker_on(steady, settings), task.part)
    started = start(jobs, task.began_s)
    bench, ledger = _bench(task, steady, subject)
    yield from ((ledger, {**start_row(bench, job), "paced_mb_s": task.paced_mb_s}) for job in started)
    yield from ((ledger, row) for row in mode_rows(bench, jobs))


def _bench(task: Task, worker: StudioWorker, subject: Subject) -> tuple[Bench, Ledger]:
    """What rows are made with and written to, once the device's floor is measured."""
    device, kind = worker.device, worker.store.kind
    floor = worker.thread.run(lambda: measure_floor(device))
    facts = worker.thread.run(lambda: device_facts(device))
    about = {
        "run": task.run,
        "commit": commit_of_tree(),
        "part": task.part,
        "weights": kind,
        **facts,
        "floor_tflops": round(floor.tflops, 3),
        "floor_copy_gb_s": round(floor.copy_gb_s, 1),
    }
    tell(task.since_s, f"{task.part} on {device.name}: {floor.tflops:.3g} TFLOP/s, copies {floor.copy_gb_s:.4g} GB/s")
    file = RESULTS / f"studio-{_slug(device.name)}.jsonl" if task.file is None else Path(task.file)
    file.parent.mkdir(parents=True, exist_ok=True)
    return Bench(worker, subject, floor, task.runs, kind != "tiny"), Ledger(file, about, task.since_s)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    sys.exit(main())
