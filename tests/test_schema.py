"""The contract: what passes, and one clear sentence with the field's path for what does not."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from pipeline.errors import InputError, LiveryError, PaletteError, SchemaError
from pipeline.palette import DEFAULT_PALETTE, Extract
from pipeline.request import STUDIO_ONLY, parse_request, schema_text, studio_only_fields
from pipeline.schema import JobInput, Output, Sanitize, Style, SubjectBox, SubjectPoint

ROOT = Path(__file__).parent.parent


def refusal(request: object) -> SchemaError:
    with pytest.raises(SchemaError) as caught:
        parse_request(request)
    return caught.value


def test_an_empty_request_takes_the_frozen_defaults() -> None:
    job = parse_request({})
    assert job.model_dump() == {
        "action": "illustrate",
        "image": None,
        "image_url": None,
        "palette": [{"hex": ink.hex, "name": ink.name} for ink in DEFAULT_PALETTE.inks],
        "engine": "auto",
        "mode": "fast",
        "detail": 0.5,
        "tone": 0.5,
        "line_work": 0.0,
        "background": "keep",
        "subject": "auto",
        "sanitize": {
            "enabled": True,
            "targets": ("mirror", "logo", "badge", "plate", "text", "sticker"),
            "regions": (),
            "protect": (),
            "box_threshold": 0.35,
            "text_threshold": 0.25,
            "max_subject_share": 0.08,
        },
        "style": dict.fromkeys(
            (
                "prompt",
                "negative_prompt",
                "steps",
                "guidance_scale",
                "guidance_until",
                "depth_weight",
                "canny_weight",
                "canny_until",
            )
        )
        | {"lora_scale": None, "iou_threshold": 0.85, "retries": 2, "allow_drift": False},
        "seed": 42,
        "output": {
            "preset": None,
            "formats": ("svg", "png"),
            "png_widths": (2048,),
            "stacking": "stacked",
            "tolerance_px": 0.8,
            "tracer": "livery",
            "width_mm": None,
            "dpi": None,
            "min_feature_mm": None,
            "trap_mm": None,
            "single_cut": False,
            "dxf_curves": False,
            "registration_marks": False,
            "upscale": True,
        },
        "cache": "use",
    }


def test_values_come_through_as_they_are_sent_and_zero_is_a_value() -> None:
    job = parse_request(
        {
            "image": "",
            "palette": {"extract": 4},
            "detail": 0,
            "tone": 1,
            "line_work": 0.25,
            "seed": 0,
            "subject": {"point": [3, 4.5]},
            "sanitize": {"regions": [[0, 0, 10, 10]], "protect": [[1, 2.5, 3, 4]]},
            "output": {"formats": ["png"], "png_widths": [16, 4096]},
        }
    )
    assert (job.image, job.detail, job.tone, job.line_work, job.seed) == ("", 0.0, 1.0, 0.25, 0)
    assert job.palette == Extract(4)
    assert job.subject == SubjectPoint(point=(3.0, 4.5))
    assert job.sanitize.regions == ((0, 0, 10, 10),)
    assert job.sanitize.protect == ((1, 2.5, 3, 4),)
    assert job.output.png_widths == (16, 4096)
    assert parse_request({"subject": {"box": [0, 0, 1, 1]}}).subject == SubjectBox(box=(0, 0, 1, 1))


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"imge": "x"}, 'imge: unknown field; did you mean "image"?'),
        ({"zzz": 1}, 'zzz: unknown field; the nearest known one is "sanitize"'),
        ({"prompt": "x"}, 'prompt: unknown field; did you mean "style.prompt"?'),
        ({"output": {"detail": 1}}, 'output.detail: unknown field; did you mean "detail"?'),
        ({"sanitize": {"protectt": []}}, 'sanitize.protectt: unknown field; did you mean "protect"?'),
        ({"output": {"png_width": 7}}, 'output.png_width: unknown field; did you mean "png_widths"?'),
        ({"style": {"promt": "x"}}, 'style.promt: unknown field; did you mean "prompt"?'),
        ({"detail": "x", "imge": "x"}, 'imge: unknown field; did you mean "image"?'),
        ({3: 1}, "[3]: is not a field name: names are text"),
        ([], "input: must be an object"),
        (None, "input: must be an object"),
        ({"detail": "0.5"}, 'detail: must be a number, not "0.5"'),
        ({"detail": True}, "detail: must be a number, not true"),
        ({"detail": None}, "detail: must be a number, not null"),
        ({"detail": math.nan}, "detail: must be a finite number"),
        ({"tone": math.inf}, "tone: must be a finite number"),
        ({"tone": 10**400}, "tone: must be a number, not a number past 1e15"),
        ({"detail": 1.5}, "detail: must be at most 1.0, not 1.5"),
        ({"line_work": -0.1}, "line_work: must be at least 0.0, not -0.1"),
        ({"seed": True}, "seed: must be a whole number, not true"),
        ({"seed": 1.0}, "seed: must be a whole number, not 1.0"),
        ({"seed": -1}, "seed: must be at least 0, not -1"),
        ({"seed": 2**63}, "seed: must be at most 9223372036854775807, not a number past 1e15"),
        ({"image": 5}, "image: must be text, not 5"),
        ({"engine": "gpu"}, 'engine: must be "auto", "draft" or "studio", not "gpu"'),
        ({"engine": "a" * 60}, f'engine: must be "auto", "draft" or "studio", not "{"a" * 40}…"'),
        ({"cache": "\x00\u202e"}, 'cache: must be "use", "refresh" or "off", not "\\x00\\u202e"'),
        ({"cache": "\ud800"}, "cache: holds a lone surrogate, which is not Unicode text"),
        ({"sanitize": []}, "sanitize: must be an object, not a list"),
        ({"sanitize": {"enabled": 1}}, "sanitize.enabled: must be true or false, not 1"),
        ({"sanitize": {"regions": "all"}}, 'sanitize.regions: must be a list, not "all"'),
        ({"sanitize": {"regions": [[0, 0, 1]]}}, "sanitize.regions[0]: must hold at least 4 values"),
        ({"sanitize": {"regions": [[0, 0, 1, 1, 1]]}}, "sanitize.regions[0]: must hold at most 4 values"),
        ({"sanitize": {"regions": [[0, 0, 1, "1"]]}}, 'sanitize.regions[0][3]: must be a number, not "1"'),
        ({"sanitize": {"protect": [[0, 0, 1, math.nan]]}}, "sanitize.protect[0][3]: must be a finite number"),
        (
            {"sanitize": {"regions": [[0, 0, 1, 1], [5, 0, 5, 1]]}},
            "sanitize.regions[1]: must be [x0, y0, x1, y1] with x0 < x1 and y0 < y1",
        ),
        ({"sanitize": {"regions": [[0, 0, 1, 1]] * 65}}, "sanitize.regions: must hold at most 64 values"),
        ({"sanitize": {"targets": ["logo", "logo"]}}, 'sanitize.targets: holds "logo" twice'),
        ({"subject": {"box": [0, 5, 9, 5]}}, "subject.box: must be [x0, y0, x1, y1] with x0 < x1 and y0 < y1"),
        ({"subject": {"point": [1, True]}}, "subject.point[1]: must be a number, not true"),
        ({"subject": "all"}, 'subject: must be "auto" or "whole", not "all"'),
        *(
            ({"subject": value}, 'subject: must be "auto", "whole", {"point": [x, y]} or {"box": [x0, y0, x1, y1]}')
            for value in ({}, {"bx": 1}, {"point": [1, 1], "box": [0, 0, 1, 1]}, [1, 2], 3, None)
        ),
        ({"output": {"png_widths": []}}, "output.png_widths: must hold at least 1 value"),
        ({"output": {"png_widths": [1, 2, 3, 4, 5]}}, "output.png_widths[0]: must be at least 16, not 1"),
        ({"output": {"png_widths": [100, 200, 300, 400, 500]}}, "output.png_widths: must hold at most 4 values"),
        ({"output": {"png_widths": [100, 4097]}}, "output.png_widths[1]: must be at most 4096, not 4097"),
        ({"output": {"png_widths": [100.0]}}, "output.png_widths[0]: must be a whole number, not 100.0"),
        ({"output": {"png_widths": [100, 100]}}, "output.png_widths: holds 100 twice"),
        ({"output": {"formats": []}}, "output.formats: must hold at least 1 value"),
        ({"output": {"formats": ["svg", "svg"]}}, 'output.formats: holds "svg" twice'),
        (
            {"output": {"formats": ["gif"]}},
            'output.formats[0]: must be "svg", "png", "pdf", "dxf" or "separations", not "gif"',
        ),
        ({"style": {"prompt": "x" * 1001}}, "style.prompt: must be at most 1000 characters"),
        ({"background": "red"}, 'background: must be "keep", "remove" or a colour of the palette, not "red"'),
        ({"background": "#123456"}, 'background: "#123456" is not a colour of the palette'),
        (
            {"background": "#FFFFFF", "palette": {"extract": 4}},
            'background: can\'t be a colour where the palette is extracted from the photo: use "keep" or "remove"',
        ),
        ({"action": "ping", "image": "x"}, 'image: means nothing to action "ping", which takes no other field'),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_with_its_field(request_: object, sentence: str) -> None:
    fault = refusal(request_)
    assert str(fault) == sentence
    assert fault.field is not None
    assert str(fault).startswith(fault.field)
    assert not fault.retryable


def test_a_bad_palette_names_its_element_and_never_becomes_the_default() -> None:
    with pytest.raises(PaletteError) as caught:
        parse_request({"palette": ["#FFFFFF", "#000000", "#GG0011"]})
    assert str(caught.value) == 'palette[2]: "#GG0011" is not a hex colour'
    assert caught.value.field == "palette[2]"


@pytest.mark.parametrize("written", ["#FFFFFF", "#ffffff", "ffffff", "#fff"])
def test_a_background_colour_is_found_however_it_is_written(written: str) -> None:
    assert parse_request({"background": written}).background == "#FFFFFF"


STUDIO_ONLY_VALUES: dict[str, Any] = {
    "mode": "faithful",
    "sanitize": {"targets": [], "box_threshold": 1, "text_threshold": 1, "max_subject_share": 1},
    "style": {
        **dict.fromkeys(("prompt", "negative_prompt"), "x"),
        **dict.fromkeys(
            ("steps", "guidance_scale", "guidance_until", "depth_weight", "canny_weight", "canny_until", "lora_scale"),
            1,
        ),
        "iou_threshold": 0,
        "retries": 0,
        "allow_drift": True,
    },
    "output": {"upscale": False},
}


@pytest.mark.parametrize("path", STUDIO_ONLY)
def test_what_only_the_studio_engine_answers_to_is_refused_by_a_draft_and_named_by_auto(path: str) -> None:
    group, _, name = path.rpartition(".")
    value = STUDIO_ONLY_VALUES[group][name] if group else STUDIO_ONLY_VALUES[name]
    request = {group: {name: value}} if group else {name: value}
    fault = refusal({"engine": "draft", **request})
    assert str(fault) == f"{path}: means nothing to the draft engine, which has no models"
    assert studio_only_fields(parse_request(request)) == (path,)
    assert studio_only_fields(parse_request({"seed": 7})) == ()


@pytest.mark.parametrize("group", [Sanitize, Style, Output])
def test_the_defaults_said_out_loud_are_no_fault(group: type[BaseModel]) -> None:
    assert parse_request({group.__name__.lower(): group().model_dump(mode="json")}) == parse_request({})


def test_an_image_and_its_address_exclude_each_other() -> None:
    assert refusal({"image": "x", "image_url": "y"}).field == "image_url"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["auto", "#FFFFFF", "svg", "box", "point"]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from([*JobInput.model_fields, *Output.model_fields, *Sanitize.model_fields, "x"])


@given(st.dictionaries(FIELDS, JSON | st.dictionaries(FIELDS, JSON, max_size=3), max_size=4))
@settings(max_examples=400, deadline=None, derandomize=True)
def test_whatever_is_sent_either_parses_or_is_refused_with_a_field(request: dict[str, Any]) -> None:
    try:
        job = parse_request(request)
    except InputError as fault:
        assert fault.field  # noqa: PT017
        assert isinstance(fault, (SchemaError, PaletteError))  # noqa: PT017
        assert "\n" not in str(fault)  # noqa: PT017
        assert len(str(fault)) < 300  # noqa: PT017
        str(fault).encode("utf-8")
    else:
        job.options().model_dump_json()


def test_the_published_schema_is_the_models() -> None:
    assert (ROOT / "schema.json").read_text("utf-8") == schema_text(), "run: python -m pipeline schema --write"


def test_the_published_schema_lists_every_field_with_a_description() -> None:
    document = json.loads(schema_text())
    for model in (JobInput, Sanitize, Style, Output):
        properties = document["$defs"][model.__name__]["properties"]
        assert set(properties) == set(model.model_fields)
        assert [name for name, says in properties.items() if "$ref" not in says and not says.get("description")] == []
    assert document["$defs"]["JobInput"]["additionalProperties"] is False


def test_error_replies_start_with_their_code() -> None:
    fault: LiveryError = refusal({"imge": "x"})
    assert fault.as_reply() == {
        "error": 'SchemaError: imge: unknown field; did you mean "image"?',
        "code": "SchemaError",
        "field": "imge",
        "retryable": False,
    }
