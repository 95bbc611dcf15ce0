"""Every field of the request changes the output or the report, or is refused by name.

The fields are walked from the models: a field without a row here fails. The options that the report repeats don't count
as a change, save for `cache`, which the result cache answers to (tests/test_cache.py).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import BaseModel

from pipeline.errors import FetchError, LiveryError, ModelMissing
from pipeline.handover import finished, job_output
from pipeline.request import STUDIO_ONLY, parse_request
from pipeline.run import dry_run, run
from pipeline.schema import JobInput, Output, Sanitize, Style
from pipeline.settings import Settings
from pipeline.worker import Worker

FRAME_PX = 128


def picture(body: tuple[int, int, int]) -> str:
    """A shaded, noisy block with windows and wheels on a cluttered ground, 192 × 128 px, as base64."""
    noise = np.random.Generator(np.random.PCG64(3)).normal(0, 14, (128, 192, 1))
    rgb = np.zeros((128, 192, 3))
    rgb[:] = np.linspace(190, 120, 128)[:, None, None] * np.array([0.8, 0.95, 1.1])
    rgb[84:] = (110, 112, 115)
    rgb[84::6, ::7] += 70
    rgb[46:94, 36:156] = np.linspace(1.25, 0.6, 48)[:, None, None] * np.array(body)
    rgb[52:66, 56:134] = (60, 90, 110)
    rgb[70:80, 90:110] = (235, 235, 230)
    rgb[86:106, 52:74] = rgb[86:106, 118:140] = (22, 23, 26)
    encoded = io.BytesIO()
    Image.fromarray(np.clip(rgb + noise, 0, 255).astype(np.uint8)).save(encoded, "PNG")
    return base64.b64encode(encoded.getvalue()).decode("ascii")


BASE: dict[str, Any] = {"image": picture((200, 38, 43)), "output": {"png_widths": [64]}}
REGION = {"regions": [[80, 64, 120, 86]]}

DXF: dict[str, Any] = {"formats": ["dxf"]}
PLATES: dict[str, Any] = {"formats": ["separations"], "width_mm": 100}

Row = tuple[Mapping[str, Any], Mapping[str, Any]]

CHANGES: dict[str, Row] = {
    "image": ({}, {"image": picture((40, 90, 160))}),
    "palette": ({}, {"palette": ["#000000", "#FFFFFF", "#FF0000"]}),
    "engine": ({}, {"engine": "draft"}),
    "detail": ({"detail": 0.1}, {"detail": 1}),
    "tone": ({"tone": 0}, {"tone": 1}),
    "line_work": ({}, {"line_work": 1}),
    "background": ({}, {"background": "#FFFFFF"}),
    "subject": ({}, {"subject": {"box": [10, 10, 60, 60]}}),
    "seed": ({}, {"seed": 7}),
    "sanitize.enabled": ({"sanitize": REGION}, {"sanitize": REGION | {"enabled": False}}),
    "sanitize.regions": ({}, {"sanitize": REGION}),
    "sanitize.protect": ({"sanitize": REGION}, {"sanitize": REGION | {"protect": [[85, 66, 115, 84]]}}),
    "output.formats": ({"output": {}}, {"output": {"formats": ["png"]}}),
    "output.png_widths": ({}, {"output": {"png_widths": [65]}}),
    "output.preset": ({"output": {"formats": ["svg"]}}, {"output": {"formats": ["svg"], "preset": "web"}}),
    "output.stacking": ({}, {"output": {"png_widths": [64], "stacking": "abutting"}}),
    "output.tolerance_px": ({}, {"output": {"png_widths": [64], "tolerance_px": 2.5}}),
    "output.tracer": ({}, {"output": {"png_widths": [64], "tracer": "vtracer"}}),
    "output.width_mm": ({"output": DXF}, {"output": DXF | {"width_mm": 100}}),
    "output.dpi": ({}, {"output": {"png_widths": [64], "dpi": 300}}),
    "output.min_feature_mm": ({"output": PLATES}, {"output": PLATES | {"min_feature_mm": 4}}),
    "output.trap_mm": ({"output": PLATES}, {"output": PLATES | {"trap_mm": 1}}),
    "output.single_cut": ({"output": DXF}, {"output": DXF | {"single_cut": True}}),
    "output.dxf_curves": ({"output": DXF}, {"output": DXF | {"dxf_curves": True}}),
    "output.registration_marks": ({"output": PLATES}, {"output": PLATES | {"registration_marks": True}}),
}
"""Field → what two jobs that differ in it alone say."""

REFUSED: dict[str, tuple[Mapping[str, Any], type[LiveryError]]] = {
    "image_url": ({"image": None, "image_url": "https://[::1]/car.jpg"}, FetchError),
    "engine": ({"engine": "studio"}, ModelMissing),
}

ELSEWHERE = {"action", "cache"}
"""Fields with tests of their own, here and in tests/test_cache.py."""

IN_THE_STUDIO = set(STUDIO_ONLY)
"""Fields that the draft engine refuses (tests/test_schema.py) and the studio engine answers to (test_studio.py)."""


def fields() -> set[str]:
    groups: dict[str, type[BaseModel]] = {"sanitize": Sanitize, "style": Style, "output": Output}
    plain = set(JobInput.model_fields) - set(groups)
    return plain | {f"{group}.{name}" for group, model in groups.items() for name in model.model_fields}


def outcome(request: Mapping[str, Any]) -> dict[str, Any]:
    job = parse_request({**BASE, **request})
    result = finished(run(job, Worker(Settings()), frame_px=FRAME_PX))
    reply = job_output(result, Settings()).model_dump(mode="json")
    del reply["report"]["timings_ms"], reply["report"]["options"]
    return reply


def test_every_field_of_the_models_has_a_row() -> None:
    assert set(CHANGES) | set(REFUSED) | ELSEWHERE | IN_THE_STUDIO == fields()


@pytest.mark.parametrize("field", CHANGES)
def test_the_field_changes_the_output_or_the_report(field: str) -> None:
    one, other = CHANGES[field]
    assert outcome(one) != outcome(other)


@pytest.mark.parametrize(
    "field", ["detail", "tone", "line_work", "background", "palette", "sanitize.protect", "output.tracer"]
)
def test_the_field_changes_the_drawing(field: str) -> None:
    one, other = CHANGES[field]
    assert outcome(one)["svg"] != outcome(other)["svg"]


@pytest.mark.parametrize("field", REFUSED)
def test_the_field_is_refused_by_its_name(field: str) -> None:
    request, fault = REFUSED[field]
    with pytest.raises(fault) as caught:
        run(parse_request({**BASE, **request}), Worker(Settings()), frame_px=FRAME_PX)
    assert caught.value.field == field


def test_cache_is_repeated() -> None:
    for value in ("use", "refresh", "off"):
        assert dry_run(parse_request({"cache": value}), Worker(Settings())).report.options.cache == value
