"""Networks as others published them: names and shapes of their weights, and what they make of weights known by formula.

The fixtures in `tests/data` were written by instantiating the definitions that their `source` names, never our classes.
"""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.types import F32, U8

if TYPE_CHECKING:
    import torch

DATA = Path(__file__).resolve().parent / "data"


@dataclass(frozen=True, slots=True)
class Published:
    """A published network.

    Attributes:
        shapes: of every tensor of its full-size checkpoint, by name.
        sizes: of a small instance of the same definition, by the definition's own words.
        picture: float32, flat, what that instance with the weights of `wave` makes of the test's input.
    """

    shapes: dict[str, tuple[int, ...]]
    sizes: dict[str, int]
    picture: F32


def published(name: str) -> Published:
    """The fixture of that name."""
    stored = json.loads((DATA / f"{name}_published.json").read_text("ascii"))
    return Published(
        {name: tuple(shape) for name, shape in stored["shapes"].items()},
        {name: value for name, value in stored.items() if isinstance(value, int)},
        np.array(stored["picture_e5"], np.float32) / np.float32(1e5),
    )


def wave(name: str, like: torch.Tensor) -> torch.Tensor:
    """Values that depend on nothing but a tensor's name and shape, and make a network of them behave."""
    import torch  # noqa: PLC0415

    if not like.is_floating_point():
        return torch.zeros(like.shape, dtype=like.dtype)
    key = zlib.crc32(name.encode())
    values = np.sin(np.arange(like.numel()) * (1 + key % 997 / 997) + key % 1009).reshape(tuple(like.shape))
    if like.ndim > 1:
        values = values * (2 / math.prod(like.shape[1:])) ** 0.5
    elif name.endswith("running_var"):
        values = 1 + 0.5 * values
    else:
        values = 1 + 0.2 * values if name.endswith("weight") else 0.1 * values
    return torch.from_numpy(values.astype(np.float32))


def plaid(height: int, width: int) -> U8:
    """uint8 [H, W, 3], the input of the fixtures: every pixel differs from its neighbours."""
    y, x, channel = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    return ((37 * y + 91 * x + 53 * channel + y * x % 17 * 11) % 256).astype(np.uint8)
