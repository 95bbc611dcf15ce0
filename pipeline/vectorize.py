"""Phase 4: IndexMap → Drawing.

A tracer turns the map into outlines, the writer turns the outlines into SVG. An outline names its ink by index, and the
writer prints that ink's hex value, so there is no way to write a colour that the palette lacks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.export.svg import write_svg
from pipeline.trace import livery, vtracer
from pipeline.trace.raster import agreement_pct
from pipeline.types import (
    Certificate,
    Drawing,
    IndexMap,
    InkUse,
    Shape,
    Tracing,
    Warning,
)

TITLE = "Livery illustration"


@dataclass(frozen=True, slots=True)
class VectorizeOptions:
    """How the outlines are made.

    Attributes:
        tracer: Livery's own, or vtracer, which knows nothing of the next four fields.
        stacking: `stacked` shapes cover those before them, `abutting` ones meet edge to edge.
        tolerance_px: how far an outline may leave the map's.
        curves: whether there are curves besides straight lines.
        edges: whether `Tracing.edges` are wanted, for a single cut.
        min_feature_px: width below which the map was made to hold nothing, for the certificate; None where it was not.
        deadline_s: seconds that tracing may take.
    """

    tracer: Literal["livery", "vtracer"] = "livery"
    stacking: Literal["stacked", "abutting"] = "stacked"
    tolerance_px: float = 0.8
    curves: bool = True
    edges: bool = False
    min_feature_px: float | None = None
    deadline_s: float = 30.0


def vectorize(
    image: IndexMap,
    options: VectorizeOptions,
    *,
    title: str = TITLE,
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
    tracing = _trace(image, options, cancelled)
    certificate = _certify(image, options, tracing) if options.tracer == "livery" else None
    svg = write_svg(
        tracing.shapes, image.palette, image.width_px, image.height_px, title=title, certificate=certificate
    )
    uses = ink_uses(tracing.shapes)
    warnings = _undrawn(image, uses)
    return Drawing(svg, image.width_px, image.height_px, tracing, certificate, uses, warnings)


def _trace(image: IndexMap, options: VectorizeOptions, cancelled: Callable[[], bool] | None) -> Tracing:
    if options.tracer == "vtracer":
        return vtracer.trace(image, deadline_s=options.deadline_s, cancelled=cancelled)
    wanted = livery.TraceOptions(options.tolerance_px, options.stacking, options.curves, options.edges)
    return livery.trace(image, wanted, deadline_s=options.deadline_s, cancelled=cancelled)


def _certify(image: IndexMap, options: VectorizeOptions, tracing: Tracing) -> Certificate:
    return Certificate(
        tolerance_px=options.tolerance_px,
        agreement_pct=agreement_pct(image, tracing.shapes),
        nodes=sum(shape.nodes for shape in tracing.shapes),
        paths=len(tracing.shapes),
        primitives=tracing.primitives,
        min_feature_px=options.min_feature_px,
    )


def _undrawn(image: IndexMap, uses: Mapping[int, InkUse]) -> tuple[Warning, ...]:
    """A warning where an ink is in the map but in no outline: the tracer makes nothing of spots one pixel thin."""
    names = [ink.name for i, ink in enumerate(image.palette.inks) if i not in uses and bool((image.index == i).any())]
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
