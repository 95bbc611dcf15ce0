"""One process of the benchmark: the networks alone, or one mode. Started by `benchmarks.studio` with a task as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from benchmarks.clock import Row
from benchmarks.commit import commit_of_tree
from benchmarks.studio.bench import Bench, Ledger, tell
from benchmarks.studio.compare import Comparison
from benchmarks.studio.jobs import Jobs, core_rows, paint_request, painter_rows, size_rows, start, start_row, worker_on
from benchmarks.studio.networks import network_works
from benchmarks.studio.optimisations import of_mode
from benchmarks.studio.paced import pace_reads
from benchmarks.studio.patience import patient_settings
from benchmarks.studio.plan import (
    Part,
    Step,
    all_off_name,
    all_on_name,
    alone_name,
    plain_name,
    planned,
    steps_of,
)
from benchmarks.studio.sound import UnsoundError
from benchmarks.studio.steady import SteadyWorker
from benchmarks.studio.subject import Subject, load_subject
from benchmarks.studio.table import results_file
from benchmarks.studio.tally import Tally, load_tally
from models import units
from models.floor import device_facts, measure_floor
from models.registry import Mode
from models.studio import StudioWorker
from pipeline.errors import LiveryError

NO_TIME = "no time was left"
_TINY_STEPS = 8  # of painting that is compared, where networks are tiny and what they take means nothing
Work = Callable[[Bench], Iterator[Row]]


@dataclass(frozen=True, slots=True)
class Task:
    """What one process measures.

    Attributes:
        part: the networks alone, or a mode.
        modes, only: what the whole benchmark measures, as `steps_of` takes it.
        volume: the models' folder.
        subject: the file that holds what is measured on.
        tally: the file that says how far the benchmark is.
        runs: timed runs of each row, at most.
        fp16_accumulation: as the setting of that name; every row says it.
        paced_mb_s: what the volume gives at most, in 10^6 bytes a second, as a network's does; None: what it can.
        file: that rows are added to; None: one for the device, in `benchmarks/results`.
        run: what the rows of all processes of one benchmark have in common.
        since_s, began_s: when the benchmark and this process began, by `time.monotonic`.
        ends_s: when it must have ended.
    """

    part: Part
    modes: Sequence[Mode]
    only: str
    volume: str
    subject: str
    tally: str
    runs: int
    fp16_accumulation: bool
    paced_mb_s: float | None
    file: str | None
    run: str
    since_s: float
    began_s: float
    ends_s: float

    def steps(self) -> tuple[Step, ...]:
        """Of the whole benchmark, in order of worth."""
        return steps_of(self.modes, self.only)


@dataclass(frozen=True, slots=True)
class Begun:
    """A process that can measure.

    Attributes:
        bench, ledger: how, and where to.
        rows: of what was measured while it began.
        works: by the name of a step, what makes its rows.
        absent: by the name of a step, why there is nothing to measure on this device.
    """

    bench: Bench
    ledger: Ledger
    rows: Sequence[Row]
    works: Mapping[str, Work]
    absent: Mapping[str, str] = field(default_factory=dict)


def main() -> int:
    """Do the task. Returns the exit code."""
    task = Task(**json.loads(sys.argv[1]))
    try:
        return 0 if _measured(task) else 1
    except UnsoundError as fault:
        tell(task.since_s, f"unsound: {fault}")
    except LiveryError as fault:
        tell(task.since_s, f"{fault.code}: {fault.message}")
    return 1


def _measured(task: Task) -> bool:
    """Do the steps that there is time for, in order. Returns whether all that had to be equal is."""
    subject = load_subject(Path(task.subject))
    begun = _networks(task, subject) if task.part == "networks" else _mode(task, task.part, subject)
    tally, steps = load_tally(Path(task.tally)), task.steps()
    tally.rows_file, tally.about = str(begun.ledger.file), begun.ledger.about
    first, *rest = (step for step in steps if step.part == task.part)
    for row in begun.rows:
        begun.ledger.write(row)
    tally.note(first, task.runs, time.monotonic() - task.began_s)
    equal = True
    for step in rest:
        tally.save(Path(task.tally))
        asked, why_not = _asked(step, task, tally), begun.absent.get(step.name)
        if asked is None or why_not is not None:
            tally.left_out[step.name] = NO_TIME if why_not is None else why_not
            continue
        began_s = time.monotonic()
        for row in begun.works[step.name](replace(begun.bench, runs=step.runs(asked))):
            begun.ledger.write(row)
            equal &= row.get("equal", True)
        tally.note(step, asked, time.monotonic() - began_s)
    tally.save(Path(task.tally))
    return equal


def _asked(step: Step, task: Task, tally: Tally) -> int | None:
    """How many runs are asked of a step; None where it does not fit."""
    plan = planned(tally.ahead(task.steps()), task.ends_s - time.monotonic(), task.runs, tally.pace)
    return plan.asked if step.name in plan.names else None


def _networks(task: Task, subject: Subject) -> Begun:
    return Begun(
        *_bench(task, StudioWorker(Path(task.volume), fp16_accumulation=task.fp16_accumulation), subject),
        (),
        network_works(subject),
    )


def _mode(task: Task, mode: Mode, subject: Subject) -> Begun:
    settings = patient_settings()
    if task.paced_mb_s is not None:
        pace_reads(task.paced_mb_s)
    steady = SteadyWorker(Path(task.volume), prefetch_mb=settings.prefetch_mb, fp16_accumulation=task.fp16_accumulation)
    steady.subject, steady.enlarged = subject, subject.art_twice
    jobs = Jobs(steady, worker_on(steady, settings), mode)
    started = start(jobs, task.began_s)
    bench, ledger = _bench(task, steady, subject)
    rows = [{**start_row(bench, job), "paced_mb_s": task.paced_mb_s} for job in started]
    return Begun(bench, ledger, rows, _mode_works(bench, jobs), _absent(mode, steady))


def _mode_works(bench: Bench, jobs: Jobs) -> dict[str, Work]:
    mode, subject, request = jobs.mode, bench.subject, paint_request(bench, jobs.mode)
    steps = request.steps if bench.full_size else min(request.steps, _TINY_STEPS)
    comparison = Comparison(bench, replace(request, steps=steps))
    return {
        f"core {mode}": partial(core_rows, request=request),
        f"networks of {mode}": partial(painter_rows, request=request),
        f"jobs {mode}, smaller map": partial(size_rows, jobs=jobs, art=subject.art_twice),
        f"jobs {mode}, larger map": partial(size_rows, jobs=jobs, art=subject.art_whole),
        all_on_name(mode): comparison.all_on,
        all_off_name(mode): comparison.all_off,
        **{alone_name(mode, one): partial(comparison.alone, one=one) for one in of_mode(mode)},
        plain_name(mode): comparison.plain,
    }


def _absent(mode: Mode, worker: StudioWorker) -> dict[str, str]:
    painter = worker.do(lambda: worker.residents().get(units.PAINTERS[mode]))
    why = {alone_name(mode, one): one.absent(painter, worker.device) for one in of_mode(mode)}
    return {name: reason for name, reason in why.items() if reason is not None}


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
    file = results_file("studio", device.name) if task.file is None else Path(task.file)
    file.parent.mkdir(parents=True, exist_ok=True)
    return Bench(worker, subject, floor, task.runs, kind != "tiny"), Ledger(file, about, task.since_s)


if __name__ == "__main__":
    sys.exit(main())
