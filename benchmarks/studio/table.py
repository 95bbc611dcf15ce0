"""Tables for the docs: what the studio engine computes, and what its rows in `benchmarks/results` say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.studio.least import TFLOP

RESULTS = Path(__file__).resolve().parent.parent / "results"
"""Folder of the rows, a file for each device."""

_PER_S = (50, 100, 200, 400, 800)  # 10^12 operations a second


def floors_table() -> str:
    """Each piece of work with its operations, and what they take at several rates, as Markdown."""
    head = " | ".join(f"at {rate}/s" for rate in _PER_S)
    lines = [f"| work | TFLOP | {head} |", "|---|---|" + "---|" * len(_PER_S)]
    for name, tflop in TFLOP.items():
        times = " | ".join(_time(tflop / rate) for rate in _PER_S)
        lines.append(f"| {name} | {tflop:g} | {times} |")
    return "\n".join(lines) + "\n"


def results_table(folder: Path = RESULTS) -> str:
    """The newest row of each name and device, as Markdown; one line where there are none."""
    files = sorted(folder.glob("studio-*.jsonl")) if folder.is_dir() else []
    if not files:
        return "No row yet: the benchmark has not run on a GPU.\n"
    return "\n".join(_device_table(json.loads(line) for line in file.read_text().splitlines()) for file in files)


def _device_table(rows: Iterable[Mapping[str, Any]]) -> str:
    newest = {row["name"]: row for row in rows}
    about = next(iter(newest.values()))
    lines = [f"**{about['device']}**, torch {about['torch']}, {about['dtype']}, {about['floor_tflops']:g} TFLOP/s", ""]
    lines += ["| work | n | p50 | p95 | ratio to the floor | VRAM peak, MiB | loads |", "|---|---|---|---|---|---|---|"]
    for name, row in newest.items():
        ratio = "" if row["ratio"] is None else f"{row['ratio']:g}"
        peak = "" if row["vram_peak_mb"] is None else str(row["vram_peak_mb"])
        times = f"{_time(row['p50_s'])} | {_time(row['p95_s'])}"
        lines.append(f"| {name} | {row['n']} | {times} | {ratio} | {peak} | {len(row['loads'])} |")
    return "\n".join(lines) + "\n"


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
