"""The presets of `output`, and which of its fields mean nothing beside which others.

A preset stands for the fields that its trade would set. It fills in only what the caller left out, and only what has a
meaning among what the caller set; the report repeats the outcome.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.physical import dots_across, has_physical_size
from pipeline.schema import MAX_PNG_WIDTH_PX, MIN_PNG_WIDTH_PX, Output

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "web": {"formats": ("svg", "png"), "tolerance_px": 1.3},
    "print": {"formats": ("svg", "png", "pdf"), "width_mm": 297.0, "dpi": 300.0},
    "screenprint": {
        "formats": ("separations", "pdf"),
        "width_mm": 300.0,
        "min_feature_mm": 0.3,
        "trap_mm": 0.3,
        "registration_marks": True,
    },
    "vinyl": {"formats": ("dxf", "svg"), "width_mm": 600.0, "min_feature_mm": 1.0, "stacking": "abutting"},
    "plotter": {"formats": ("dxf", "svg"), "width_mm": 297.0, "single_cut": True, "dxf_curves": False},
}
"""Preset → the fields it sets, those first that decide whether others mean anything. 297 mm is the long side of A4."""

_ONLY_IN: Mapping[str, str] = {
    "png_widths": "png",
    "trap_mm": "separations",
    "registration_marks": "separations",
    "single_cut": "dxf",
    "dxf_curves": "dxf",
}
"""Field → the one format that it shapes."""

_OWN_TRACER = frozenset({"stacking", "tolerance_px", "single_cut", "trap_mm"})
"""Fields that only Livery's own tracer can follow."""

_SIZED = frozenset({"min_feature_mm", "trap_mm"})
"""Fields in millimetres that the drawing itself has to follow."""


def expand(output: Output) -> Output:
    """`output` with its preset's values where the caller gave none, and a PNG as wide as width_mm and dpi make it.

    What is given is what was set, the defaults said out loud included.
    """
    given = output.model_fields_set
    preset = {} if output.preset is None else dict(PRESETS[output.preset])
    if "png_widths" in given and ("dpi" in given or "dpi" in preset):
        preset.pop("width_mm", None)  # the caller's dots and the density say how wide the piece is
    filled = output
    for name, value in preset.items():
        if name not in given and why_idle(name, filled) is None:
            filled = filled.model_copy(update={name: value})
    return _with_dots(filled, given)


def _with_dots(output: Output, given: set[str]) -> Output:
    if output.width_mm is None or output.dpi is None or "png" not in output.formats or "png_widths" in given:
        return output
    dots = dots_across(output.width_mm, output.dpi)
    if not MIN_PNG_WIDTH_PX <= dots <= MAX_PNG_WIDTH_PX:
        return output  # refused with the reason where the fields are checked against each other
    return output.model_copy(update={"png_widths": (dots,)})


def why_idle(name: str, output: Output) -> str | None:
    """Why the field can't do anything among the others of `output`; None where it can."""
    wanted = _ONLY_IN.get(name)
    if wanted is not None and wanted not in output.formats:
        return f'means nothing without "{wanted}" in output.formats'
    if name == "dpi" and output.width_mm is not None and "png" not in output.formats:
        return 'means nothing beside output.width_mm without "png" in output.formats'
    if name in _OWN_TRACER and output.tracer != "livery":
        return f'asks for what output.tracer "{output.tracer}" can\'t do; use "livery"'
    if name in _SIZED and not has_physical_size(output):
        return "needs a physical size: send output.width_mm or output.dpi"
    return None
