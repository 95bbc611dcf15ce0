"""The builder's command line: warms, verifies and reports on a model volume.

    python -m builder plan     what warm would fetch: sizes, licences, disk
    python -m builder pin      revisions and checksums from the Hub into a lock file
    python -m builder warm     fetch what is missing (--pin: pin first what is not pinned)
    python -m builder verify   hash everything that is there
    python -m builder status   what is there
    python -m builder compile  kernels of a mode's painter for this GPU, which workers on such a GPU then use
    python -m builder tiny     a volume of tiny random models, for tests
    python -m builder random   a volume of full-size random models, for timing

Exit codes: 0 all fine; 1 something is missing, damaged or could not be had; 2 the options can't be used;
130 interrupted: what was fetched stays, and the next warm goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from builder.choice import Choice, optional_names
from builder.lease import BuilderLock
from builder.pin import pin_file, pin_volume
from builder.report import Report
from builder.survey import plan, status, verify
from builder.warm import warm
from models.registry import MODES
from pipeline.errors import LiveryError

FINE, FAILED, UNUSABLE, INTERRUPTED = 0, 1, 2, 130

_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code; argparse itself exits with 2 for options that it can't read."""
    given = _parser().parse_args(arguments)
    volume = given.volume if given.volume is not None else _from_environment("LIVERY_VOLUME")
    if volume is None and not (given.command == "pin" and given.lock is not None):
        return _complain("no volume: name its folder with --volume or LIVERY_VOLUME", UNUSABLE)
    report = Report(given.command)
    try:
        _COMMANDS[given.command](given, Path() if volume is None else Path(volume), report)
    except LiveryError as fault:
        report.faults.append(f"{fault.code}: {fault.message}")
    except ModuleNotFoundError as fault:
        return _complain(f"{fault.name} is not installed; it comes with the studio extra of this package", UNUSABLE)
    except KeyboardInterrupt:
        return _complain("interrupted; what was fetched stays, and the next run goes on from there", INTERRUPTED)
    _tell(report, as_json=given.json)
    return FAILED if report.faults else FINE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m builder", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("command", choices=tuple(_COMMANDS))
    add("--volume", metavar="FOLDER", help="the model volume (default: LIVERY_VOLUME)")
    add("--mode", choices=(*MODES, "all"), default="all", help="the models of which mode (default: all)")
    add(
        "--with",
        dest="optional",
        action="append",
        default=[],
        choices=optional_names(),
        help="an optional model as well",
    )
    add("--style-lora", metavar="OWNER/NAME/FILE", help="pin: where this deployment's style LoRA comes from")
    add("--allow-noncommercial", action="store_true", help="also models whose licence forbids commercial work")
    add("--json", action="store_true", help="one JSON object on standard output")
    add("--pin", action="store_true", help="warm: pin first what is not pinned")
    add("--update", action="store_true", help="pin: also what is pinned already, at its newest revision")
    add("--lock", type=Path, metavar="FILE", help="pin: write this lock file (default: lock.json on the volume)")
    add("--recheck", action="store_true", help="warm: hash what is there, and fetch again what is damaged")
    add("--jobs", type=_count, default=4, metavar="N", help="files at the same time (default 4)")
    add("--wait", type=float, default=3600.0, metavar="SECONDS", help="how long to wait for another builder")
    add(
        "--sizes",
        type=_sizes,
        metavar="WxH,...",
        help="compile: of the pictures (default: what photos of 1:1, 4:3, 3:2 and 16:9 are painted at)",
    )
    add("--seed", type=int, default=0, help="tiny, random: of the weights")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 64:
        raise argparse.ArgumentTypeError("must be 1 to 64")
    return number


def _sizes(text: str) -> tuple[tuple[int, int], ...]:
    sizes = []
    for size in text.split(","):
        sides = [int(side) for side in size.split("x")]
        if len(sides) != 2 or not all(64 <= side <= 4096 and side % 64 == 0 for side in sides):
            raise argparse.ArgumentTypeError("must be like 1024x1024,1216x832, in multiples of 64")
        sizes.append((sides[0], sides[1]))
    return tuple(sizes)


def _from_environment(name: str) -> str | None:
    """A variable that is set to more than nothing."""
    value = os.environ.get(name)
    return None if value == "" else value


def _choice(given: argparse.Namespace) -> Choice:
    allowed = _from_environment("LIVERY_ALLOW_NONCOMMERCIAL")
    return Choice(
        modes=MODES if given.mode == "all" else (given.mode,),
        optional=tuple(given.optional),
        style_lora=given.style_lora,
        allow_noncommercial=given.allow_noncommercial or (allowed is not None and allowed.lower() in _TRUE),
    )


def _lock(given: argparse.Namespace, volume: Path) -> BuilderLock:
    return BuilderLock(volume, given.wait, lambda: _note("another builder is at work on this volume; waiting for it"))


def _plan(given: argparse.Namespace, volume: Path, report: Report) -> None:
    plan(volume, _choice(given), report)


def _pin(given: argparse.Namespace, volume: Path, report: Report) -> None:
    if given.lock is not None:
        pin_file(given.lock, _choice(given), report, update=given.update)
        return
    with _lock(given, volume):
        pin_volume(volume, _choice(given), report, update=given.update)


def _warm(given: argparse.Namespace, volume: Path, report: Report) -> None:
    with _lock(given, volume) as lock:
        warm(volume, lock, _choice(given), report, pin=given.pin, recheck=given.recheck, jobs=given.jobs)


def _verify(given: argparse.Namespace, volume: Path, report: Report) -> None:
    verify(volume, _choice(given), report, jobs=given.jobs)


def _status(given: argparse.Namespace, volume: Path, report: Report) -> None:
    status(volume, _choice(given), report)


def _compile(given: argparse.Namespace, volume: Path, report: Report) -> None:
    from builder.kernels import SIZES, compile_painter  # noqa: PLC0415 - torch

    if given.mode == "all":
        report.faults.append("compile takes one mode in one run: --mode fast or --mode faithful")
        return
    with _lock(given, volume) as lock:
        compile_painter(volume, lock, _choice(given), report, given.sizes or SIZES)


def _synthetic(given: argparse.Namespace, volume: Path, report: Report) -> None:
    from builder.synthesise import synthesise  # noqa: PLC0415 - the writers bring every model's module along

    with _lock(given, volume) as lock:
        synthesise(volume, lock, _choice(given), report, kind=given.command, seed=given.seed)


_COMMANDS: Mapping[str, Callable[[argparse.Namespace, Path, Report], None]] = {
    "plan": _plan,
    "pin": _pin,
    "warm": _warm,
    "verify": _verify,
    "status": _status,
    "compile": _compile,
    "tiny": _synthetic,
    "random": _synthetic,
}


def _tell(report: Report, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(report.as_object(), indent=1, ensure_ascii=False) + "\n")
        return
    for line in report.as_lines():
        sys.stdout.write(line + "\n")


def _note(line: str) -> None:
    with tqdm.external_write_mode(file=sys.stderr):
        sys.stderr.write(line + "\n")


def _complain(line: str, code: int) -> int:
    _note(f"error: {line}")
    return code


if __name__ == "__main__":
    sys.exit(main())
