"""`python -m benchmarks`: prints the table, and with `--json FILE` writes one JSON line for each row.

Times are warm, on this machine as it is: compare rows of one run with each other, not with rows of another machine.
The tracers' rows need the `bench` extra; potrace has its rows where it is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from benchmarks.clock import Row
from benchmarks.commit import commit_of_tree
from benchmarks.draft import draft_rows
from benchmarks.goals import verdicts
from benchmarks.maps import label_maps
from benchmarks.pictures import pictures
from benchmarks.startup import startup_row
from benchmarks.throughput import throughput_rows
from benchmarks.tracers import tracer_rows
from pipeline.palette import DEFAULT_PALETTE, Extract, parse_palette
from pipeline.types import Palette

PARTS = ("draft", "startup", "throughput", "tracer")

COLUMNS = (
    "p50_s", "p95_s", "jobs_per_min", "busy_cores", "regions", "undersized", "delta_e_ratio", "edge_f1",
    "outline_recall", "reach_px", "nodes", "nodes_ratio", "svg_bytes", "svg_bytes_ratio", "off_palette",
    "agreement_pct", "seam_px_1x_resvg", "seam_px_4x_resvg", "conf48", "error_mean_px", "error_p95_px", "error_max_px",
    "circles_found", "centre_max_px", "radius_max_px", "circles_exact", "centre_free_px", "memory_mb",
)  # fmt: skip


def main() -> int:
    """Measure, print, and write the rows. Returns the exit code."""
    options, palette = _options()
    parts = PARTS if options.only is None else (options.only,)
    about = {"device": _device(), "commit": commit_of_tree()}
    rows: list[Row] = []
    with options.json.open("w", encoding="utf-8") as lines:
        for row in _rows(parts, palette, options):
            rows.append(row)
            _print(row)
            _write(lines, {**about, **row})
        sys.stdout.write(f"\n{about['device']}\n")
        for row in verdicts(rows):
            sys.stdout.write(f"{row['name']:50} {row['value']:>9.3f}  goal {row['goal']:<6} {row['verdict']}\n")
            _write(lines, {**about, **row})
    return 0


def _options() -> tuple[argparse.Namespace, Palette]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=PARTS, help="measure this part alone")
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each picture (default 5)")
    parser.add_argument("--palette", help="hex list or coolors link for the draft (default: the default palette)")
    parser.add_argument("--maps", default="", metavar="TEXT", help="trace only the maps whose names contain this")
    parser.add_argument("--json", type=Path, default=Path(os.devnull), help="file that the rows are written to")
    options = parser.parse_args()
    palette = DEFAULT_PALETTE if options.palette is None else parse_palette(options.palette)
    if isinstance(palette, Extract):
        parser.error("--palette takes colours here")
    return options, palette


def _rows(parts: tuple[str, ...], palette: Palette, options: argparse.Namespace) -> Iterator[Row]:
    if "draft" in parts:
        for picture in pictures():
            yield from draft_rows(picture, palette, options.runs)
    if "startup" in parts:
        yield startup_row(pictures()[0], options.runs)
    if "throughput" in parts:
        yield from throughput_rows(pictures()[0], options.runs)
    if "tracer" in parts:
        for label_map in label_maps(options.maps):
            yield from tracer_rows(label_map, options.runs)


def _write(lines: TextIO, row: Row) -> None:
    """One JSON line at once: the whole table takes long, and what was measured should outlive an interruption."""
    lines.write(json.dumps(row, ensure_ascii=False) + "\n")
    lines.flush()


def _print(row: Row) -> None:
    cells = [f"{row['picture'][:24]:24}", f"{row['name'][:26]:26}"]
    cells += [f"{name} {row[name]}" for name in COLUMNS if row.get(name) is not None]
    sys.stdout.write("  ".join(cells) + "\n")
    sys.stdout.flush()


def _device() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor()
    return f"{model}, {os.cpu_count()} cores"


if __name__ == "__main__":
    sys.exit(main())
