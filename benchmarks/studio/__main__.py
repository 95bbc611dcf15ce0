"""`python -m benchmarks.studio`: makes what is missing, then measures in one process after another."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path

import benchmarks.studio
from benchmarks.studio.bench import Ledger, bare_row, tell
from benchmarks.studio.part import NO_TIME, Task
from benchmarks.studio.plan import PARTS, WITHIN_S, planned
from benchmarks.studio.subject import draw_subject
from benchmarks.studio.tally import load_tally
from models.registry import MODES
from models.store import Store

ROOT = Path(__file__).resolve().parent.parent.parent
SIDES_PX: dict[str, int] = {"random": 1024, "tiny": 256}
"""Of the picture that is painted: what the networks of either size were made for."""

_SPARE_S = 5.0  # of the time that all may take, for processes to end in


def main() -> int:
    """Measure, print, and write the rows. Returns the exit code."""
    options = _options()
    since_s = time.monotonic()
    with tempfile.TemporaryDirectory() as made:
        task = Task(
            part="networks",
            modes=options.modes,
            only=options.only,
            volume=str(Path(made) / "volume" if options.volume is None else options.volume.resolve()),
            subject=str(Path(made) / "subject.npz"),
            tally=str(Path(made) / "tally.json"),
            runs=options.runs,
            paced_mb_s=options.paced,
            fp16_accumulation=options.fp16_accumulation,
            file=None if options.json is None else str(options.json.resolve()),
            run=datetime.now(UTC).isoformat(timespec="seconds"),
            since_s=since_s,
            began_s=since_s,
            ends_s=since_s + options.within - _SPARE_S,
        )
        if not task.steps():
            tell(since_s, f"nothing is called {options.only!r}")
            return 1
        if not _prepared(task, options.kind):
            return 1
        failed = [part for part in PARTS if not _measured(replace(task, part=part, began_s=time.monotonic()))]
        measured = _summed_up(task, options.within)
    tell(since_s, f"failed: {', '.join(failed)}" if failed else "done" if measured else "nothing was measured")
    return 0 if measured and not failed else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studio",
        description=benchmarks.studio.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--volume", type=Path, help="the models; written there where it is empty (default: made and thrown away)")
    sizes = parser.add_mutually_exclusive_group()
    size = sizes.add_argument
    size("--full", dest="kind", action="store_const", const="random", help="networks of the published sizes (default)")
    size("--tiny", dest="kind", action="store_const", const="tiny", help="small ones, for a CPU")
    add("--modes", type=_modes, default=MODES, help="comma-separated, of fast and faithful, or none (default: both)")
    add("--only", metavar="TEXT", default="", help="of the networks alone, those whose names contain this, or none")
    add("--runs", type=_runs, default=5, help="timed runs of each row at most (default 5)")
    within = "seconds that all of it may take (default %(default)g); inf: as many as it does"
    add("--within", type=_seconds, metavar="SECONDS", default=WITHIN_S, help=within)
    add("--paced", type=_rate, metavar="MB/S", help="most that the volume gives, such as 250 for a network's")
    add("--fp16-accumulation", action="store_true", help="sum up in half precision, as LIVERY_FP16_ACCUMULATION")
    add("--json", type=Path, help="file that the rows are added to (default: benchmarks/results/studio-DEVICE.jsonl)")
    parser.set_defaults(kind="random")
    return parser.parse_args()


def _modes(text: str) -> tuple[str, ...]:
    modes = () if text == "none" else tuple(dict.fromkeys(text.split(",")))
    if not set(modes) <= set(MODES):
        raise argparse.ArgumentTypeError(f"takes {', '.join(MODES)} or none, not {text}")
    return modes


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise argparse.ArgumentTypeError("must be more than 0, in 10^6 bytes a second")
    return rate


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise argparse.ArgumentTypeError("must be more than 0, in seconds")
    return seconds


def _runs(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a whole number from 1")
    return int(text)


def _prepared(task: Task, kind: str) -> bool:
    """See that the volume and the subject are there. Says what is wrong where they can't be."""
    volume = Path(task.volume)
    volume.mkdir(parents=True, exist_ok=True)
    found = Store(volume).kind
    if found not in {None, kind}:
        tell(task.since_s, f"the volume holds {found} weights, not {kind} ones: name another with --volume")
        return False
    builder = None
    if found is None:
        tell(task.since_s, f"writing a volume of {kind} weights")
        needed = task.modes[0] if len(task.modes) == 1 else "all"
        builder = _started("builder", kind, "--volume", task.volume, "--mode", needed)
    tell(task.since_s, "drawing what is measured on; kernels that are not in the cache are compiled")
    draw_subject(SIDES_PX[kind]).save(Path(task.subject))
    built = builder is None or builder.wait() == 0
    tell(task.since_s, "ready" if built else "the volume could not be written")
    return built


def _measured(task: Task) -> bool:
    """Do a part in a process of its own, where there is something of it to do and time for it.

    Returns whether it went well; one whose time runs out is ended, and did.
    """
    tally, steps = load_tally(Path(task.tally)), task.steps()
    mine = [step for step in steps if step.part == task.part]
    left_s = task.ends_s - time.monotonic()
    plan = planned(tally.ahead(steps), left_s, task.runs, tally.pace)
    if not mine or mine[0].name not in plan.names:
        why, went_well = NO_TIME, True
    else:
        process = _started("benchmarks.studio.part", json.dumps(asdict(task)))
        try:
            why, went_well = "its process failed", process.wait(left_s + _SPARE_S if isfinite(left_s) else None) == 0
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            why, went_well = NO_TIME, True
    tally = load_tally(Path(task.tally))
    tally.left_out |= {step.name: why for step in tally.ahead(mine)}
    tally.save(Path(task.tally))
    return went_well


def _summed_up(task: Task, within_s: float) -> bool:
    """Say what was left out, and write it as a row. Returns whether anything was measured."""
    tally = load_tally(Path(task.tally))
    for name, why in tally.left_out.items():
        tell(task.since_s, f"left out: {name}: {why}")
    if tally.rows_file is None:
        return False
    taken_s = round(time.monotonic() - task.since_s, 1)
    row = bare_row("benchmark", [taken_s], within_s=within_s if isfinite(within_s) else None, left_out=tally.left_out)
    Ledger(Path(tally.rows_file), {**tally.about, "part": "all"}, task.since_s).write(row)
    return True


def _started(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=ROOT)


if __name__ == "__main__":
    sys.exit(main())
