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
from pathlib import Path

import benchmarks.studio
from benchmarks.studio.bench import tell
from benchmarks.studio.part import Task
from benchmarks.studio.subject import draw_subject
from models.registry import MODES, Mode
from models.store import Store

ROOT = Path(__file__).resolve().parent.parent.parent
SIDES_PX: dict[str, int] = {"random": 1024, "tiny": 256}
"""Of the picture that is painted: what the networks of either size were made for."""


def main() -> int:
    """Measure, print, and write the rows. Returns the exit code."""
    options = _options()
    since_s = time.monotonic()
    with tempfile.TemporaryDirectory() as made:
        task = Task(
            part="networks",
            volume=str(Path(made) / "volume" if options.volume is None else options.volume.resolve()),
            subject=str(Path(made) / "subject.npz"),
            runs=options.runs,
            only=options.only,
            paced_mb_s=options.paced,
            file=None if options.json is None else str(options.json.resolve()),
            run=datetime.now(UTC).isoformat(timespec="seconds"),
            since_s=since_s,
            began_s=since_s,
        )
        if not _prepared(task, options.kind, options.modes):
            return 1
        alone = [] if options.only == "none" else [task]
        tasks = [*alone, *(replace(task, part=mode) for mode in options.modes)]
        failed = [task.part for task in tasks if not _measured(replace(task, began_s=time.monotonic()))]
    tell(since_s, f"failed: {', '.join(failed)}" if failed else "done")
    return 1 if failed else 0


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
    add("--runs", type=_runs, default=5, help="timed runs of each row (default 5)")
    add("--paced", type=_rate, metavar="MB/S", help="most that the volume gives, such as 250 for a network's")
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


def _runs(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a whole number from 1")
    return int(text)


def _prepared(task: Task, kind: str, modes: tuple[Mode, ...]) -> bool:
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
        needed = modes[0] if len(modes) == 1 else "all"
        builder = _started("builder", kind, "--volume", task.volume, "--mode", needed)
    tell(task.since_s, "drawing what is measured on; kernels that are not in the cache are compiled")
    draw_subject(SIDES_PX[kind]).save(Path(task.subject))
    built = builder is None or builder.wait() == 0
    tell(task.since_s, "ready" if built else "the volume could not be written")
    return built


def _measured(task: Task) -> bool:
    """Do a task in a process of its own."""
    return _started("benchmarks.studio.part", json.dumps(asdict(task))).wait() == 0


def _started(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=ROOT)


if __name__ == "__main__":
    sys.exit(main())
