"""`builder compile`: kernels of the painters' networks for this machine's GPU, kept on the volume.

It takes minutes for each size, once for a kind of GPU and a release of PyTorch; see `models.compiled`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from builder.choice import Choice
from builder.lease import BuilderLock
from builder.report import Report
from builder.volume import require_space, write_whole
from models import units
from models.compiled import Shape, compiler_facts, kernels_path, packed
from models.device import Device, find_device
from models.loader import Unit
from models.prompt import PromptEncoder
from models.registry import Mode
from models.requests import PaintRequest, unchecked
from models.store import Store
from pipeline.errors import ModelMissing

SIZES = ((1024, 1024), (1152, 896), (1216, 832), (1344, 768))
"""Width and height that photos of 1:1, 4:3, 3:2 and 16:9 are painted at, in pixels."""

_LATENT_PX = 8
_ROOM_BYTES = 256 << 20


def compile_painter(
    volume: Path, lock: BuilderLock, choice: Choice, report: Report, sizes: tuple[tuple[int, int], ...]
) -> None:
    """Compile the painter of the one chosen mode, and put its kernels in their place.

    One mode in one process: what torch has compiled in a process is all saved together.

    Args:
        volume: its folder, which holds the mode's models.
        lock: held.
        choice: of one mode.
        report: receives a row.
        sizes: (width, height) of pictures in pixels, multiples of 64.

    Raises:
        ModelMissing: the volume lacks the models, or there is a GPU that can't be used.
        VolumeFull: there is no room.
    """
    (mode,) = choice.modes
    store, device, unit = Store(volume, choice.allow_noncommercial), find_device(), units.PAINTERS[mode]
    if lacking := store.missing((mode,)):
        raise ModelMissing(f"the volume lacks what the mode {mode} needs: {', '.join(lacking)}")
    require_space(volume, _ROOM_BYTES)
    began_s = time.monotonic()
    encoder: PromptEncoder = _loaded(store, units.PROMPT, device)
    painter = _loaded(store, unit, device)
    painter.graphs.enabled = False
    words = encoder.encode("a car")

    def run(shape: Shape) -> None:
        painter.paint(_request(mode, shape), words, words, unchecked)

    kernels = painter.regions.make(shapes_of(mode, sizes), run)
    lock.check()
    facts = compiler_facts(device)
    content = packed(kernels, facts)
    write_whole(volume, kernels_path(volume, unit.name, facts), content)
    report.rows.append({"name": unit.name, "state": "compiled", "bytes": len(content), **facts})
    report.totals["seconds"] = round(time.monotonic() - began_s, 1)
    listed = ", ".join(f"{width}x{height}" for width, height in sizes)
    report.lines.append(f"for {device.name}, torch {facts['torch']}: {listed} in {report.totals['seconds']:g} s")


def shapes_of(mode: Mode, sizes: tuple[tuple[int, int], ...]) -> tuple[Shape, ...]:
    """The latents of pictures of some sizes: of one for the wanted prompt, and with guidance of both."""
    copies = (1,) if mode == "fast" else (1, 2)
    return tuple((n, 4, high // _LATENT_PX, wide // _LATENT_PX) for wide, high in sizes for n in copies)


def _loaded(store: Store, unit: Unit[Any], device: Device) -> Any:
    optional = [row for row in unit.optional if store.holds(row)]
    return unit.load({row: store.files(row, unchecked) for row in (*unit.rows, *optional)}, device)


def _request(mode: Mode, shape: Shape) -> PaintRequest:
    """One step with every network in it."""
    copies, _, high, wide = shape
    blank = np.zeros((high * _LATENT_PX, wide * _LATENT_PX), np.uint8)
    return PaintRequest(
        depth=blank,
        canny=blank,
        mode=mode,
        prompt="a car",
        negative_prompt="a car",
        steps=1,
        guidance_scale=5.0 if copies == 2 else 0.0,
        guidance_until=1.0,
        depth_weight=0.5,
        canny_weight=0.5,
        canny_until=1.0,
        lora_scale=0.0,
        seed=0,
    )
