"""Rows of the studio engine on random weights: `python -m benchmarks.studio [--volume FOLDER] [--size tiny]`.

Times don't depend on the weights, so each network has its real size and random ones (`--size tiny` takes small ones, to
see the harness run). What a random network makes of a picture means nothing, so the boxes and the holes are fixed, and
phases 3 and 4 get flat art. That every value is finite is checked where pictures are made (`models/vae.py`,
`models/rrdbnet.py`). How good a picture is, only the published weights can show.

One line of JSON for each row, and a table: the device, torch and its flags, n, p50, p95, the most GPU memory, loads,
and the ratio to the floor: the operations that the networks take, at the rate of a product of matrices measured in the
same run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.draft import Clock
from builder.__main__ import main as build
from models.floor import Floor, device_facts, measure_floor
from models.requests import BoxF
from models.studio import Studio, StudioWorker
from pipeline.buckets import fit_canvas
from pipeline.canny import canny_edges
from pipeline.enforce import EnforceOptions, enforce
from pipeline.modes import paint_options
from pipeline.palette import DEFAULT_PALETTE
from pipeline.schema import Style
from pipeline.types import U8, Illustration, Mask
from pipeline.vectorize import VectorizeOptions, vectorize
from pipeline.vehicle import PHRASES
from tests.make_sample import draw_sample

Row = dict[str, Any]
Mode = Literal["fast", "faithful"]

TFLOP: Mapping[str, float] = {
    "detect": 1.26,
    "segment": 5.96,
    "inpaint": 0.44,
    "depth": 0.1,
    "paint fast": 51.5,
    "paint faithful": 730.0,
    "enlarge": 11.97,
}
"""Counted from the networks' configurations, for one picture of 1024 × 1024 px, decoding included."""

BOXES = ((0.1, 0.4, 0.16, 0.46), (0.3, 0.5, 0.36, 0.54), (0.5, 0.6, 0.6, 0.64), (0.7, 0.4, 0.74, 0.46),
         (0.2, 0.7, 0.3, 0.74), (0.6, 0.3, 0.66, 0.34))  # fmt: skip
"""Six things to cut out and fill in, as shares of the picture."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured on: a photo, its holes, and flat art of the painted size."""

    rgb: U8
    boxes: tuple[BoxF, ...]
    holes: Mask
    art: U8


