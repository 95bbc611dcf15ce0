"""The contract: the request, the reply, and one clear sentence for each way a request can be wrong.

`parse_request` is the only door in. It checks types strictly (`true` is not 1, `"0.5"` is not a number, NaN is none
either), refuses unknown fields by the nearest known name, refuses by name what is not built yet (`NOT_BUILT`), and
checks what fields ask of each other. What depends on the photo (a box outside it) waits for `run`, which has the photo.

Boxes are `[x0, y0, x1, y1]` and points `[x, y]`, in pixels of the upright photo (EXIF applied), y downward.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    PlainValidator,
    Tag,
    ValidationError,
    WithJsonSchema,
)
from pydantic.json_schema import models_json_schema
from pydantic_core import ErrorDetails, PydanticCustomError

from pipeline.errors import PaletteError, SchemaError
from pipeline.palette import DEFAULT_PALETTE, Extract, kind_of, palette_json_schema, parse_hex, parse_palette, quoted
from pipeline.types import Palette

MAX_BOXES = 64
"""Boxes that `sanitize.regions` and `sanitize.protect` may hold each."""

MAX_PNG_WIDTHS = 4
MIN_PNG_WIDTH_PX, MAX_PNG_WIDTH_PX = 16, 4096
MAX_SEED = 2**63 - 1


class Strict(BaseModel):
    """Frozen, exact types, no unknown fields, finite numbers."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


T = TypeVar("T")


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    for i, value in enumerate(values):
        if value in values[:i]:
            raise PydanticCustomError("livery", "holds {shown} twice", {"shown": shown(value)})
    return values


def _ordered(box: tuple[float, ...]) -> tuple[float, ...]:
    x0, y0, x1, y1 = box
    if x0 < x1 and y0 < y1:
        return box
    raise PydanticCustomError("livery", "must be [x0, y0, x1, y1] with x0 < x1 and y0 < y1", {})


# JSON arrays arrive as lists; only the container is lax, the elements stay strict.
Number = Annotated[float, Field(strict=True)]
Point = Annotated[tuple[Number, ...], Field(strict=False, min_length=2, max_length=2)]
BoxPx = Annotated[tuple[Number, ...], Field(strict=False, min_length=4, max_length=4), AfterValidator(_ordered)]
Boxes = Annotated[tuple[BoxPx, ...], Field(strict=False, max_length=MAX_BOXES)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=2)]
Millimetres = Annotated[float, Field(gt=0, le=100_000)]
PngWidth = Annotated[int, Field(strict=True, ge=MIN_PNG_WIDTH_PX, le=MAX_PNG_WIDTH_PX)]

Target = Literal["mirror", "logo", "badge", "plate", "text", "sticker"]
Format = Literal["svg", "png", "pdf", "dxf", "separations"]
Engine = Literal["draft", "studio"]


class SubjectPoint(Strict):
    point: Point
    """A point on the vehicle."""


class SubjectBox(Strict):
    box: BoxPx
    """A box round the vehicle."""


def _subject_form(value: object) -> str | None:
    if isinstance(value, str):
        return "word"
    if isinstance(value, SubjectPoint) or (isinstance(value, dict) and set(value) == {"point"}):
        return "point"
    if isinstance(value, SubjectBox) or (isinstance(value, dict) and set(value) == {"box"}):
        return "box"
    return None


Subject = Annotated[
    Annotated[Literal["auto", "whole"], Tag("word")]
    | Annotated[SubjectPoint, Tag("point")]
    | Annotated[SubjectBox, Tag("box")],
    Discriminator(_subject_form),
]


def _palette_out(palette: Palette | Extract) -> list[dict[str, str]] | dict[str, int]:
    if isinstance(palette, Extract):
        return {"extract": palette.n}
    return [{"hex": ink.hex, "name": ink.name} for ink in palette.inks]


PaletteChoice = Annotated[
    Palette | Extract,
    PlainValidator(parse_palette),
    PlainSerializer(_palette_out),
    WithJsonSchema(palette_json_schema()),
]


def _background(text: str) -> str:
    if text in ("keep", "remove"):
        return text
    try:
        return parse_hex(text, "background")
    except PaletteError:
        message = 'must be "keep", "remove" or a colour of the palette, not {shown}'
        raise PydanticCustomError("livery", message, {"shown": shown(text)}) from None


