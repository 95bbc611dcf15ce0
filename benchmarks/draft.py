"""Rows of the draft engine: seconds by phase, quality, and the two ends it lies between."""

from __future__ import annotations

import resource
from dataclasses import asdict

import numpy as np

from benchmarks.clock import Clock, Row
from benchmarks.pictures import Picture
from pipeline.colour import palette_lab, srgb_to_lab
from pipeline.costs import ink_costs, nearest_inks
from pipeline.decode import decode_bytes
from pipeline.enforce import EnforceOptions, enforce
from pipeline.export.audit import audit_svg
from pipeline.export.png import render_png
from pipeline.quality import Quality, measure
from pipeline.sanitize import SanitizeOptions, sanitize
from pipeline.steer import SteerOptions, steer
from pipeline.types import IndexMap, Palette, Photo
from pipeline.vectorize import VectorizeOptions, vectorize

PNG_WIDTH_PX = 2048
MIN_AREA_PX = 48

TO_MAP = ("decode", "sanitize", "steer", "enforce")
TO_PNG = (*TO_MAP, "vectorize", "export")


def draft_rows(picture: Picture, palette: Palette, runs: int) -> list[Row]:
    """All rows of one picture: each phase, the sums, and the quality of the map beside its two baselines."""
    clock = Clock()
    photo, index, paths, nodes, size = _run(picture, palette, clock)
    clock.seconds.clear()
    for _ in range(runs):
        photo, index, paths, nodes, size = _run(picture, palette, clock)
    drawn = {"paths": paths, "nodes": nodes, "svg_bytes": size}
    rows = [{"name": phase, **clock.row((phase,))} for phase in TO_PNG]
    rows.append({"name": "photo to map", **clock.row(TO_MAP), **_quality(picture, photo, index)})
    rows.append({"name": "photo to SVG and PNG", **clock.row(TO_PNG), **drawn})
    untoned = _map(photo, palette, tone=0.0)
    rows.append({"name": "tone off", **_quality(picture, photo, untoned)})
    rows.append({"name": "baseline: nearest colour", **_quality(picture, photo, _nearest(photo, palette))})
    rows.append({"name": "baseline: one flat colour", **_quality(picture, photo, _flat(photo, palette))})
    rss_mb = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return [{"picture": picture.name, "n": runs, "rss_mb": rss_mb, **row} for row in rows]


def _run(picture: Picture, palette: Palette, clock: Clock) -> tuple[Photo, IndexMap, int, int, int]:
    photo = clock.time("decode", lambda: decode_bytes(picture.data))
    plate = clock.time("sanitize", lambda: sanitize(photo, SanitizeOptions()))
    illustration = clock.time("steer", lambda: steer(plate, palette, SteerOptions()))
    index = clock.time("enforce", lambda: enforce(illustration, palette, EnforceOptions()))
    drawing = clock.time("vectorize", lambda: vectorize(index, VectorizeOptions()))
    clock.time("export", lambda: (audit_svg(drawing.svg, palette), render_png(drawing, PNG_WIDTH_PX)))
    return photo, index, drawing.paths, drawing.nodes, len(drawing.svg.encode())


def _map(photo: Photo, palette: Palette, tone: float) -> IndexMap:
    plate = sanitize(photo, SanitizeOptions())
    return enforce(steer(plate, palette, SteerOptions(tone=tone)), palette, EnforceOptions())


def _nearest(photo: Photo, palette: Palette) -> IndexMap:
    return IndexMap(nearest_inks(*ink_costs(photo.rgb, palette)), palette)


def _flat(photo: Photo, palette: Palette) -> IndexMap:
    mean = srgb_to_lab(photo.rgb).reshape(-1, 3).mean(axis=0)
    nearest = int(((palette_lab(palette) - mean) ** 2).sum(axis=1).argmin())
    return IndexMap(np.full(photo.rgb.shape[:2], nearest, np.uint8), palette)


def _quality(picture: Picture, photo: Photo, index: IndexMap) -> Row:
    mask = picture.mask_for(photo)
    quality: Quality = measure(photo.rgb, index, min_area_px=MIN_AREA_PX, mask=mask, reach_px=picture.reach_px)
    figures = {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(quality).items()}
    return {**figures, "reach_px": None if mask is None else picture.reach_px}
