"""What the phases ask of the models, and what comes back: plain values, no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pipeline.types import U8

Check = Callable[[], None]
"""Called between the steps of long work; raises where the job was cancelled or ran past its time."""

Tell = Callable[[str, float], None]
"""Told what is being done, in a few words, and what share of the piece of work is done by now, 0 to 1."""

BoxF = tuple[float, float, float, float]
"""(x0, y0, x1, y1) in pixels of the picture that it belongs to."""


def unchecked() -> None:
    """The check of work that nobody can stop."""


def untold(_message: str, _share: float) -> None:
    """Tells nobody."""


@dataclass(frozen=True, slots=True)
class Detection:
    """One thing that the detector found.

    Attributes:
        label: which of the asked phrases it was taken for.
        box: (x0, y0, x1, y1) in pixels of the picture that was asked about, clipped to it.
        score: 0 to 1.
    """

    label: str
    box: BoxF
    score: float


@dataclass(frozen=True, slots=True)
class PaintRequest:
    """What phase 2 asks of the diffusion model.

    Attributes:
        depth: uint8 [H, W], near is light; H and W are those of one of the model's buckets, multiples of 64.
        canny: uint8 [H, W], edges 255 on 0.
        mode: `fast` (few steps, one ControlNet-Union with both conditions, no guidance) or `faithful`.
        prompt, negative_prompt: plain text.
        steps: denoising steps.
        guidance_scale: classifier-free guidance; at 1 and below there is none, and one half of the work falls away.
        guidance_until: share of the steps after which there is no guidance.
        depth_weight, canny_weight: conditioning scales.
        canny_until: share of the steps after which the Canny condition is no longer computed.
        lora_scale: strength of the style LoRA, where the volume holds one.
        seed: of the starting noise, which is drawn on the CPU so that every device starts alike.
    """

    depth: U8
    canny: U8
    mode: Literal["fast", "faithful"]
    prompt: str
    negative_prompt: str
    steps: int
    guidance_scale: float
    guidance_until: float
    depth_weight: float
    canny_weight: float
    canny_until: float
    lora_scale: float
    seed: int