class Sanitize(Strict):
    """Phase 1: what is taken off the photo."""

    enabled: bool = True
    """Whether phase 1 does anything at all."""
    targets: Annotated[tuple[Target, ...], Field(strict=False), AfterValidator(_distinct)] = get_args(Target)
    """Kinds of things that the studio engine looks for and removes."""
    regions: Boxes = ()
    """Boxes that are filled in from around them."""
    protect: Boxes = ()
    """Boxes that are never touched, such as the customer's own lettering."""
    box_threshold: Share = 0.35
    """Detector: least confidence of a box."""
    text_threshold: Share = 0.25
    """Detector: least confidence of a box's label."""
    max_subject_share: Share = 0.08
    """Largest share of the vehicle that may be removed."""


class Style(Strict):
    """Phase 2 of the studio engine; null takes the value of `mode`."""

    prompt: Annotated[str, Field(max_length=1000)] | None = None
    """What the diffusion model is asked for."""
    negative_prompt: Annotated[str, Field(max_length=1000)] | None = None
    """What the diffusion model is asked to avoid."""
    steps: Annotated[int, Field(ge=1, le=100)] | None = None
    """Denoising steps."""
    guidance_scale: Annotated[float, Field(ge=0, le=30)] | None = None
    """Classifier-free guidance."""
    depth_weight: Weight | None = None
    """Conditioning scale of the depth ControlNet."""
    canny_weight: Weight | None = None
    """Conditioning scale of the Canny ControlNet."""
    canny_until: Share | None = None
    """Share of the steps after which the Canny ControlNet lets go."""
    lora_scale: Weight | None = None
    """Strength of the style LoRA."""
    iou_threshold: Share = 0.85
    """Least silhouette IoU between the photo and the illustration."""
    retries: Annotated[int, Field(ge=0, le=5)] = 2
    """Further attempts where the silhouette drifts."""
    allow_drift: bool = False
    """Hand over the best attempt even where each one drifted."""


class Output(Strict):
    """What is handed over."""

    preset: Literal["web", "print", "screenprint", "vinyl", "plotter"] | None = None
    """A name that sets the other fields."""
    formats: Annotated[tuple[Format, ...], Field(strict=False, min_length=1), AfterValidator(_distinct)] = (
        "svg",
        "png",
    )
    """Files to make."""
    png_widths: Annotated[
        tuple[PngWidth, ...], Field(strict=False, min_length=1, max_length=MAX_PNG_WIDTHS), AfterValidator(_distinct)
    ] = (2048,)
    """Widths of the PNGs in pixels; the height follows the photo's aspect."""
    stacking: Literal["stacked", "abutting"] = "stacked"
    """Stacked: later shapes cover earlier ones. Abutting: shapes meet edge to edge."""
    tolerance_px: Annotated[float, Field(ge=0.1, le=10)] = 0.8
    """How far the outline may leave the index map's, in pixels of the working frame."""
    tracer: Literal["vtracer", "livery"] = "vtracer"
    """Which tracer makes the outlines."""
    width_mm: Millimetres | None = None
    """Width of the printed piece."""
    dpi: Annotated[float, Field(ge=1, le=10_000)] | None = None
    """Dots per inch of the PNGs."""
    min_feature_mm: Millimetres | None = None
    """Smallest feature that the process holds."""
    trap_mm: Annotated[float, Field(ge=0, le=10)] | None = None
    """Overlap of neighbouring inks."""
    single_cut: bool = False
    """Cut each shared edge once."""
    registration_marks: bool = False
    """Add marks that align the separations."""
    upscale: bool = True
    """Whether the studio engine enlarges the illustration before phase 3; the draft engine never does."""


class Options(Strict):
    """Everything that shapes the illustration, as the report repeats it."""

    palette: Annotated[PaletteChoice, Field(json_schema_extra={"default": _palette_out(DEFAULT_PALETTE)})] = (
        DEFAULT_PALETTE
    )
    """The inks, or how many to take from the photo."""
    engine: Literal["auto", "draft", "studio"] = "auto"
    """Auto takes studio where its models verify and a GPU is there, else draft; the report says which ran and why."""
    mode: Literal["fast", "faithful"] = "fast"
    """Studio engine: 4 distilled steps, or 30 steps with two ControlNets."""
    detail: Share = 0.5
    """How many regions survive phase 3."""
    tone: Share = 0.5
    """Strength of the tone mapping into the palette."""
    line_work: Share = 0.0
    """Strength of the line work in the darkest ink."""
    background: Annotated[str, AfterValidator(_background)] = "keep"
    """Keep it, remove it (nothing is painted there), or lay it in one colour of the palette."""
    subject: Subject = "auto"
    """Which vehicle; auto takes the largest."""
    sanitize: Sanitize = Sanitize()
    style: Style = Style()
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 42
    """Seed of the studio engine; the draft engine has no randomness."""
    output: Output = Output()
    cache: Literal["use", "refresh", "off"] = "use"
    """Off: nothing of the photo is kept."""


