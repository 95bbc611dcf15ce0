"""The contract: the request and the reply, as models. `pipeline.request` reads a request into them.

Types are strict: `true` is not 1, `"0.5"` is not a number, and NaN is none either.

Boxes are `[x0, y0, x1, y1]` and points `[x, y]`, in pixels of the upright photo (EXIF applied), y downward.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    PlainValidator,
    Tag,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from pipeline.errors import PaletteError
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


def shown(value: object) -> str:
    """The caller's own value as a message repeats it: printable and cut; containers by their kind only."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, (int, float)):
        return repr(value) if abs(value) < 1e15 else "a number past 1e15"
    return kind_of(value)


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
    """Classifier-free guidance; at 1 and below there is none."""
    guidance_until: Share | None = None
    """Share of the steps after which there is no guidance: a step without it takes half the work."""
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
    """A name that sets the other fields where they are left out; the report repeats them."""
    formats: Annotated[tuple[Format, ...], Field(strict=False, min_length=1), AfterValidator(_distinct)] = (
        "svg",
        "png",
    )
    """Files to make. Separations: one PDF for each ink."""
    png_widths: Annotated[
        tuple[PngWidth, ...], Field(strict=False, min_length=1, max_length=MAX_PNG_WIDTHS), AfterValidator(_distinct)
    ] = (2048,)
    """Widths of the PNGs in pixels; the height follows the photo's aspect. Left out beside width_mm and dpi, one PNG of
    the width that those make."""
    stacking: Literal["stacked", "abutting"] = "stacked"
    """Stacked: later shapes cover earlier ones. Abutting: shapes meet edge to edge."""
    tolerance_px: Annotated[float, Field(ge=0.1, le=10)] = 0.8
    """How far the outline may leave the index map's, in pixels of the working frame: 0.5 keeps to the pixels, 2.5
    simplifies. The studio engine's map is larger than that frame, and the distance grows with it."""
    tracer: Literal["livery", "vtracer"] = "livery"
    """Which tracer makes the outlines; vtracer is there for comparison."""
    width_mm: Millimetres | None = None
    """Width of the piece: of the PDF, the DXF and the separations, and of each PNG as it prints. Without it and without
    dpi a pixel of the working frame is 1/96 inch in PDF and DXF, as in CSS, and PNGs state no size."""
    dpi: Annotated[float, Field(ge=1, le=10_000)] | None = None
    """Dots per inch of the widest PNG. Without width_mm it makes the piece's width: that PNG's dots, or the working
    frame's pixels where no PNG is asked for, by this many to the inch. With width_mm it makes the PNG's width."""
    min_feature_mm: Millimetres | None = None
    """Smallest feature that the process holds: what is narrower is merged or widened. Needs a physical size."""
    trap_mm: Annotated[float, Field(ge=0, le=10)] | None = None
    """How far each separation spreads under the inks it meets; null and 0 not at all. Needs a physical size."""
    single_cut: bool = False
    """DXF: cut each shared edge once."""
    dxf_curves: bool = False
    """DXF: circles, arcs and splines of R2000 in place of the polylines of R12, which every cutter reads."""
    registration_marks: bool = False
    """Add marks round the separations that align them."""
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
    """Use: the same job again is answered with what it made before. Refresh: it is made anew, and kept. Off: nothing of
    the photo is kept."""


class JobInput(Options):
    """The request."""

    action: Literal["illustrate", "dry_run", "ping", "purge"] = "illustrate"
    """Dry_run validates and estimates; ping reports the worker's health and takes no other field; purge drops what is
    kept of the photo, whatever the other fields are."""
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
    turn: float | None = None
    """Waiting while another job was at the models, which is no phase's time; null where there was no wait."""
    total: float


class WarningReport(Strict):
    code: str
    message: str


class CertificateReport(Strict):
    """How true the drawing is to the index map, measured on its outlines."""

    tolerance_px: float
    """How far an outline was allowed to leave the map's."""
    agreement_pct: float
    """Pixels of the frame whose centre shows their own ink, or nothing where they are unpainted."""
    nodes: int
    paths: int
    primitives: dict[str, int]
    """How many circles, ellipses, arcs and straight lines were recognised, by those names."""
    min_feature_px: float | None = None
    """Width below which nothing was left in the map; null where none was asked for."""
    min_feature_mm: float | None = None


class ColdReport(Strict):
    """Why a job took longer than the next one like it will: what it waited for until its models were there.

    `import_ms`, `read_ms`, `build_ms` and `device_ms` came one after another: together they are the sum of `loads`, and
    before it the wait for PyTorch and the device. `imported_ms` and `reading_ms` are not: they also count what was done
    while the job did something else.
    """

    import_ms: float
    """That it waited for libraries, and for the device to be found."""
    imported_ms: float
    """What importing the libraries took, whether or not the job waited."""
    read_ms: float
    """That it waited for the volume."""
    reading_ms: float
    """What reading the volume took, file by file, whether or not the job waited."""
    build_ms: float
    """Making the networks, and fusing adapters into them."""
    device_ms: float
    """Moving weights from the host's memory to the device, in the numbers that it counts in."""
    first_ms: float | None
    """From the job's asking for its models to the first thing that one of them gave; null where none gave anything."""
    files: int
    """That were read from the volume."""
    files_ahead: int
    """Of those, how many were read before they were asked for."""
    mb: float
    """MiB that were read."""


