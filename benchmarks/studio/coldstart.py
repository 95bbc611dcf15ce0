"""How long a worker's models take to be there: `python -m benchmarks.studio.coldstart --volume FOLDER`.

Each run is a process of its own that loads every model of a job, in the job's order, from a volume that gives so many
bytes a second (`--paced`), and computes nothing. The floor is what the volume takes for the bytes. Above it stand the
seconds that the volume's line was idle before the last weights came, and those after. Runs take turns with four cases:
weights are read ahead or when they are asked for, libraries are imported ahead or when they are needed.

Without a GPU the networks are held in float16 in the host's memory, which needs 16 GB for the published sizes
(`python -m builder random --mode fast --volume FOLDER` writes such a volume). A GPU's own loads differ in what moving
weights takes, and in fusing the few-step adapter, which a CPU needs seconds for.

A row for each case goes to standard output, and to `benchmarks/results/coldstart-DEVICE.jsonl` or `--json FILE`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.clock import Row, spread_of
from benchmarks.commit import commit_of_tree
from benchmarks.studio.paced import PacedReads
from benchmarks.studio.table import RESULTS, results_file
from models import units
from models.device import Device, find_device
from models.floor import device_facts
from models.imports import Imports
from models.loader import Spent, Unit, Watch
from models.registry import MODES, Mode
from models.requests import Check, unchecked
from models.studio import StudioWorker
from pipeline.settings import Settings

CASES = {
    "read and imported ahead": (True, True),
    "read ahead": (True, False),
    "imported ahead": (False, True),
    "nothing ahead": (False, False),
}
"""Whether weights are read ahead, and whether libraries are imported ahead."""

SMALL_BYTES = 1 << 16
"""Of reads that no model waits long for, less than this."""

_HALF_CPU = Device("cpu", "cpu", "float16")
_COLUMNS = (
    "device",
    "volume",
    "GB",
    "ahead",
    "p50",
    "floor",
    "ratio",
    "line idle",
    "after the last weights",
    "imports",
)
_TIMES = ("seconds", "idle_s", "tail_s", "import_s", "imported_s", "read_s", "reading_s", "build_s", "device_s")


class Line(PacedReads):
    """A volume's line, which knows when the last of its weights came.

    Attributes:
        last_s: by `time.monotonic`; of what is smaller than `SMALL_BYTES`, configurations, nothing is said.
    """

    last_s = 0.0

    def __call__(self, descriptor: int, buffers: Sequence[Any], at: int) -> int:
        """As `PacedReads`."""
        count = super().__call__(descriptor, buffers, at)
        if count >= SMALL_BYTES:
            self.last_s = time.monotonic()
        return count


class LateImports(Imports):
    """Imports nothing before it is needed."""

    def begin(self, names: Iterable[str]) -> None:
        """Nothing."""

    def need(self, names: Iterable[str], ask: Check = unchecked) -> None:
        """As `Imports`, one after another."""
        for name in names:
            self._wait(name, ask)


def needed(mode: Mode) -> tuple[Unit[Any], ...]:
    """What a job of that mode loads, in its order."""
    first = (units.DETECTOR, units.SEGMENTER, units.INPAINTER, units.VAE, units.DEPTH, units.PROMPT)
    return (*first, units.PAINTERS[mode], units.UPSCALER)


def main() -> int:
    """Measure, print, and write the rows. Returns the exit code."""
    options = _options()
    if options.case is not None:
        print(json.dumps(_measured(options)))
        return 0
    runs: dict[str, list[Row]] = {case: [] for case in options.cases}
    for _ in range(options.runs):
        for case in options.cases:
            row = _in_own_process(options, case)
            if row is None:
                return 1
            runs[case].append(row)
            print(f"{case:24} {row['seconds']:7.1f} s, floor {row['floor_s']:.1f} s")
    began = datetime.now(UTC).isoformat(timespec="seconds")
    _write(options, [_row(options, began, case, found) for case, found in runs.items()])
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studio.coldstart",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--volume", type=Path, required=True, help="the models")
    add("--mode", choices=MODES, default="fast", help="of the job (default fast)")
    add("--paced", type=float, default=250.0, metavar="MB/S", help="most that the volume gives (default 250)")
    default_mb = Settings.model_fields["prefetch_mb"].default
    add("--prefetch", type=int, default=default_mb, metavar="MIB", help=f"held ahead (default {default_mb})")
    add("--runs", type=int, default=3, help="processes for each case (default 3)")
    add("--cases", nargs="+", choices=tuple(CASES), default=tuple(CASES), metavar="CASE", help=f"of {', '.join(CASES)}")
    add("--json", type=Path, help="file that the rows are added to")
    add("--case", choices=tuple(CASES), help=argparse.SUPPRESS)
    add("--began", type=float, help=argparse.SUPPRESS)
    return parser.parse_args()


def _in_own_process(options: argparse.Namespace, case: str) -> Row | None:
    """One run; None where its process failed, which has said why."""
    given = {"volume": options.volume, "mode": options.mode, "paced": options.paced, "prefetch": options.prefetch}
    arguments = [f"--{name}={value}" for name, value in given.items()]
    command = [sys.executable, "-m", "benchmarks.studio.coldstart", *arguments, f"--case={case}"]
    began_s = time.monotonic()
    done = subprocess.run([*command, f"--began={began_s}"], stdout=subprocess.PIPE, text=True, check=False)
    return None if done.returncode else dict(json.loads(done.stdout.splitlines()[-1]))


def _measured(options: argparse.Namespace) -> Row:
    """Load everything, in this process."""
    line = Line(options.paced)
    os.preadv = line  # type: ignore[assignment]
    reading, importing = CASES[options.case]
    worker = StudioWorker(options.volume, prefetch_mb=options.prefetch if reading else 0, find=_find_device)
    if not importing:
        worker.imports = LateImports()
    spent = _loaded(worker, needed(options.mode))
    ended_s, reads = time.monotonic(), worker.store.reads
    floor_s = reads.bytes / 1e6 / options.paced
    return {
        "seconds": ended_s - options.began,
        "floor_s": floor_s,
        "idle_s": line.last_s - options.began - floor_s,
        "tail_s": ended_s - line.last_s,
        "import_s": spent.import_s,
        "imported_s": worker.imports.spent_s,
        "read_s": spent.read_s,
        "reading_s": reads.spent_s,
        "build_s": spent.build_s,
        "device_s": spent.device_s,
        "files": reads.files,
        "files_ahead": reads.ahead,
        "bytes": reads.bytes,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "load_1m": round(os.getloadavg()[0], 1),
        "weights": worker.store.kind,
        **worker.do(lambda: device_facts(worker.residents().device)),
    }


def _find_device() -> Device:
    found = find_device()
    return found if found.kind == "cuda" else _HALF_CPU


def _loaded(worker: StudioWorker, asked: Sequence[Unit[Any]]) -> Spent:
    """Load these units as a job does, without computing. Returns what was waited for."""
    with worker.reading_ahead(asked):
        spent = [worker.job(unchecked).spent]
        watch = Watch(ended=lambda _, load: spent.append(load))
        for unit in asked:
            worker.do(partial(_load, worker, unit, watch))
    return sum(spent, Spent())


def _load(worker: StudioWorker, unit: Unit[Any], watch: Watch) -> None:
    worker.residents().get(unit, watch)


def _row(options: argparse.Namespace, run: str, case: str, found: Sequence[Row]) -> Row:
    """What the runs of a case come to: of times the median."""
    spread = spread_of([row["seconds"] for row in found])
    last = {name: value for name, value in found[-1].items() if name not in _TIMES}
    return {
        "run": run,
        "commit": commit_of_tree(),
        "name": f"cold start {options.mode}, {case}",
        "n": len(found),
        **spread,
        "ratio": round(spread["p50_s"] / last["floor_s"], 2),
        **{name: round(float(np.median([row[name] for row in found])), 2) for name in _TIMES[1:]},
        "paced_mb_s": options.paced,
        "prefetch_mb": options.prefetch,
        "cpus": os.cpu_count(),
        **last,
    }


def _write(options: argparse.Namespace, rows: Sequence[Row]) -> None:
    file = results_file("coldstart", rows[0]["device"]) if options.json is None else options.json
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def coldstart_table(folder: Path = RESULTS) -> str:
    """The newest row of each name, device and rate, as Markdown; one line where there are none."""
    rows: dict[tuple[object, ...], Row] = {}
    for file in sorted(folder.glob("coldstart-*.jsonl")):
        for row in map(json.loads, file.read_text("utf-8").splitlines()):
            rows[row["device"], row["name"], row["paced_mb_s"], row["prefetch_mb"]] = row
    if not rows:
        return "No row yet.\n"
    lines = [f"| case | {' | '.join(_COLUMNS)} |", "|---|" + "---|" * len(_COLUMNS)]
    lines += [f"| {row['name']} | {_cells(row)} |" for row in rows.values()]
    return "\n".join(lines) + "\n"


def _cells(row: Mapping[str, Any]) -> str:
    cells = [
        f"{row['device']}, {row['cpus']} processors",
        f"{row['paced_mb_s']:g} MB/s",
        f"{row['bytes'] / 1e9:.1f}",
        f"{row['prefetch_mb']} MiB, {row['files_ahead']} of {row['files']} files",
        f"{row['p50_s']:.1f} s",
        f"{row['floor_s']:.1f} s",
        f"{row['ratio']:.2f}",
        f"{row['idle_s']:.1f} s",
        f"{row['tail_s']:.1f} s",
        f"{row['import_s']:.1f} of {row['imported_s']:.1f} s waited for",
    ]
    return " | ".join(cells)


if __name__ == "__main__":
    sys.exit(main())
