"""Weight files in memory, cut into tensors without a copy.

The safetensors format is read here rather than by its own library, which takes nothing but a `bytes` object and copies
every tensor out of it: twice the memory.
"""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any, TypeGuard

from pipeline.types import U8

if TYPE_CHECKING:
    import torch

_LONGEST_HEADER_BYTES = 100_000_000  # the format's own limit
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


class BadWeights(Exception):
    """A weight file is damaged, or holds something else than tensors by name."""


def tensors_in(name: str, data: U8) -> dict[str, torch.Tensor]:
    """The tensors of a weight file, on the CPU, in the dtype that they were stored in.

    Those of a `.safetensors` file are views of `data`. Of any other file nothing but tensors is unpickled
    (`weights_only`), so that it can't run code.

    Raises:
        BadWeights: it is damaged, or holds something else.
    """
    if name.endswith(".safetensors"):
        return _safetensors(data)
    import torch  # noqa: PLC0415 - heavy, and only studio workers have it

    try:
        value = torch.load(BytesIO(data.data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError, OSError):
        raise BadWeights from None
    if not isinstance(value, dict):
        raise BadWeights
    return value


def _safetensors(data: U8) -> dict[str, torch.Tensor]:
    """8 bytes of length, that many of JSON, then the tensors end to end, as the header's offsets say."""
    header_bytes = int.from_bytes(data[:8].tobytes(), "little")
    if len(data) < 8 or header_bytes > min(len(data) - 8, _LONGEST_HEADER_BYTES):
        raise BadWeights
    try:
        header = json.loads(data[8 : 8 + header_bytes].tobytes())
        header.pop("__metadata__", None)
        entries = sorted(header.items(), key=lambda entry: entry[1]["data_offsets"][0])
    except (ValueError, RecursionError, AttributeError, LookupError, TypeError):
        raise BadWeights from None
    body, at, tensors = data[8 + header_bytes :], 0, {}
    for name, entry in entries:
        tensors[name], at = _tensor(body, at, entry)
    if at != len(body):
        raise BadWeights
    return tensors


def _tensor(body: U8, at: int, entry: Mapping[str, Any]) -> tuple[torch.Tensor, int]:
    """One tensor, which must begin at `at`, and where it ends."""
    import torch  # noqa: PLC0415

    shape, offsets, dtype_name = entry.get("shape"), entry.get("data_offsets"), _DTYPES.get(str(entry.get("dtype")))
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2 or dtype_name is None:
        raise BadWeights
    dtype: torch.dtype = getattr(torch, dtype_name)
    count, (begin, end) = math.prod(shape), offsets
    if begin != at or end > len(body) or end - begin != count * dtype.itemsize:
        raise BadWeights
    if count == 0:
        return torch.empty(shape, dtype=dtype), end
    part = body[begin:end]
    if part.ctypes.data % dtype.itemsize:
        part = part.copy()
    return torch.frombuffer(part, dtype=dtype).reshape(shape), end


def _naturals(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)
