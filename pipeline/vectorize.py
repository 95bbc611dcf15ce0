"""Phase 4: IndexMap → Drawing.

A tracer turns the map into outlines, the writer turns the outlines into SVG. An outline names its ink by index, and the
writer prints that ink's hex value, so there is no way to write a colour that the palette lacks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.export.svg import write_svg
from pipeline.trace.vtracer import trace
from pipeline.types import (
    UNPAINTED,
    Drawing,
    IndexMap,
    InkUse,
    Shape,
    Warning,
)


@dataclass(frozen=True, slots=True)
class VectorizeOptions:
    """How the outlines are made.

    Attributes:
        tracer: `vtracer` is the only one.
        deadline_s: seconds that tracing may take.
    """

    tracer: Literal["vtracer"] = "vtracer"
    deadline_s: float = 30.0


def vectorize(
    image: IndexMap,
    options: VectorizeOptions,
    *,
    title: str = "Livery illustration",
    cancelled: Callable[[], bool] | None = None,
) -> Drawing:
    """`image` as an SVG whose viewBox is the map's frame. Unpainted pixels stay transparent.

    Args:
        image: index uint8 [H, W].
        options: the tracer and its time.
        title: the drawing's `<title>`.
        cancelled: asked at least every 50 ms while the tracer runs; True ends it.

    Raises:
        Cancelled, DeadlineExceeded: tracing was stopped.
        InternalError: the tracer failed; the log says why.
        ValueError: the title or an ink's name can't be written in XML.
    """
    tracing = trace(image, deadline_s=options.deadline_s, cancelled=cancelled)
    svg = write_svg(tracing.shapes, image.palette, image.width_px, image.height_px, title=title)
    uses = ink_uses(tracing.shapes)
    return Drawing(svg, image.width_px, image.height_px, tracing, uses=uses, warnings=_undrawn(image, uses))


def _undrawn(image: IndexMap, uses: Mapping[int, InkUse]) -> tuple[Warning, ...]:
    """A warning where an ink is in the map but in no outline: the tracer makes nothing of spots one pixel thin."""
    areas_px = np.bincount(image.index.ravel(), minlength=UNPAINTED + 1)[:UNPAINTED]
    names = [image.palette.inks[ink].name for ink in np.flatnonzero(areas_px).tolist() if ink not in uses]
    if not names:
        return ()
    return (Warning("ink_not_drawn", f"too little was left of these inks to draw an outline: {', '.join(names)}"),)


def ink_uses(shapes: Sequence[Shape]) -> dict[int, InkUse]:
    """Paths and nodes for each ink that `shapes` use, in the palette's order."""
    paths = Counter(shape.ink for shape in shapes)
    nodes: Counter[int] = Counter()
    for shape in shapes:
        nodes[shape.ink] += shape.nodes
    return {ink: InkUse(paths[ink], nodes[ink]) for ink in sorted(paths)}
