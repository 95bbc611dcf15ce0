"""`python -m benchmarks`: prints the table, and with `--json FILE` writes one JSON line for each row.

Times are warm, on this machine as it is: compare rows of one run with each other, not with rows of another machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.draft import draft_rows
from benchmarks.pictures import pictures
from benchmarks.startup import startup_row
from pipeline.palette import DEFAULT_PALETTE, Extract, parse_palette

Row = dict[str, Any]

# Goal, row, figure, how the pictures are summed up, limit, whether less is better.
GOALS = (
    ("photo to map, median s", "photo to map", "p50_s", "median", 0.6, True),
    ("photo to map, worst s", "photo to map", "p50_s", "max", 1.5, True),
    ("photo to SVG and 2048 px PNG, median s", "photo to SVG and PNG", "p50_s", "median", 1.0, True),
    ("photo to SVG and 2048 px PNG, worst s", "photo to SVG and PNG", "p50_s", "max", 2.0, True),
    ("process start to first SVG, s", "process start to first SVG", "p50_s", "max", 3.0, True),
    ("regions, median", "photo to map", "regions", "median", 450, True),
    ("regions, worst", "photo to map", "regions", "max", 800, True),
    ("ΔE over the optimum, tone off, median", "tone off", "delta_e_ratio", "median", 1.15, True),
    ("ΔE over the optimum, tone on, median", "photo to map", "delta_e_ratio", "median", 1.25, True),
    ("ΔE over the optimum, tone off, worst", "tone off", "delta_e_ratio", "max", 1.15, True),
    ("ΔE over the optimum, tone on, worst", "photo to map", "delta_e_ratio", "max", 1.25, True),
    ("edge F1, median", "photo to map", "edge_f1", "median", 0.80, False),
    ("outline recall, median", "photo to map", "outline_recall", "median", 0.85, False),
    ("undersized regions", "photo to map", "undersized", "max", 0, True),
)
COLUMNS = (
    "picture", "name", "n", "p50_s", "p95_s", "regions", "undersized", "delta_e_ratio", "edge_f1", "outline_recall",
    "reach_px", "nodes",
)  # fmt: skip


def main() -> int:
    """Measure, print, and write the rows. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each picture (default 5)")
    parser.add_argument("--palette", help="hex list or coolors link (default: the default palette)")
    parser.add_argument("--json", type=Path, help="file that the rows are written to")
    options = parser.parse_args()
    palette = DEFAULT_PALETTE if options.palette is None else parse_palette(options.palette)
    if isinstance(palette, Extract):
        parser.error("--palette takes colours here")
    rows: list[Row] = []
    for picture in pictures():
        for row in draft_rows(picture, palette, options.runs):
            rows.append(row)
            _print(row)
    rows.append(startup_row(pictures()[0], options.runs))
    _print(rows[-1])
    about = {"device": _device(), "commit": _commit()}
    sys.stdout.write(f"\n{about['device']}\n")
    for row in _summary(rows):
        rows.append(row)
        sys.stdout.write(f"{row['name']:44} {row['value']:>9.3f}  goal {row['goal']:<6} {row['verdict']}\n")
    if options.json is not None:
        options.json.write_text("".join(json.dumps({**about, **row}, ensure_ascii=False) + "\n" for row in rows))
    return 0


def _print(row: Row) -> None:
    cells = [f"{row['picture'][:24]:24}", f"{row['name'][:26]:26}"]
    cells += [f"{name} {row[name]}" for name in COLUMNS[3:] if row.get(name) is not None]
    sys.stdout.write("  ".join(cells) + "\n")
    sys.stdout.flush()


def _summary(rows: list[Row]) -> list[Row]:
    summary = []
    for name, source, figure, way, limit, less in GOALS:
        values = [row[figure] for row in rows if row["name"] == source and row.get(figure) is not None]
        value = float(np.median(values) if way == "median" else max(values))
        met = value <= limit if less else value >= limit
        verdict = "met" if met else "MISSED"
        summary.append({"name": f"goal: {name}", "value": value, "goal": limit, "verdict": verdict, "n": len(values)})
    return summary


def _device() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor()
    return f"{model}, {os.cpu_count()} cores"


def _commit() -> str | None:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())
