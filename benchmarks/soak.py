"""`python -m benchmarks.soak`: many draft jobs in one process, cancelled and poisoned ones among them; what they leave.

Prints one JSON line: how the resident memory grew per job (least squares, after a third of the jobs has warmed the
process up), descriptors and threads left over, times, and what became of the jobs.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.clock import Row
from benchmarks.commit import commit_of_tree
from pipeline.actions import illustrate
from pipeline.errors import LiveryError
from pipeline.request import parse_request
from pipeline.settings import load_settings
from pipeline.worker import Worker

SAMPLE = Path(__file__).resolve().parent.parent / "test_input.json"

POISON: tuple[dict[str, Any], ...] = (
    {"image": "not a picture"},
    {"image": "iVBORw0KGgoAAAANSUhEUgAAdTAAAHUwCAIAAAC"},
    {"palette": ["#000000"]},
    {"palette": {"extract": 65}},
    {"detail": float("nan")},
    {"output": {"png_widths": [10**9]}},
    {"unknown": 1},
    {"engine": "studio"},
)
"""What is laid over a good request."""

POISONED, CANCELLED = 7, 5
"""Every so many jobs one is poisoned, or cancelled."""

CHECKS = 12
"""Of a job's checks, so many are tried as the moment of its cancelling."""


def main() -> int:
    """Run the jobs and print the row. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--jobs", type=int, default=300, help="how many (default 300)")
    jobs = parser.parse_args().jobs
    if jobs < 9:
        parser.error("--jobs: at least 9, or there is no slope")
    row = {"name": "soak", "commit": commit_of_tree(), **soak(jobs)}
    sys.stdout.write(json.dumps(row) + "\n")
    return 0


def soak(jobs: int) -> Row:
    """The row of that many jobs; each differs from the one before it in its palette."""
    request = json.loads(SAMPLE.read_text("utf-8"))["input"]
    worker, outcomes = Worker(load_settings()), Counter[str]()
    memory_mb: list[float] = []
    before = 0, 0
    for number in range(jobs):
        outcomes[_outcome(_request(request, number), worker, _cancel_of(number))] += 1
        gc.collect()
        memory_mb.append(_resident_mb())
        if number == jobs // 3:
            before = _descriptors(), threading.active_count()
    settled = np.array(memory_mb[jobs // 3 :])
    slope, _ = np.polyfit(np.arange(len(settled)), settled, 1)
    return {
        "n": jobs,
        "memory_slope_mb_per_job": round(float(slope), 4),
        "memory_mb": round(memory_mb[-1], 1),
        "memory_peak_mb": round(max(memory_mb), 1),
        "descriptors_left": _descriptors() - before[0],
        "threads_left": threading.active_count() - before[1],
        "outcomes": dict(sorted(outcomes.items())),
    }


def _outcome(request: dict[str, Any], worker: Worker, cancelled: Callable[[], bool] | None) -> str:
    try:
        illustrate(parse_request(request), worker, cancelled=cancelled)
    except LiveryError as fault:
        return fault.code
    return "done"


def _request(good: dict[str, Any], number: int) -> dict[str, Any]:
    inks = [f"#{number * 7919 * (ink + 1) & 0xFFFFFF:06X}" for ink in range(4)]
    palette = list(dict.fromkeys(["#101010", "#F0F0F0", *inks]))
    request = {**good, "palette": palette, "cache": "off", "output": {"png_widths": [256]}}
    if number % POISONED == POISONED - 1:
        request |= POISON[number // POISONED % len(POISON)]
    return request


def _cancel_of(number: int) -> Callable[[], bool] | None:
    """What says when a job is cancelled: at one of its first checks, a different one each time."""
    if number % CANCELLED != CANCELLED - 1:
        return None
    asked = count()
    return lambda: next(asked) >= number % CHECKS


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


if __name__ == "__main__":
    sys.exit(main())