class JobInput(Options):
    """The request."""

    action: Literal["illustrate", "dry_run", "ping", "purge"] = "illustrate"
    """Dry_run validates and estimates; ping reports the worker's health and takes no other field."""
    image: str | None = None
    """The photo: base64 or a data: URL of a JPEG, PNG or WebP."""
    image_url: str | None = None
    """The photo's address, in place of `image`."""

    def options(self) -> Options:
        """The request without the photo and the action."""
        return Options.model_construct(
            _fields_set=self.model_fields_set & set(Options.model_fields),
            **{name: getattr(self, name) for name in Options.model_fields},
        )


class InkReport(Strict):
    """What one ink of the palette became; null where the job made no illustration."""

    index: int
    hex: str
    name: str
    coverage_pct: float | None = None
    """Share of the frame, 0 to 100."""
    paths: int | None = None
    nodes: int | None = None
    mean_delta_e: float | None = None
    """Mean CIEDE2000 between the photo and this ink where it lies; null where it lies nowhere."""


class SubjectReport(Strict):
    """The vehicle that was taken."""

    box: tuple[float, float, float, float] | None
    """In pixels of the upright photo; null where no part of it was taken for a vehicle."""
    iou: float | None = None
    """Silhouette IoU between photo and illustration; the draft engine does not measure it."""
    source: Literal["auto", "whole", "point", "box"]
    """The request's hint that led to it."""


class RemovedReport(Strict):
    """One region that phase 1 filled in, in pixels of the upright photo."""

    kind: str
    box: tuple[float, float, float, float]
    score: float | None
    area_px: int


class Size(Strict):
    """The SVG's viewBox: the index map's frame."""

    width: int
    height: int


class Timings(Strict):
    """Milliseconds of each phase; null where it did not run."""

    decode: float | None = None
    sanitize: float | None = None
    steer: float | None = None
    enforce: float | None = None
    vectorize: float | None = None
    export: float | None = None
    upload: float | None = None
    total: float


class WarningReport(Strict):
    code: str
    message: str


class Report(Strict):
    """What was done, with what, and at what cost."""

    engine: Engine
    mode: Literal["fast", "faithful"] | None = None
    """The studio engine's mode; null for the draft engine, which has none."""
    seed: int
    models: dict[str, str] = {}
    """Model name to revision."""
    options: Options
    """As used."""
    palette: tuple[InkReport, ...]
    subject: SubjectReport | None = None
    removed: tuple[RemovedReport, ...] = ()
    size: Size | None = None
    paths: int | None = None
    nodes: int | None = None
    bytes: int | None = None
    """Of the SVG, in UTF-8."""
    timings_ms: Timings
    loads: dict[str, float] = {}
    """Model name to the milliseconds that loading it took in this job."""
    vram_peak_mb: float | None = None
    gpu: str | None = None
    cost_estimate_usd: float | None = None
    """Null where the worker has no price configured."""
    cached: bool = False
    input_sha256: str | None = None
    """Of the encoded photo."""
    output_sha256: str | None = None
    """Of the SVG's UTF-8 bytes."""
    warnings: tuple[WarningReport, ...] = ()


class PngFile(Strict):
    url: str
    width: int
    height: int
    bytes: int
    sha256: str
    expires_at: str | None = None
    """Null for a data: URL, which does not expire."""


class OutputFile(Strict):
    """A file that the reply does not hold as text."""

    format: Format
    ink: str | None = None
    """The separation's ink."""
    url: str
    bytes: int
    sha256: str
    expires_at: str | None = None


class JobOutput(Strict):
    """The reply to `illustrate`."""

    svg: str | None
    """Null where `output.formats` leaves it out."""
    png: tuple[PngFile, ...]
    files: tuple[OutputFile, ...] = ()
    report: Report


class Estimate(Strict):
    """Upper bounds for the job, from the worker's own settings; nothing is guessed."""

    seconds_at_most: float
    cost_usd_at_most: float | None
    """Null where the worker has no price configured."""
    basis: str
    """What the bounds are made of."""


class DryRunOutput(Strict):
    """The reply to `dry_run`."""

    report: Report
    estimate: Estimate


class EngineHealth(Strict):
    ready: bool
    reason: str
    """Why not, or what was checked."""
    self_check_ms: float | None = None


