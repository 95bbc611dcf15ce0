"""Rows of the tracers: Livery at several tolerances beside vtracer and potrace, on every label map.

Each tool runs in a fresh process: a crop of the map warms it up, then come `runs` timed traces of the whole map. Its
memory is the peak of that process above what it held when the map was loaded and the tool was warm.
"""

from __future__ import annotations

import io
import multiprocessing
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import vtracer
from PIL import Image

from benchmarks.maps import LabelMap
from benchmarks.score import (
    boundary_error,
    centre_freedom,
    circle_errors,
    closer_look,
    label_agreement,
    seams_at_1x,
    text_figures,
)
from pipeline.types import IndexMap
from pipeline.vectorize import VectorizeOptions, vectorize

Row = dict[str, Any]
Tracer = Callable[[IndexMap], str]

TOLERANCES_PX = (0.5, 0.8, 1.3, 2.0, 2.5)
REFERENCE = "vtracer stacked spline"
ANY_TRACER = "any tracer"
"""The row of what the map itself leaves open."""

NO_WORSE = "livery, agreement no lower"
"""The row of the coarsest Livery tracing that agrees with its map at least as well as `REFERENCE`."""

CLOSER_LOOK_MAX_PX = 2048
"""Long side of the largest map that is looked at four times enlarged."""

WARM_UP_PX = 256
COMPILING_DEADLINE_S = 600.0
"""The first trace of all compiles the kernels."""

VTRACER: dict[str, str | int] = {"color_precision": 8, "layer_difference": 0, "filter_speckle": 2, "path_precision": 2}
POTRACE = ("-t", "2", "-a", "1", "-O", "0.2")

_POTRACE_GROUP = re.compile(r"<g\b.*</g>", re.DOTALL)
_SVG_HEAD = '<svg xmlns="http://www.w3.org/2000/svg" width="{0}" height="{1}" viewBox="0 0 {0} {1}">'


@dataclass(frozen=True, slots=True)
class Traced:
    """What a tool's own process reports: the SVG, seconds of each run, and its peak memory above the map in MB."""

    svg: str
    seconds: list[float]
    memory_mb: float | None


def tracers() -> dict[str, Tracer]:
    """Every tool that is here, by the name of its row; vtracer's `REFERENCE` comes first."""
    tools: dict[str, Tracer] = {
        REFERENCE: partial(with_vtracer, hierarchical="stacked", mode="spline"),
        "vtracer stacked polygon": partial(with_vtracer, hierarchical="stacked", mode="polygon"),
        "vtracer cutout spline": partial(with_vtracer, hierarchical="cutout", mode="spline"),
    }
    if shutil.which("potrace") is not None:
        tools["potrace per ink"] = with_potrace
    return tools | {f"livery {value}": partial(with_livery, tolerance_px=value) for value in TOLERANCES_PX}


def tracer_rows(label_map: LabelMap, runs: int) -> Iterator[Row]:
    """One row for each tool, and `NO_WORSE` last; sizes are also given as a share of the reference's."""
    rows: list[Row] = []
    for name, tracer in tracers().items():
        traced = _in_a_process(tracer, label_map.image, runs)
        row = {"name": name, **_times(traced), **score(traced.svg, label_map)}
        for figure in ("nodes", "svg_bytes"):
            row[f"{figure}_ratio"] = row[figure] / (rows[0] if rows else row)[figure]
        rows.append(row)
        yield _labelled(row, label_map, runs)
    if label_map.circles:
        size_px = (label_map.image.width_px, label_map.image.height_px)
        free_px = [centre_freedom(size_px, circle) for circle in label_map.circles]
        yield _labelled({"name": ANY_TRACER, "centre_free_px": max(free_px)}, label_map, runs)
    as_good = [row for row in rows if "livery" in row["name"] and row["agreement_pct"] >= rows[0]["agreement_pct"]]
    if as_good:
        best = min(as_good, key=lambda row: int(row["nodes"]))
        kept = ("agreement_pct", "nodes", "svg_bytes", "nodes_ratio", "svg_bytes_ratio")
        yield _labelled({"name": NO_WORSE, "of": best["name"], **{key: best[key] for key in kept}}, label_map, runs)


