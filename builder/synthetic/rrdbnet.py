"""Random weights in the file of ximso/RealESRGAN_x4plus_anime_6B."""

# ruff: noqa: PLC0415 - torch is heavy, and only these writers need it

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from models.rrdbnet import BLOCKS, FEATURES, FILES, GROWTH, build_rrdbnet

if TYPE_CHECKING:
    import torch

PARAMETERS_M = 4.5
"""Of the published model, in millions."""

_TINY = (8, 4, 1)
_GREY = 0.5


def write(row: str, folder: Path, size: Literal["tiny", "full"], seed: int) -> int:
    """Write the row's file into `folder`; see `builder.synthetic`. It is single precision, as the published one is.

    Returns:
        The number of parameters.
    """
    import torch

    with torch.device("meta"):
        network = build_rrdbnet(*((FEATURES, GROWTH, BLOCKS) if size == "full" else _TINY))
    rng = np.random.default_rng(seed)
    weights = {name: _random(name, tensor, rng) for name, tensor in network.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"params_ema": weights}, folder / FILES[0])
    count = sum(parameter.numel() for parameter in network.parameters())
    if size == "full" and abs(count / 1e6 / PARAMETERS_M - 1) > 0.01:
        raise AssertionError(f"{row} has {count / 1e6:.2f} million parameters, not {PARAMETERS_M}")
    return count


def _random(name: str, like: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Kernels keep about the variance of what they are applied to; the picture comes out around a middle grey."""
    import torch

    values = torch.from_numpy(rng.standard_normal(tuple(like.shape), dtype=np.float32))
    if like.ndim > 1:
        return values.mul_(math.prod(like.shape[1:]) ** -0.5)
    return values.mul_(0.02).add_(_GREY if name == "conv_last.bias" else 0.0)
