"""The painters on tiny weights, for the tests of what they paint and of how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from builder.synthetic import sdxl as synthetic
from models.device import CPU
from models.files import ModelFiles
from models.prompt import PromptEncoder
from models.requests import PaintRequest
from models.sdxl import FaithfulPainter, FastPainter, load_faithful_painter, load_fast_painter, load_style
from pipeline.types import U8

ROWS = (
    "sdxl-base",
    "sdxl-vae-fp16-fix",
    "controlnet-depth-sdxl",
    "controlnet-canny-sdxl",
    "controlnet-union-promax",
    "sdxl-lightning-4step",
    "style-lora",
)
PROMPT, NEGATIVE = "a flat drawing of a van", "photo, blurry"
REVISION = "0" * 40


def write_volume(folder: Path) -> Path:
    """Tiny weights of every row that paints."""
    torch.set_num_threads(1)
    for seed, row in enumerate(ROWS):
        synthetic.write(row, folder / row, "tiny", seed)
    return folder


def unchecked() -> None:
    """Never cancels."""


def files(volume: Path, row: str) -> ModelFiles:
    return ModelFiles(row, REVISION, volume / row)


def load_faithful(volume: Path, *, styled: bool = False) -> FaithfulPainter:
    base, depth, canny = (files(volume, row) for row in ("sdxl-base", "controlnet-depth-sdxl", "controlnet-canny-sdxl"))
    style = load_style(files(volume, "style-lora")) if styled else None
    return load_faithful_painter(base, depth, canny, CPU, style)


def load_fast(volume: Path, *, styled: bool = False) -> FastPainter:
    base, union, lightning = (
        files(volume, row) for row in ("sdxl-base", "controlnet-union-promax", "sdxl-lightning-4step")
    )
    style = load_style(files(volume, "style-lora")) if styled else None
    return load_fast_painter(base, union, lightning, CPU, style)


def conditions(height_px: int, width_px: int) -> tuple[U8, U8]:
    """A ramp with a near disc, and its outline."""
    y, x = np.mgrid[:height_px, :width_px]
    disc = np.hypot(y - height_px / 2, x - width_px / 2)
    depth = np.where(disc < height_px / 4, 255, y * 180 // height_px).astype(np.uint8)
    return depth, np.where(abs(disc - height_px / 4) < 1, 255, 0).astype(np.uint8)


def request(mode: str, height_px: int = 128, width_px: int = 128, **changes: Any) -> PaintRequest:
    depth, canny = conditions(height_px, width_px)
    few = mode == "fast"
    asked = PaintRequest(
        depth=depth,
        canny=canny,
        mode="fast" if few else "faithful",
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        steps=4 if few else 5,
        guidance_scale=0.0 if few else 7.5,
        guidance_until=1.0,
        depth_weight=0.6,
        canny_weight=0.4,
        canny_until=1.0 if few else 0.75,
        lora_scale=0.0,
        seed=0,
    )
    return replace(asked, **changes)


def paint(
    painter: FaithfulPainter | FastPainter,
    encoder: PromptEncoder,
    asked: PaintRequest,
    check: Callable[[], None] = unchecked,
) -> Any:
    wanted, unwanted = encoder.encode(asked.prompt), encoder.encode(asked.negative_prompt)
    return painter.paint(asked, wanted, unwanted, check)


class Spy:
    """Counts a network's calls, and the pictures in each."""

    def __init__(self, network: Any) -> None:
        self.batches: list[int] = []
        self._hook = network.register_forward_hook(self._see, with_kwargs=True)

    def _see(self, _network: Any, args: Any, kwargs: Any, _out: Any) -> None:
        self.batches.append(len(args[0] if args else kwargs["input_ids"]))

    def __enter__(self) -> Spy:
        return self

    def __exit__(self, *_fault: object) -> None:
        self._hook.remove()
