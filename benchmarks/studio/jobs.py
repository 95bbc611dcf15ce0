"""Rows of one mode: the first job and the second, whole jobs and their phases, re-inking, and the painting alone."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from benchmarks.clock import Clock, Row
from benchmarks.studio.bench import Bench
from benchmarks.studio.least import NOT_COUNTED, TFLOP, Least
from benchmarks.studio.networks import layer_rows
from benchmarks.studio.sound import check_networks, watched
from benchmarks.studio.steady import SteadyWorker
from models import units
from models.registry import Mode
from models.requests import PaintRequest, unchecked
from pipeline.canny import canny_edges
from pipeline.modes import paint_options
from pipeline.request import parse_request
from pipeline.run import JobResult, run
from pipeline.schema import Report, Style
from pipeline.settings import Settings
from pipeline.types import U8
from pipeline.worker import Worker

PNG_WIDTH_PX = 2048
PALETTES = (
    ["#14161A", "#F2F4F5", "#C8262B", "#5B6770", "#1D3F72", "#E0A030", "#7A8F4B", "#B9C4CC"],
    ["#101820", "#FFFFFF", "#FF5A36", "#2B6CB0", "#F6C945", "#3C3C46", "#8CC0DE", "#D9D4C7"],
)
"""Inks of the jobs, and of the re-inking."""

_JOB: dict[str, Any] = {"engine": "studio", "output": {"formats": ["svg", "png"], "png_widths": [PNG_WIDTH_PX]}}
_TIMED_STEPS = 20
"""Steps of painting that a network's row is made of, where the asked runs give as many."""


def worker_on(steady: SteadyWorker, settings: Settings) -> Worker:
    """A worker whose jobs run on `steady`."""
    worker = Worker(settings)
    worker.studio = steady
    return worker


@dataclass(slots=True)
class Jobs:
    """Whole jobs of one mode on one worker."""

    steady: SteadyWorker
    worker: Worker
    mode: Mode

    def do(self, *, palette: int = 0, cache: str = "off") -> JobResult:
        """One job; with the cache `off` every model runs, with `use` what was painted before is re-inked."""
        art_px = self.steady.enlarged.shape[1]  # as the seed: what was painted for another size is not taken for it
        job = parse_request({**_JOB, "mode": self.mode, "cache": cache, "seed": art_px, "palette": PALETTES[palette]})
        subject = self.steady.subject
        return run(job, self.worker, data=subject.photo.tobytes(), frame_px=subject.side_px)


@dataclass(frozen=True, slots=True)
class Start:
    """One of a process's first two jobs.

    Attributes:
        name: of its row.
        seconds: of the first, since the process began.
        report: of the job.
        files_read, bytes_read: of the volume.
    """

    name: str
    seconds: float
    report: Report
    files_read: int
    bytes_read: int


def start(jobs: Jobs, began_s: float) -> tuple[Start, Start]:
    """The first job, before anything else is done in this process, and the second, which should read nothing.

    Args:
        jobs: of a worker that has loaded nothing.
        began_s: when the process began, by `time.monotonic`.
    """
    reads = jobs.steady.store.reads
    report = jobs.do().report
    ended_s = time.monotonic()
    first = Start(f"first job {jobs.mode}", ended_s - began_s, report, reads.files, reads.bytes)
    report = jobs.do().report
    files, read_bytes = reads.files - first.files_read, reads.bytes - first.bytes_read
    return first, Start(f"second job {jobs.mode}", time.monotonic() - ended_s, report, files, read_bytes)


def start_row(bench: Bench, job: Start) -> Row:
    """The row of one of them."""
    cold = job.report.cold
    read = {
        "files_read": job.files_read,
        "bytes_read": job.bytes_read,
        "cold": None if cold is None else cold.model_dump(),
    }
    return _job_row(bench, job.name, [job.seconds], NOT_COUNTED, job.report, **read)


def core_rows(bench: Bench, request: PaintRequest) -> Iterator[Row]:
    """The painting and its decoding."""
    mode = request.mode
    parameters_m = _examine(bench, request)
    painted = bench.stage(f"core {mode}", lambda studio: studio.paint(request, unchecked), Least(TFLOP[f"core {mode}"]))
    yield {**painted, "parameters_m": parameters_m}