def main() -> int:
    """Measure, print, and write the rows. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studio", description=__doc__)
    parser.add_argument("--volume", type=Path, help="a volume of random weights (default: one is made and thrown away)")
    parser.add_argument(
        "--size", choices=("random", "tiny"), default="random", help="of the networks (default: random, full)"
    )
    parser.add_argument("--mode", choices=("fast", "faithful"), action="append", help="only this mode (repeatable)")
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each row (default 5)")
    parser.add_argument("--json", type=Path, help="file that the rows are added to")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        volume = options.volume if options.volume is not None else Path(made)
        modes = ("fast", "faithful") if options.mode is None else tuple(dict.fromkeys(options.mode))
        needed = modes[0] if len(modes) == 1 else "all"
        if options.volume is None and build([options.size, "--volume", str(volume), "--mode", needed]) != 0:
            return 1
        for row in studio_rows(volume, modes, options.runs):
            _tell(row, options.json)
    return 0


def studio_rows(volume: Path, modes: tuple[Mode, ...], runs: int) -> Iterator[Row]:
    """A row for the first run of each part, which loads its model, and one for the runs after."""
    worker = StudioWorker(volume)
    device = worker.device
    floor = worker.thread.run(lambda: measure_floor(device))
    facts: Row = {**worker.thread.run(lambda: device_facts(device)), "weights": worker.store.kind}
    yield {**facts, "name": "floor", "tflops": round(floor.tflops, 2), "copy_gb_s": round(floor.copy_gb_s, 1)}
    subject = _subject(worker.job(_never).native_px())
    for name, part in _parts(subject, modes):
        yield {**facts, **_measured(worker, name, part, runs, floor)}
    yield from ({**facts, **row} for row in _inked(subject.art, runs))


Part = Callable[[Studio], object]


def _parts(subject: Subject, modes: tuple[Mode, ...]) -> Iterator[tuple[str, Part]]:
    fresh = _changing(subject.rgb)
    yield "detect", lambda studio: studio.detect(subject.rgb, PHRASES, 0.35, 0.25)
    yield "segment", lambda studio: studio.segment(fresh(), subject.boxes)
    yield "inpaint", lambda studio: studio.inpaint(subject.rgb, subject.holes, _never)
    yield "depth", lambda studio: studio.depth(subject.rgb)
    for mode in modes:
        yield f"paint {mode}", _painting(subject, mode)
    yield "enlarge", lambda studio: studio.enlarge(subject.art, _never)


def _painting(subject: Subject, mode: Mode) -> Part:
    options = paint_options(mode, Style(), 42)
    canny = canny_edges(subject.rgb)

    def paint(studio: Studio) -> U8:
        return studio.paint(options.request(studio.depth(subject.rgb), canny), _never)

    return paint


def _measured(worker: StudioWorker, name: str, part: Part, runs: int, floor: Floor) -> Row:
    first = Clock()
    studio = worker.job(_never)
    first.time(name, lambda: part(studio))
    clock, warm = Clock(), worker.job(_never)
    for _ in range(runs):
        clock.time(name, lambda: part(warm))
    row = clock.row((name,))
    floor_s = TFLOP[name] / floor.tflops
    peak_mb = warm.vram_peak_mb()
    return {
        "name": name,
        "n": runs,
        **row,
        "first_s": round(first.seconds[name][0], 3),
        "loads": sorted(studio.loads),
        "loads_after": len(warm.loads),
        "floor_s": round(floor_s, 4),
        "ratio": round(row["p50_s"] / floor_s, 2) if worker.store.kind == "random" else None,
        "vram_peak_mb": None if peak_mb is None else round(peak_mb),
        "warnings": sorted({warning.code for warning in (*studio.warnings, *warm.warnings)}),
    }


def _inked(art: U8, runs: int) -> Iterator[Row]:
    """Phases 3 and 4 on flat art, at the size that the upscaler gives and at the painted one."""
    for scale in (4, 1):
        clock = Clock()
        large = np.repeat(np.repeat(art, scale, axis=0), scale, axis=1)
        for _ in range(1 + runs):
            _ink_once(large, clock)
        for name, seconds in clock.seconds.items():
            del seconds[0]
            yield {"name": f"{name} at {large.shape[1]} px", "n": runs, **clock.row((name,))}


def _ink_once(art: U8, clock: Clock) -> None:
    whole = np.full(art.shape[:2], 255, np.uint8)
    illustration = Illustration(art, whole, whole, 1.0)
    index = clock.time("ink", lambda: enforce(illustration, DEFAULT_PALETTE, EnforceOptions()))
    clock.time("trace", lambda: vectorize(index, VectorizeOptions()))


def _subject(native_px: int) -> Subject:
    photo = draw_sample().rgb
    canvas = fit_canvas(photo.shape[1], photo.shape[0], native_px)
    rgb = canvas.lay(photo)
    height_px, width_px = rgb.shape[:2]
    boxes = tuple((x0 * width_px, y0 * height_px, x1 * width_px, y1 * height_px) for x0, y0, x1, y1 in BOXES)
    holes = np.zeros((height_px, width_px), bool)
    for x0, y0, x1, y1 in boxes:
        holes[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1] = True
    inks = DEFAULT_PALETTE.rgb()
    whole = np.full(rgb.shape[:2], 255, np.uint8)
    index = enforce(Illustration(rgb, whole, whole, 1.0), DEFAULT_PALETTE, EnforceOptions()).index
    return Subject(rgb, boxes, holes, np.ascontiguousarray(inks[index]))


def _changing(rgb: U8) -> Callable[[], U8]:
    """Gives the picture with another first pixel each time, so that nothing is taken that a model keeps of it."""
    turn = count()

    def fresh() -> U8:
        changed = rgb.copy()
        changed[0, 0, 0] = next(turn) % 256
        return changed

    return fresh


def _never() -> None:
    """No job is cancelled here."""


def _tell(row: Row, file: Path | None) -> None:
    line = json.dumps(row, ensure_ascii=False)
    cells = [f"{row['name']:20}"]
    cells += [f"{key} {row[key]}" for key in ("tflops", "copy_gb_s", "first_s", "p50_s", "p95_s", "floor_s", "ratio",
                                              "vram_peak_mb", "loads_after") if row.get(key) is not None]  # fmt: skip
    sys.stdout.write("  ".join(cells) + "\n")
    sys.stdout.flush()
    if file is not None:
        with file.open("a", encoding="utf-8") as lines:
            lines.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
