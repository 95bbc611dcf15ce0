"""Random weights in the file of anyisalin/big-lama."""

# ruff: noqa: PLC0415 - torch is heavy, and only these writers need it

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from models.lama import BLOCKS, FEATURES, FILES, build_generator

if TYPE_CHECKING:
    import torch

PARAMETERS_M = 51
"""Of the published model, in millions."""

PREFIX = "generator."
"""The published file keeps the names of the training, whose generator is one part of it."""

_TINY_FEATURES, _TINY_BLOCKS = 8, 2


def write(row: str, folder: Path, size: Literal["tiny", "full"], seed: int) -> int:
    """Write the row's file into `folder`; see `builder.synthetic`.

    Returns:
        The number of parameters.
    """
    import torch
    from safetensors.torch import save_file

    with torch.device("meta"):
        network = build_generator(*((FEATURES, BLOCKS) if size == "full" else (_TINY_FEATURES, _TINY_BLOCKS)))
    rng = np.random.default_rng(seed)
    weights = {PREFIX + name: _random(name, tensor, rng) for name, tensor in network.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / FILES[0])
    count = sum(parameter.numel() for parameter in network.parameters())
    if size == "full" and abs(count / 1e6 / PARAMETERS_M - 1) > 0.01:
        raise AssertionError(f"{row} has {count / 1e6:.1f} million parameters, not {PARAMETERS_M}")
    return count


def _random(name: str, like: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Kernels keep the variance of what they are applied to; norms scale by about 1 and move by a little."""
    import torch

    if not like.is_floating_point():
        return torch.zeros(like.shape, dtype=like.dtype)
    values = torch.from_numpy(rng.standard_normal(tuple(like.shape), dtype=np.float32))
    if like.ndim > 1:
        return values.mul_(math.prod(like.shape[1:]) ** -0.5)
    if name.endswith("running_var"):
        return values.abs_().add_(0.5)
    return values.mul_(0.1).add_(1.0 if name.endswith("weight") else 0.0)
