"""Random weights for a network that only exists as shapes, written straight into a `.safetensors` file.

The values come from one block of normal numbers, read from a place that differs for each tensor: drawing billions one
by one would take minutes, and a file is never held in memory. Every layer gets values, zero-initialised ones too, or a
part of the network would be without effect and nobody would see it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt

Shape = tuple[int, ...]
Dtype = Literal["float16", "float32"]
Floats = npt.NDArray[np.float16] | npt.NDArray[np.float32]

_CODES: Mapping[Dtype, str] = {"float16": "F16", "float32": "F32"}
_BLOCK = 1 << 21
_SPREAD_OF_BIAS = 0.02


def write_random_weights(
    path: Path,
    shapes: Mapping[str, Shape],
    dtype: Dtype,
    seed: int,
    spreads: Mapping[str, float] = MappingProxyType({}),
    constants: Mapping[str, float] = MappingProxyType({}),
) -> int:
    """Write a file with random values of these shapes; returns how many.

    Matrices and kernels keep the variance of what they are applied to, norms are near 1, biases near 0.

    Args:
        path: of the file; its folder is made.
        shapes: by name.
        dtype: of all tensors.
        seed: the same seed, the same bytes.
        spreads: standard deviations about 0, by the end of a name, for tensors that need another than by their shape.
        constants: by the end of a name, the value that a tensor has everywhere.
    """
    rng = np.random.default_rng(seed)
    block = rng.standard_normal(_BLOCK, dtype=np.float32)
    ready: dict[tuple[float, float], Floats] = {}
    text = _header(shapes, dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            mean, spread = _distribution(name, shape, spreads, constants)
            if (mean, spread) not in ready:
                ready[mean, spread] = (block * np.float32(spread) + np.float32(mean)).astype(dtype)
            _write_values(file, ready[mean, spread], math.prod(shape), int(rng.integers(_BLOCK)))
    return sum(math.prod(shape) for shape in shapes.values())


def _header(shapes: Mapping[str, Shape], dtype: Dtype) -> bytes:
    described: dict[str, object] = {}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * np.dtype(dtype).itemsize
        described[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(described).encode()
    return text + b" " * (-len(text) % 8)


def _write_values(file: BinaryIO, block: Floats, count: int, start: int) -> None:
    while count > 0:
        part = block[start : start + count]
        file.write(part.data)
        count -= len(part)
        start = 0


def _distribution(
    name: str, shape: Shape, spreads: Mapping[str, float], constants: Mapping[str, float]
) -> tuple[float, float]:
    """Mean and standard deviation of a tensor's values."""
    for end, value in constants.items():
        if name.endswith(end):
            return value, 0.0
    for end, spread in spreads.items():
        if name.endswith(end):
            return 0.0, spread
    if len(shape) >= 2:
        return 0.0, math.prod(shape[1:]) ** -0.5
    return (1.0, 0.1) if name.endswith((".weight", ".lambda1", ".gamma")) else (0.0, _SPREAD_OF_BIAS)
