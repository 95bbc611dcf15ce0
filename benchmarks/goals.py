"""What the figures should be, and whether they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from benchmarks.tracers import NO_WORSE

Row = dict[str, Any]
DEFAULT, EXACT = "livery 0.8", "livery 0.5"
PHOTO_MAP, LARGE_MAP = "truck_2048", "truck_4096"


@dataclass(frozen=True, slots=True)
class Goal:
    """A limit on one figure of the rows of one name.

    Attributes:
        text: what is limited, with its unit.
        name, figure: of the rows; rows that lack the figure don't count.
        way: how the rows are summed up.
        limit: the figure may be at most this, or at least this where `at_least`.
        picture: the one picture or map that counts; None for all.
    """

    text: str
    name: str
    figure: str
    way: Literal["median", "max", "min"]
    limit: float
    at_least: bool = False
    picture: str | None = None

    def verdict(self, rows: Sequence[Row]) -> Row | None:
        """The goal's own row, None where nothing was measured."""
        values = [
            row[self.figure]
            for row in rows
            if row["name"] == self.name and row.get(self.figure) is not None and self.picture in {None, row["picture"]}
        ]
        if not values:
            return None
        value = {"median": float(np.median(values)), "max": float(max(values)), "min": float(min(values))}[self.way]
        met = value >= self.limit if self.at_least else value <= self.limit
        verdict = "met" if met else "MISSED"
        return {"name": f"goal: {self.text}", "value": value, "goal": self.limit, "verdict": verdict, "n": len(values)}


DRAFT = (
    Goal("photo to map, median s", "photo to map", "p50_s", "median", 0.6),
    Goal("photo to map, worst s", "photo to map", "p50_s", "max", 1.5),
    Goal("photo to SVG and 2048 px PNG, median s", "photo to SVG and PNG", "p50_s", "median", 1.0),
    Goal("photo to SVG and 2048 px PNG, worst s", "photo to SVG and PNG", "p50_s", "max", 2.0),
    Goal("process start to first SVG, s", "process start to first SVG", "p50_s", "max", 3.0),
    Goal("regions, median", "photo to map", "regions", "median", 450),
    Goal("regions, worst", "photo to map", "regions", "max", 800),
    Goal("ΔE over the optimum, tone off, median", "tone off", "delta_e_ratio", "median", 1.15),
    Goal("ΔE over the optimum, tone on, median", "photo to map", "delta_e_ratio", "median", 1.25),
    Goal("ΔE over the optimum, tone off, worst", "tone off", "delta_e_ratio", "max", 1.15),
    Goal("ΔE over the optimum, tone on, worst", "photo to map", "delta_e_ratio", "max", 1.25),
    Goal("edge F1, median", "photo to map", "edge_f1", "median", 0.80, at_least=True),
    Goal("outline recall, median", "photo to map", "outline_recall", "median", 0.85, at_least=True),
    Goal("undersized regions", "photo to map", "undersized", "max", 0),
)
TRACER = (
    *(
        Goal(f"seam px at {scale} in {renderer}, worst", DEFAULT, f"seam_px_{scale}_{renderer}", "max", 0)
        for scale in ("1x", "4x")
        for renderer in ("resvg", "skia", "librsvg")
    ),
    Goal("off-palette paints, worst", DEFAULT, "off_palette", "max", 0),
    Goal("conf48, 2048 px photo map", DEFAULT, "conf48", "max", 25, picture=PHOTO_MAP),
    Goal("agreement %, 2048 px photo map", DEFAULT, "agreement_pct", "min", 99.3, at_least=True, picture=PHOTO_MAP),
    Goal("agreement %, pixel-exact, worst", EXACT, "agreement_pct", "min", 99.9, at_least=True),
    Goal("nodes over vtracer's, 2048 px photo map", NO_WORSE, "nodes_ratio", "max", 0.33, picture=PHOTO_MAP),
    Goal("bytes over vtracer's, 2048 px photo map", NO_WORSE, "svg_bytes_ratio", "max", 0.18, picture=PHOTO_MAP),
    Goal("s, 2048 px photo map", DEFAULT, "p50_s", "max", 0.25, picture=PHOTO_MAP),
    Goal("s, 4096 px photo map", DEFAULT, "p50_s", "max", 0.8, picture=LARGE_MAP),
    Goal("MB over the map, 4096 px photo map", DEFAULT, "memory_mb", "max", 150, picture=LARGE_MAP),
    Goal("boundary error px, mean, worst", DEFAULT, "error_mean_px", "max", 0.08),
    Goal("boundary error px, p95, worst", DEFAULT, "error_p95_px", "max", 0.25),
    Goal("boundary error px, worst", DEFAULT, "error_max_px", "max", 0.8),
    Goal("wheel circles found, of 10", DEFAULT, "circles_found", "min", 10, at_least=True),
    Goal("wheel circles within 0.05 px, of 10", DEFAULT, "circles_exact", "min", 10, at_least=True),
    Goal("wheel circles, centre px, worst", DEFAULT, "centre_max_px", "max", 0.05),
    Goal("wheel circles, radius px, worst", DEFAULT, "radius_max_px", "max", 0.05),
)
GOALS = DRAFT + TRACER


def verdicts(rows: Sequence[Row]) -> list[Row]:
    """A row for each goal that `rows` have a figure for."""
    return [found for goal in GOALS if (found := goal.verdict(rows)) is not None]
