"""What the studio engine's two modes mean where a request leaves `style` open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

from models.requests import PaintRequest
from pipeline.schema import Style
from pipeline.types import U8

T = TypeVar("T")
Mode = Literal["fast", "faithful"]

PROMPT = (
    "flat vector illustration of the vehicle, bold clean shapes, few flat colours, crisp edges, even lighting, "
    "simple shading, screen print, highly legible"
)
NEGATIVE_PROMPT = (
    "photo, photorealistic, noise, grain, blur, gradients, reflections, text, watermark, logo, deformed wheels, "
    "extra parts, cropped"
)


@dataclass(frozen=True, slots=True)
class PaintOptions:
    """Options of phase 2's painting; `Style` of the schema says what each means.

    Attributes:
        asked: names of the fields of `Style` that the caller set.
    """

    mode: Mode
    seed: int
    prompt: str
    negative_prompt: str
    steps: int
    guidance_scale: float
    guidance_until: float
    depth_weight: float
    canny_weight: float
    canny_until: float
    lora_scale: float
    iou_threshold: float
    retries: int
    allow_drift: bool
    asked: frozenset[str] = frozenset()

    def request(self, depth: U8, canny: U8) -> PaintRequest:
        """What is asked of the diffusion model with these conditions; see `PaintRequest`."""
        return PaintRequest(
            depth=depth,
            canny=canny,
            mode=self.mode,
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            steps=self.steps,
            guidance_scale=self.guidance_scale,
            guidance_until=self.guidance_until,
            depth_weight=self.depth_weight,
            canny_weight=self.canny_weight,
            canny_until=self.canny_until,
            lora_scale=self.lora_scale,
            seed=self.seed,
        )

    def style(self) -> Style:
        """The request's `style` with nothing left open, for the report."""
        return Style(**{name: getattr(self, name) for name in Style.model_fields})


@dataclass(frozen=True, slots=True)
class _Defaults:
    steps: int
    guidance_scale: float
    depth_weight: float
    canny_weight: float
    canny_until: float
    guidance_until: float = 1.0


_MODES: dict[Mode, _Defaults] = {
    # Distilled weights want no guidance. One network takes both conditions, so letting Canny go would save nothing.
    "fast": _Defaults(steps=4, guidance_scale=0.0, depth_weight=0.6, canny_weight=0.4, canny_until=1.0),
    "faithful": _Defaults(steps=30, guidance_scale=7.5, depth_weight=0.6, canny_weight=0.4, canny_until=0.75),
}
_LORA_SCALE = 1.0


def paint_options(mode: Mode, style: Style, seed: int) -> PaintOptions:
    """`style` over the mode's own values; 0 and the empty text are values."""
    own = _MODES[mode]
    return PaintOptions(
        mode=mode,
        seed=seed,
        prompt=_or(style.prompt, PROMPT),
        negative_prompt=_or(style.negative_prompt, NEGATIVE_PROMPT),
        steps=_or(style.steps, own.steps),
        guidance_scale=_or(style.guidance_scale, own.guidance_scale),
        guidance_until=_or(style.guidance_until, own.guidance_until),
        depth_weight=_or(style.depth_weight, own.depth_weight),
        canny_weight=_or(style.canny_weight, own.canny_weight),
        canny_until=_or(style.canny_until, own.canny_until),
        lora_scale=_or(style.lora_scale, _LORA_SCALE),
        iou_threshold=style.iou_threshold,
        retries=style.retries,
        allow_drift=style.allow_drift,
        asked=frozenset(style.model_fields_set),
    )


def _or(asked: T | None, own: T) -> T:
    return own if asked is None else asked
