"""Reading a request: one clear sentence for each way it can be wrong.

`parse_request` is the only door in. It refuses unknown fields by the nearest known name, expands the preset, and checks
what fields ask of each other. What depends on the photo (a box outside it) waits for `run`, which has the photo.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema
from pydantic_core import ErrorDetails

from pipeline.errors import SchemaError
from pipeline.palette import Extract, quoted
from pipeline.physical import dots_across
from pipeline.presets import expand, why_idle
from pipeline.schema import (
    MAX_PNG_WIDTH_PX,
    MIN_PNG_WIDTH_PX,
    DryRunOutput,
    Health,
    JobInput,
    JobOutput,
    Output,
    PurgeOutput,
    Sanitize,
    Style,
    shown,
)

STUDIO_ONLY = (
    "mode",
    *(f"sanitize.{name}" for name in ("targets", "box_threshold", "text_threshold", "max_subject_share")),
    *(f"style.{name}" for name in Style.model_fields),
    "output.upscale",
)
"""Fields that nothing in the draft engine answers to. (Neither does `seed`, which many clients always send.)"""


def parse_request(value: object) -> JobInput:
    """Check a request (the `input` of a job) as far as that goes without its photo.

    Raises:
        SchemaError: with `field`, for the first thing wrong; unknown fields come first, since they explain the rest.
        PaletteError: with `field`, for the palette.
    """
    if not isinstance(value, dict):
        raise SchemaError("must be an object", field="input")
    try:
        job = JobInput.model_validate(value)
    except ValidationError as refused:
        faults = refused.errors(include_url=False)
        first = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
        raise _schema_error(first) from None
    if job.engine == "draft" and (idle := studio_only_fields(job)):
        raise SchemaError("means nothing to the draft engine, which has no models", field=idle[0])
    if (output := expand(job.output)) != job.output:
        job = job.model_copy(update={"output": output})
    _check_together(job)
    _check_output(job.output)
    return job


def studio_only_fields(job: JobInput) -> tuple[str, ...]:
    """Those of `STUDIO_ONLY` that a request sets to something else than their default."""
    default = JobInput()
    return tuple(path for path in STUDIO_ONLY if _value_at(job, path) != _value_at(default, path))


def _value_at(job: JobInput, path: str) -> Any:
    value: Any = job
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _check_together(job: JobInput) -> None:
    if job.action == "ping" and (others := sorted(job.model_fields_set - {"action"})):
        raise SchemaError('means nothing to action "ping", which takes no other field', field=others[0])
    if job.image is not None and job.image_url is not None:
        raise SchemaError("can't stand beside image: send one of the two", field="image_url")
    if job.background in ("keep", "remove"):
        return
    if isinstance(job.palette, Extract):
        message = 'can\'t be a colour where the palette is extracted from the photo: use "keep" or "remove"'
        raise SchemaError(message, field="background")
    if job.background not in job.palette.hexes:
        raise SchemaError(f"{shown(job.background)} is not a colour of the palette", field="background")


def _check_output(output: Output) -> None:
    for name, info in Output.model_fields.items():
        reason = why_idle(name, output) if getattr(output, name) != info.default else None
        if reason is not None:
            raise SchemaError(reason, field=f"output.{name}")
    if "separations" in output.formats and output.tracer != "livery":
        place = f"output.formats[{output.formats.index('separations')}]"
        raise SchemaError(f'"separations" need output.tracer "livery", not {shown(output.tracer)}', field=place)
    if output.width_mm is not None and output.dpi is not None:
        _check_dots(output, dots_across(output.width_mm, output.dpi))


def _check_dots(output: Output, dots: int) -> None:
    piece = f"a piece {output.width_mm:g} mm wide at {output.dpi:g} dpi"
    if not MIN_PNG_WIDTH_PX <= dots <= MAX_PNG_WIDTH_PX:
        limits = f"{MIN_PNG_WIDTH_PX} to {MAX_PNG_WIDTH_PX}"
        raise SchemaError(
            f"{piece} takes a PNG of {dots} px, and {limits} can be made: lower dpi or width_mm", field="output.dpi"
        )
    if abs(max(output.png_widths) - dots) > 1:
        message = f"{piece} is {dots} px, and the widest of output.png_widths is {max(output.png_widths)}"
        raise SchemaError(message, field="output.dpi")


_TAGS = frozenset({"word", "point", "box"})


def _path(loc: tuple[int | str, ...]) -> str:
    """`("output", "png_widths", 0)` → `output.png_widths[0]`; the tags of `subject` are no part of the request."""
    steps = [step for i, step in enumerate(loc) if not (i == 1 and loc[0] == "subject" and step in _TAGS)]
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{_name(step)}" for step in steps)
    return text.removeprefix(".")


def _name(key: str) -> str:
    return key if re.fullmatch(r"\w{1,40}", key, re.ASCII) else quoted(key)


def _schema_error(fault: ErrorDetails) -> SchemaError:
    loc, kind, ctx = fault["loc"], fault["type"], fault.get("ctx", {})
    field = _path(loc) or "input"
    if kind == "extra_forbidden":
        return SchemaError(_unknown(loc), field=field)
    if kind == "livery":
        return SchemaError(fault["msg"], field=field)
    if kind in ("too_short", "too_long"):
        return SchemaError(_length(ctx), field=field)
    sentence = _SENTENCES[kind].format(**ctx).replace("'", '"')
    return SchemaError(f"{sentence}, not {shown(fault['input'])}" if kind in _SHOW_INPUT else sentence, field=field)


_SENTENCES: Mapping[str, str] = {
    "string_type": "must be text",
    "string_too_long": "must be at most {max_length} characters",
    "string_unicode": "holds a lone surrogate, which is not Unicode text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "literal_error": "must be {expected}",
    "tuple_type": "must be a list",
    "model_type": "must be an object",
    "invalid_key": "is not a field name: names are text",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "union_tag_not_found": 'must be "auto", "whole", {{"point": [x, y]}} or {{"box": [x0, y0, x1, y1]}}',
}
"""Our sentence for each error type that these models can raise (pydantic's own texts never reach a caller)."""

_SHOW_INPUT = frozenset(
    {"string_type", "literal_error", "int_type", "float_type", "bool_type", "tuple_type", "model_type"}
    | {"greater_than", "greater_than_equal", "less_than_equal"}
)


def _length(ctx: Mapping[str, Any]) -> str:
    low, high = ctx.get("min_length"), ctx.get("max_length")
    bound = f"at least {low}" if high is None else f"at most {high}"
    return f"must hold {bound} {'value' if (low if high is None else high) == 1 else 'values'}"


_GROUPS: Mapping[str, type[BaseModel]] = {"sanitize": Sanitize, "style": Style, "output": Output}


def _unknown(loc: tuple[int | str, ...]) -> str:
    """Names the nearest field of the same object, else the same name elsewhere, else what is least far."""
    name, group = str(loc[-1]), ".".join(str(step) for step in loc[:-1])
    beside = list(_GROUPS.get(group, JobInput).model_fields)
    if near := get_close_matches(name, beside, n=1, cutoff=0.6):
        return f'unknown field; did you mean "{near[0]}"?'
    everywhere = {field: field for field in JobInput.model_fields}
    everywhere |= {field: f"{path}.{field}" for path, model in _GROUPS.items() for field in model.model_fields}
    if near := get_close_matches(name, everywhere, n=1, cutoff=0.6):
        return f'unknown field; did you mean "{everywhere[near[0]]}"?'
    return f'unknown field; the nearest known one is "{get_close_matches(name, beside, n=1, cutoff=0.0)[0]}"'


def schema_text() -> str:
    """The published JSON schema (draft 2020-12) of a job's `input` and `output`; sorted: its bytes are stable."""
    replies = (JobOutput, DryRunOutput, Health, PurgeOutput)
    refs, definitions = models_json_schema(
        [(JobInput, "validation"), *((reply, "serialization") for reply in replies)],
        ref_template="#/$defs/{model}",
    )
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Livery",
        "description": "A job: what goes in under input, and what comes back under output.",
        "type": "object",
        "properties": {
            "input": refs[JobInput, "validation"],
            "output": {"oneOf": [refs[reply, "serialization"] for reply in replies]},
        },
        "$defs": definitions["$defs"],
    }
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
