"""Tables for the docs: what the studio engine computes, and what its rows in `benchmarks/results` say."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.studio.least import TFLOP
from benchmarks.studio.targets import TARGETS, Target

RESULTS = Path(__file__).resolve().parent.parent / "results"
"""Folder of the rows, a file for each device."""

_PER_S = (50, 100, 200, 400, 800)  # 10^12 operations a second


def results_file(kind: str, device: str) -> Path:
    """Where a kind of rows of a device goes."""
    return RESULTS / f"{kind}-{re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')}.jsonl"


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
    return _for_each_device(folder, _device_table)


def compared_table(folder: Path = RESULTS) -> str:
    """What each optimisation is worth on each device, and Livery beside diffusers' pipelines; one line for none."""
    return _for_each_device(folder, _comparison_table)


def targets_table(folder: Path = RESULTS) -> str:
    """What each device should take, and what it takes where it was measured, as Markdown."""
    rows = [row for newest in _newest(folder) for row in newest.values()]
    cells = {(key, one.row, one.figure): _target_cells(one, key, rows) for key, all in TARGETS.items() for one in all}
    head = " | ".join(f"{key}, target | {key}, measured" for key in TARGETS)
    lines = [f"| work | {head} |", "|---|" + "---|---|" * len(TARGETS)]
    for name, figure in dict.fromkeys((name, figure) for _, name, figure in cells):
        found = " | ".join(cells.get((key, name, figure), " | ") for key in TARGETS)
        lines.append(f"| {name}{_SAID[figure]} | {found} |")
    return "\n".join(lines) + "\n"


_SAID = {"p50_s": "", "vram_peak_mb": ", VRAM", "loads": ", loads", "files_read": ", files read"}
"""What a row's name says of its figures."""


def _target_cells(target: Target, key: str, rows: Iterable[Mapping[str, Any]]) -> str:
    wanted = _figure(target.figure, target.most)
    wanted += "" if target.ratio is None else f" ({target.ratio:g} × floor)"
    row = next((row for row in rows if row["name"] == target.row and key in row["device"]), None)
    verdict = None if row is None else next((v for v in row["targets"] if v["figure"] == target.figure), None)
    if row is None or verdict is None:
        return f"{wanted} | not yet"
    ratio = "" if target.ratio is None or row["ratio"] is None else f" ({row['ratio']:g})"
    met = "met" if verdict["met"] else "missed"
    return f"{wanted} | {_figure(target.figure, verdict['measured'])}{ratio}, {met}"


def _figure(figure: str, value: float) -> str:
    if figure == "p50_s":
        return _time(value)
    return f"{value / 1024:.3g} GiB" if figure == "vram_peak_mb" else f"{value:g}"


def _newest(folder: Path) -> list[dict[str, Mapping[str, Any]]]:
    """Of each device, its newest rows by name."""
    files = sorted(folder.glob("studio-*.jsonl")) if folder.is_dir() else []
    rows = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    return [{row["name"]: row for row in found} for found in rows if found]


def _for_each_device(folder: Path, table: Callable[[Mapping[str, Mapping[str, Any]]], list[str]]) -> str:
    newest = _newest(folder)
    if not newest:
        return "No row yet: the benchmark has not run on a GPU.\n"
    return "\n".join("\n".join([_about(rows), "", *table(rows)]) + "\n" for rows in newest)


def _about(rows: Mapping[str, Mapping[str, Any]]) -> str:
    about = next(iter(rows.values()))
    return f"**{about['device']}**, torch {about['torch']}, {about['dtype']}, {about['floor_tflops']:g} TFLOP/s"


def _device_table(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = ["| work | n | p50 | p95 | ratio to the floor | VRAM peak, MiB | loads |", "|---|---|---|---|---|---|---|"]
    for name, row in rows.items():
        ratio = "" if row["ratio"] is None else f"{row['ratio']:g}"
        peak = "" if row["vram_peak_mb"] is None else str(row["vram_peak_mb"])
        times = f"{_time(row['p50_s'])} | {_time(row['p95_s'])}"
        lines.append(f"| {name} | {row['n']} | {times} | {ratio} | {peak} | {len(row['loads'])} |")
    return lines


def _comparison_table(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = ["| | before | after | times as fast | latents differ by | tolerance |", "|---|---|---|---|---|---|"]
    for name, row in rows.items():
        if row.get("speedup") is None:
            continue
        plain = "ours_p50_s" in row
        before, after = (row["p50_s"], row["ours_p50_s"]) if plain else (row["without_s"], row["with_s"])
        apart = f"{row['l2']:g}" if "l2" in row else "another picture"
        most = f"{row['tolerance_l2']:g}{'' if row['equal'] else ', exceeded'}" if plain else ""
        lines.append(f"| {name} | {_time(before)} | {_time(after)} | {row['speedup']:.2f} | {apart} | {most} |")
    return lines


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