def painter_rows(bench: Bench, request: PaintRequest) -> Iterator[Row]:
    """Each network of the painting, in calls of its own: recordings of whole steps are not used meanwhile."""
    runs = min(bench.runs, math.ceil(_TIMED_STEPS / request.steps))
    with ExitStack() as plain:
        for unit in (units.PAINTERS[request.mode], units.VAE):
            plain.enter_context(bench.plainly(unit))
        yield from layer_rows(
            replace(bench, runs=runs), lambda studio: studio.paint(request, unchecked), _layers(bench, request.mode)
        )


def size_rows(bench: Bench, jobs: Jobs, art: U8) -> Iterator[Row]:
    """Whole jobs whose enlarged picture is `art`, their phases, and re-inking."""
    jobs.steady.enlarged = art
    yield from _job_rows(bench, jobs, f"{jobs.mode}, {art.shape[1]} px map")


def _job_rows(bench: Bench, jobs: Jobs, of: str) -> Iterator[Row]:
    clock = Clock()
    for turn in range(bench.runs):
        cache = "use" if turn == 0 else "off"  # nothing was painted for this size yet; the first is kept for re-inking
        report = clock.time("job", partial(jobs.do, cache=cache)).report
        for phase in ("sanitize", "steer", "enforce", "vectorize"):
            clock.note(phase, getattr(report.timings_ms, phase) / 1000)
    steer = TFLOP[f"core {jobs.mode}"] + TFLOP["depth"] + TFLOP["SAM encoder"] + TFLOP["GroundingDINO"]
    rows = {
        "sanitize": ("phase 1", Least(TFLOP["phase 1"])),
        "steer": ("phase 2", Least(steer)),
        "enforce": ("phase 3", Least(TFLOP["RRDBNet"])),
        "vectorize": ("phase 4", NOT_COUNTED),
        "job": ("job", Least(TFLOP[f"job {jobs.mode}"])),
    }
    for phase, (name, least) in rows.items():
        yield _job_row(bench, f"{name} {of}", clock.seconds[phase], least, report)
    inking = Clock()
    for turn in range(bench.runs):
        report = inking.time("inking", partial(jobs.do, palette=1 - turn % 2, cache="use")).report
    yield _job_row(bench, f"re-inking {of}", inking.seconds["inking"], NOT_COUNTED, report)


def _job_row(bench: Bench, name: str, seconds: list[float], least: Least, report: Report, **more: Any) -> Row:
    codes = sorted({warning.code for warning in report.warnings})
    return bench.bare_row(
        name,
        seconds,
        least,
        loads=dict(report.loads),
        vram_peak_mb=report.vram_peak_mb,
        warnings=codes,
        reinked=report.reinked,
        **more,
    )


def paint_request(bench: Bench, mode: Mode) -> PaintRequest:
    """What a mode paints of the subject by default."""
    rgb = bench.subject.rgb
    return paint_options(mode, Style(), 42).request(bench.worker.job(unchecked).depth(rgb), canny_edges(rgb))


def _examine(bench: Bench, request: PaintRequest) -> float:
    """Every layer that paints, in two steps on prompts that were not encoded before. Returns the parameters."""
    used = (units.PROMPT, units.PAINTERS[request.mode], units.VAE)
    networks = {unit.name: bench.networks(unit) for unit in used}
    counts = [check_networks(unit, found, full_size=bench.full_size) for unit, found in networks.items()]
    asked = replace(request, steps=2, prompt="a car, examined", negative_prompt="nothing, examined")
    with ExitStack() as watches:
        for unit in used:
            watches.enter_context(bench.plainly(unit))
            watches.enter_context(watched(unit.name, networks[unit.name]))
        bench.worker.job(unchecked).paint(asked, unchecked)
    return round(sum(counts), 1)


def _layers(bench: Bench, mode: Mode) -> dict[str, tuple[Any, Least]]:
    painter, decoder = bench.networks(units.PAINTERS[mode]), bench.networks(units.VAE)[0].decoder
    copies = 1 if mode == "fast" else 2  # guidance computes the picture with either prompt
    kinds = ("ControlNet-Union",) if mode == "fast" else ("ControlNet", "ControlNet")
    names = ("UNet step", "ControlNet-Union step") if mode == "fast" else ("UNet step", "depth step", "canny step")
    least = [Least(copies * TFLOP[kind]) for kind in ("UNet", *kinds)]
    layers = {f"{name} {mode}": pair for name, pair in zip(names, zip(painter, least, strict=True), strict=True)}
    return {**layers, f"VAE decoder {mode}": (decoder, Least(TFLOP["VAE decoder"]))}
