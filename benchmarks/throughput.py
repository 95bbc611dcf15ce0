"""Rows of throughput: jobs a minute of a worker that serves one job at a time, and of one that serves two.

Both are measured by turns in one process, each by the worker's own loop, with as many jobs waiting as a batch has. The
studio engine's rows are on tiny random networks: they say what two jobs cost each other where one CPU does everything,
and nothing of a GPU's share.
"""

from __future__ import annotations

import asyncio
import base64
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.clock import Row, spread_of
from benchmarks.pictures import Picture
from builder.__main__ import main as build
from pipeline.actions import illustrate
from pipeline.loop import WorkerLoop
from pipeline.request import parse_request
from pipeline.run import FRAME_PX
from pipeline.settings import Settings
from pipeline.updates import Job
from pipeline.worker import Worker

AT_ONCE = (1, 2)

BATCH = 6
"""Jobs that are handed over together."""

TINY_FRAME_PX = 256
"""Long side of the studio engine's working frame; its picture is enlarged to four times that."""

TINY: dict[str, Any] = {
    "engine": "studio",
    "subject": "whole",
    "sanitize": {"enabled": False},
    "style": {"allow_drift": True, "retries": 0},
    "output": {"png_widths": [1024]},
}
"""What random networks can be asked for: they find nothing and paint noise."""


@dataclass(slots=True)
class _Measured:
    """What batches took.

    Attributes:
        batch_s, cpu_s: of each batch, from its hand-over to its last reply; of processors, the process's own.
        job_s: of each job, from its beginning to its reply.
    """

    batch_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    job_s: list[float] = field(default_factory=list)

    def row(self, name: str, at_once: int) -> Row:
        """Jobs a minute are the median batch's; busy cores, what this process had of the processors on average."""
        return {
            "name": f"{name}, {at_once} at once",
            "n": len(self.job_s),
            "jobs_per_min": round(60 * len(self.job_s) / len(self.batch_s) / float(np.median(self.batch_s)), 1),
            "busy_cores": round(sum(self.cpu_s) / sum(self.batch_s), 2),
            **spread_of(self.job_s),
        }


def throughput_rows(picture: Picture, rounds: int, batch: int = BATCH) -> Iterator[Row]:
    """The rows of each engine that can run here: one job at a time, and two; of so many rounds of so many jobs."""
    draft = {"image": base64.b64encode(picture.data).decode("ascii"), "engine": "draft", "cache": "off"}
    settings = {at_once: Settings(jobs_at_once=at_once) for at_once in AT_ONCE}
    for row in _rows("draft", draft, settings, FRAME_PX, (rounds, batch)):
        yield {"picture": picture.name, **row}
    if find_spec("torch") is None:
        sys.stderr.write("no throughput of the studio engine: the studio extra is not installed\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        volume = Path(folder)
        with redirect_stdout(sys.stderr):
            build(["tiny", "--volume", folder])
        settings = {n: Settings(volume=volume, allow_synthetic=True, cache_mb=0, jobs_at_once=n) for n in AT_ONCE}
        for row in _rows("tiny studio", draft | TINY, settings, TINY_FRAME_PX, (rounds, batch)):
            yield {"picture": picture.name, **row}


def _rows(
    name: str, request: dict[str, Any], settings: dict[int, Settings], frame_px: int, size: tuple[int, int]
) -> Iterator[Row]:
    rounds, batch = size
    requests = [{**request, "detail": (k + 1) / (batch + 1)} for k in range(batch)]
    workers = {at_once: Worker(one) for at_once, one in settings.items()}
    for at_once, worker in workers.items():
        asyncio.run(_batch(requests[:1], worker, at_once, frame_px, _Measured()))  # loads, and compiles
    measured = {at_once: _Measured() for at_once in workers}
    for _ in range(rounds):
        for at_once, worker in workers.items():
            asyncio.run(_batch(requests, worker, at_once, frame_px, measured[at_once]))
    for at_once, found in measured.items():
        yield found.row(name, at_once)


async def _batch(
    requests: list[dict[str, Any]], worker: Worker, at_once: int, frame_px: int, measured: _Measured
) -> None:
    """Serve jobs that are handed over together."""

    def handle(job: Job, cancelled: Callable[[], bool]) -> dict[str, Any]:
        began_s = time.perf_counter()
        illustrate(parse_request(job["input"]), worker, frame_px=frame_px, cancelled=cancelled)
        measured.job_s.append(time.perf_counter() - began_s)
        return {}

    loop, began_s, cpu_s = WorkerLoop(handle, at_once), time.perf_counter(), time.process_time()
    await asyncio.gather(*(loop.serve({"id": f"job-{k}", "input": one}) for k, one in enumerate(requests)))
    measured.batch_s.append(time.perf_counter() - began_s)
    measured.cpu_s.append(time.process_time() - cpu_s)
