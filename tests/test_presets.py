"""Presets fill in what the caller leaves out; what fields of `output` ask of each other is said by the field's name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.errors import SchemaError
from pipeline.physical import piece_width_mm, printed_width_mm
from pipeline.presets import PRESETS
from pipeline.request import parse_request
from pipeline.schema import Output


def output_of(**fields: Any) -> Output:
    return parse_request({"output": fields}).output


def refusal(**fields: Any) -> str:
    with pytest.raises(SchemaError) as caught:
        output_of(**fields)
    assert caught.value.field is not None
    assert str(caught.value).startswith(caught.value.field)
    return str(caught.value)


def test_every_preset_of_the_contract_is_there() -> None:
    allowed = parse_request({}).output.model_json_schema()["properties"]["preset"]["anyOf"][0]["enum"]
    assert sorted(PRESETS) == sorted(allowed)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_sets_its_fields_and_keeps_its_name(preset: str) -> None:
    output = output_of(preset=preset)
    assert output.preset == preset
    assert {name: getattr(output, name) for name in PRESETS[preset]} == PRESETS[preset]
    said = {name: list(value) if isinstance(value, tuple) else value for name, value in PRESETS[preset].items()}
    assert output_of(**said, png_widths=list(output.png_widths)) == output.model_copy(update={"preset": None})


@pytest.mark.parametrize("preset", PRESETS)
def test_what_the_report_repeats_can_be_sent_again(preset: str) -> None:
    output = output_of(preset=preset)
    assert output_of(**json.loads(output.model_dump_json())) == output


@pytest.mark.parametrize("preset", [None, *PRESETS])
@pytest.mark.parametrize(
    "given",
    [
        {"formats": ["svg"]},
        {"formats": ["pdf"]},
        {"formats": ["svg", "png"], "png_widths": [1000, 500]},
        {"tracer": "vtracer", "formats": ["svg", "dxf"]},
        {"width_mm": 80},
        {"tolerance_px": 2},
    ],
)
def test_what_the_caller_sets_stands_and_nothing_of_the_preset_contradicts_it(
    preset: str | None, given: dict[str, Any]
) -> None:
    output = output_of(preset=preset, **given)
    for name, value in given.items():
        assert getattr(output, name) == (tuple(value) if isinstance(value, list) else value)


def test_width_and_density_make_the_png() -> None:
    assert output_of(width_mm=100, dpi=300).png_widths == (1181,)
    assert output_of(preset="print").png_widths == (3508,)
    assert output_of(preset="print", width_mm=100).png_widths == (1181,)
    assert output_of(width_mm=100, dpi=300, png_widths=[600, 1181]).png_widths == (600, 1181)


def test_every_file_of_a_job_has_one_width() -> None:
    assert printed_width_mm(output_of(), 1024) is None
    assert printed_width_mm(output_of(width_mm=250), 1024) == 250
    assert printed_width_mm(output_of(dpi=254), 1024) == pytest.approx(204.8)
    assert printed_width_mm(output_of(dpi=254, png_widths=[1000, 300]), 1024) == pytest.approx(100)
    assert printed_width_mm(output_of(dpi=254, formats=["pdf"]), 1024) == pytest.approx(102.4)
    assert printed_width_mm(output_of(preset="print", png_widths=[1200]), 1024) == pytest.approx(101.6)
    assert printed_width_mm(output_of(preset="print", dpi=150), 1024) == 297
    assert piece_width_mm(output_of(), 96) == 25.4
    assert piece_width_mm(output_of(width_mm=80), 96) == 80


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"formats": ["svg"], "png_widths": [64]}, 'output.png_widths: means nothing without "png" in output.formats'),
        ({"trap_mm": 1, "width_mm": 9}, 'output.trap_mm: means nothing without "separations" in output.formats'),
        ({"single_cut": True}, 'output.single_cut: means nothing without "dxf" in output.formats'),
        ({"dxf_curves": True}, 'output.dxf_curves: means nothing without "dxf" in output.formats'),
        (
            {"registration_marks": True},
            'output.registration_marks: means nothing without "separations" in output.formats',
        ),
        (
            {"formats": ["separations"], "trap_mm": 0.2},
            "output.trap_mm: needs a physical size: send output.width_mm or output.dpi",
        ),
        ({"min_feature_mm": 1}, "output.min_feature_mm: needs a physical size: send output.width_mm or output.dpi"),
        (
            {"stacking": "abutting", "tracer": "vtracer"},
            'output.stacking: asks for what output.tracer "vtracer" can\'t do; use "livery"',
        ),
        (
            {"tolerance_px": 1, "tracer": "vtracer"},
            'output.tolerance_px: asks for what output.tracer "vtracer" can\'t do; use "livery"',
        ),
        (
            {"formats": ["dxf"], "single_cut": True, "tracer": "vtracer"},
            'output.single_cut: asks for what output.tracer "vtracer" can\'t do; use "livery"',
        ),
        (
            {"formats": ["svg", "separations"], "tracer": "vtracer"},
            'output.formats[1]: "separations" need output.tracer "livery", not "vtracer"',
        ),
        (
            {"formats": ["pdf"], "width_mm": 10, "dpi": 300},
            'output.dpi: means nothing beside output.width_mm without "png" in output.formats',
        ),
        (
            {"width_mm": 100, "dpi": 300, "png_widths": [1000]},
            "output.dpi: a piece 100 mm wide at 300 dpi is 1181 px, and the widest of output.png_widths is 1000",
        ),
        (
            {"preset": "print", "width_mm": 600},
            "output.dpi: a piece 600 mm wide at 300 dpi takes a PNG of 7087 px, and 16 to 4096 can be made: "
            "lower dpi or width_mm",
        ),
        ({"width_mm": 0}, "output.width_mm: must be more than 0.0, not 0"),
        ({"dpi": 0.5}, "output.dpi: must be at least 1.0, not 0.5"),
        ({"tolerance_px": 0}, "output.tolerance_px: must be at least 0.1, not 0"),
        ({"trap_mm": -1}, "output.trap_mm: must be at least 0.0, not -1"),
    ],
)
def test_what_contradicts_itself_is_refused_by_the_field(fields: dict[str, Any], sentence: str) -> None:
    assert refusal(**fields) == sentence