def score(svg: str, label_map: LabelMap) -> Row:
    """Every figure of one SVG that its map allows."""
    image = label_map.image
    row = {**text_figures(svg, image.palette), **label_agreement(svg, image), **seams_at_1x(svg, image)}
    if max(image.index.shape) <= CLOSER_LOOK_MAX_PX and label_map.kind != "draft":
        row |= closer_look(svg, image)
    if label_map.truth8x is not None:
        row |= boundary_error(svg, label_map.truth8x, image.palette)
    if label_map.circles:
        row |= circle_errors(svg, label_map.circles)
    return row


def _labelled(row: Row, label_map: LabelMap, runs: int) -> Row:
    size = {"map": label_map.kind, "width_px": label_map.image.width_px, "height_px": label_map.image.height_px}
    figures = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
    return {"picture": label_map.name, "n": runs, **size, **figures}


def _times(traced: Traced) -> Row:
    p50_s, p95_s = np.quantile(traced.seconds, (0.5, 0.95)).tolist()
    return {"p50_s": p50_s, "p95_s": p95_s, "memory_mb": traced.memory_mb}


def with_livery(image: IndexMap, *, tolerance_px: float) -> str:
    """Livery's stacked drawing."""
    options = VectorizeOptions(
        tracer="livery", stacking="stacked", tolerance_px=tolerance_px, deadline_s=COMPILING_DEADLINE_S
    )
    return vectorize(image, options).svg


def with_vtracer(image: IndexMap, *, hierarchical: str, mode: str) -> str:
    """What vtracer makes of a PNG in the palette's colours, which is how its users call it; encoding is in the time."""
    coded = io.BytesIO()
    Image.fromarray(image.palette.rgb()[image.index]).save(coded, "png", compress_level=1)
    svg: str = vtracer.convert_raw_image_to_svg(
        coded.getvalue(), img_format="png", colormode="color", hierarchical=hierarchical, mode=mode, **VTRACER
    )
    return svg


def with_potrace(image: IndexMap) -> str:
    """What potrace makes of each ink by itself, one group for each, joined into one SVG."""
    head = f"P4\n{image.width_px} {image.height_px}\n".encode()
    groups = []
    for number in np.unique(image.index).tolist():
        bitmap = head + np.packbits(image.index == number, axis=1).tobytes()
        colour = image.palette.hexes[number]
        command = ["potrace", "--svg", *POTRACE, "--color", colour, "--output", "-", "-"]
        done = subprocess.run(command, input=bitmap, capture_output=True, check=True)
        group = _POTRACE_GROUP.search(done.stdout.decode())
        if group is None:
            raise ValueError("potrace wrote no group")
        groups.append(group[0])
    return "\n".join((_SVG_HEAD.format(image.width_px, image.height_px), *groups, "</svg>"))


def _in_a_process(tracer: Tracer, image: IndexMap, runs: int) -> Traced:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure, tracer, image, runs).result()


def _measure(tracer: Tracer, image: IndexMap, runs: int) -> Traced:
    """Run in the tool's own process."""
    tracer(_crop(image))
    tracer(_crop(image))
    before_mb, own = _memory_mb("VmRSS"), tracer is not with_potrace
    _forget_the_peak()
    svg = tracer(image)
    peak_mb = _memory_mb("VmHWM")
    seconds = []
    for _ in range(runs):
        began_s = time.perf_counter()
        tracer(image)
        seconds.append(time.perf_counter() - began_s)
    memory_mb = peak_mb - before_mb if own and before_mb is not None and peak_mb is not None else None
    return Traced(svg, seconds, memory_mb)


def _crop(image: IndexMap) -> IndexMap:
    """The middle of the map."""
    top, left = (max((side - WARM_UP_PX) // 2, 0) for side in image.index.shape)
    return IndexMap(np.ascontiguousarray(image.index[top:, left:][:WARM_UP_PX, :WARM_UP_PX]), image.palette)


def _memory_mb(field: str) -> float | None:
    """A figure of this process from Linux's /proc, None elsewhere.

    `getrusage` won't do: a child's peak there begins at its parent's.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    return None if found is None else int(found[1]) / 1024.0


def _forget_the_peak() -> None:
    """Lower the kernel's record of the peak to what is held now; without the right to, the warm-up's peak stands."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return