class Report(Strict):
    """What was done, with what, and at what cost."""

    version: str | None = None
    """Livery's; null where it is not installed as a package."""
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
    certificate: CertificateReport | None = None
    """Null where there is no drawing, or its tracer states no tolerance."""
    timings_ms: Timings
    loads: dict[str, float] = {}
    """Model name to the milliseconds that loading it took in this job."""
    cold: ColdReport | None = None
    """Null where nothing had to be imported or read, as in every job but the first ones."""
    reinked: bool = False
    """Whether phases 1 and 2 were kept from an earlier job of the same photo, so that at most the upscaler ran."""
    vram_peak_mb: float | None = None
    gpu: str | None = None
    cost_estimate_usd: float | None = None
    """Null where the worker has no price configured."""
    cached: bool = False
    """Whether the result was kept from an earlier job; then times, loads, VRAM, GPU and cost are this job's own."""
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


class EngineEstimate(Strict):
    """What a job takes by one engine: a bound, and what such jobs took on this worker."""

    engine: Engine
    mode: Literal["fast", "faithful"] | None = None
    """Null for the draft engine, which has none."""
    seconds_at_most: float
    """The sum of the deadlines that the worker sets the phases."""
    cost_usd_at_most: float | None
    seconds: float | None
    """Median of the jobs that this worker process measured, without loading models and without uploads; null where it
    has measured none."""
    cost_usd: float | None
    """Of those seconds; null where the worker has no price configured."""
    jobs: int
    """How many were measured."""
    basis: str
    """What `seconds` is made of, or why it is null."""


class Estimate(Strict):
    """Bounds from the worker's own settings, and what it measured; nothing is guessed."""

    seconds_at_most: float
    cost_usd_at_most: float | None
    """Null where the worker has no price configured."""
    basis: str
    """What the bounds are made of."""
    engines: tuple[EngineEstimate, ...]
    """Each engine that could serve the job on this worker, whichever of them the job names."""


class DryRunOutput(Strict):
    """The reply to `dry_run`."""

    report: Report
    estimate: Estimate


class PurgeOutput(Strict):
    """The reply to `purge`. What other workers hold of the photo in their memory they let go within 15 minutes."""

    input_sha256: str
    """Of the encoded photo."""
    results: int
    """Results that were dropped from the cache."""
    pictures: int
    """Copies of what phases 1 and 2 had made, dropped from the cache and from this worker's memory."""
    bytes: int
    """Of what was dropped from the cache."""


class EngineHealth(Strict):
    ready: bool
    reason: str
    """Why not, or what was checked."""
    self_check_ms: float | None = None


class GpuHealth(Strict):
    """The GPU at the moment of the question; null is what its driver doesn't tell."""

    name: str
    driver: str
    """Its version."""
    memory_mb: int | None
    memory_used_mb: int | None
    """MiB, by all processes."""
    utilisation_pct: int | None
    """Share of the last moments in which it computed."""
    temperature_c: int | None
    power_w: float | None
    """Drawn, in watts."""


class VolumeTree(Strict):
    """How the volume differs from its manifest, by names and sizes; paths are relative to it. Longer lists are cut."""

    kind: Literal["hub", "tiny", "random"] | None
    """Of weights: the published ones, or random ones for tests; null where there is no manifest."""
    revisions: dict[str, str]
    """Of each model that the manifest lists."""
    unlisted: tuple[str, ...]
    """Models that the studio engine needs and the manifest doesn't list."""
    missing: tuple[str, ...]
    """Files that the manifest lists and that are not there."""
    resized: tuple[str, ...]
    """Files of another size than the manifest lists."""
    unexpected: tuple[str, ...]
    """Files among the models that the manifest doesn't list."""
    cut: int = 0
    """Paths that the lists would hold besides."""


class Health(Strict):
    """The reply to `ping`."""

    status: Literal["ready", "failing"]
    auto: Engine | None
    """What `engine: "auto"` becomes on this worker; null where it would fail."""
    engines: dict[Engine, EngineHealth]
    volume: Literal["unset", "missing", "unreadable", "damaged", "present"]
    """Damaged: its manifest can't be read."""
    tree: VolumeTree | None
    """Null where no volume is present."""
    gpu: GpuHealth | None
    gpu_reason: str | None
    """Why nothing is known of a GPU."""
    threads: int
    versions: dict[str, str | None]