class Health(Strict):
    """The reply to `ping`."""

    status: Literal["ready", "failing"]
    auto: Engine | None
    """What `engine: "auto"` becomes on this worker; null where it would fail."""
    engines: dict[Engine, EngineHealth]
    volume: Literal["unset", "missing", "unreadable", "present"]
    gpu: str | None
    threads: int
    versions: dict[str, str | None]


@dataclass(frozen=True, slots=True)
class NotBuilt:
    """A frozen field, or some of its values, that no phase serves yet.

    Attributes:
        field: path in the request; `[]` stands for each element of a list.
        built: the values that are served.
        waits_for: what it comes with.
    """

    field: str
    built: tuple[object, ...]
    waits_for: str


def _whole_group(group: str, model: type[BaseModel], waits_for: str, skip: tuple[str, ...] = ()) -> list[NotBuilt]:
    return [
        NotBuilt(f"{group}.{name}", (info.default,), waits_for)
        for name, info in model.model_fields.items()
        if name not in skip
    ]


_STUDIO, _PRINT, _CACHE = "the studio engine", "print and cut output", "the result cache"
_BUILT_OUTPUT = ("formats", "png_widths", "stacking", "tolerance_px", "tracer", "upscale")

NOT_BUILT: tuple[NotBuilt, ...] = (
    NotBuilt("image_url", (None,), "fetching photos by address"),
    NotBuilt("action", ("illustrate", "dry_run", "ping"), _CACHE),
    NotBuilt("cache", ("use", "off"), _CACHE),
    NotBuilt("mode", ("fast",), _STUDIO),
    *_whole_group("sanitize", Sanitize, _STUDIO, skip=("enabled", "regions", "protect")),
    *_whole_group("style", Style, _STUDIO),
    *_whole_group("output", Output, _PRINT, skip=_BUILT_OUTPUT),
    NotBuilt("output.formats[]", ("svg", "png"), _PRINT),
    NotBuilt("output.stacking", ("stacked",), "Livery's own tracer"),
    NotBuilt("output.tolerance_px", (0.8,), "Livery's own tracer"),
    NotBuilt("output.tracer", ("vtracer",), "Livery's own tracer"),
    NotBuilt("output.upscale", (True,), _STUDIO),
)
"""Every field that is refused by name, and what it waits for. Its default always passes."""


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
    _check_built(job)
    _check_together(job)
    return job


def _check_built(job: JobInput) -> None:
    for row in NOT_BUILT:
        for path, value in _values_at(job, row.field):
            if value not in row.built:
                what = f"{shown(value)} is " if isinstance(row.built[0], str) else ""
                raise SchemaError(f"{what}not built yet; it comes with {row.waits_for}", field=path)


def _values_at(job: JobInput, path: str) -> Iterator[tuple[str, Any]]:
    value: Any = job
    for name in path.removesuffix("[]").split("."):
        value = getattr(value, name)
    if path.endswith("[]"):
        yield from ((f"{path[:-2]}[{i}]", element) for i, element in enumerate(value))
    else:
        yield path, value


def _check_together(job: JobInput) -> None:
    if job.action == "ping" and (others := sorted(job.model_fields_set - {"action"})):
        raise SchemaError('means nothing to action "ping", which takes no other field', field=others[0])
    if job.image is not None and job.image_url is not None:
        raise SchemaError("can't stand beside image: send one of the two", field="image_url")
    if "png_widths" in job.output.model_fields_set and "png" not in job.output.formats:
        raise SchemaError('means nothing without "png" in output.formats', field="output.png_widths")
    if job.background in ("keep", "remove"):
        return
    if isinstance(job.palette, Extract):
        message = 'can\'t be a colour where the palette is extracted from the photo: use "keep" or "remove"'
        raise SchemaError(message, field="background")
    if job.background not in job.palette.hexes:
        raise SchemaError(f"{shown(job.background)} is not a colour of the palette", field="background")


def shown(value: object) -> str:
    """The caller's own value as a message repeats it: printable and cut; containers by their kind only."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, (int, float)):
        return repr(value) if abs(value) < 1e15 else "a number past 1e15"
    return kind_of(value)


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
    """The published JSON schema (draft 2020-12) of a job's `input` and `output`; sorted, so that its bytes are stable.

    `x-not-built` lists what `NOT_BUILT` refuses: the values that pass, and what the others come with.
    """
    replies = (JobOutput, DryRunOutput, Health)
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
        "x-not-built": {row.field: {"built": row.built, "comes_with": row.waits_for} for row in NOT_BUILT},
        "$defs": definitions["$defs"],
    }
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
