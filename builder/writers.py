"""Who writes a row's random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from builder.synthetic import depth, grounding_dino, lama, rrdbnet, sam, sdxl
from models.registry import Row

Size = Literal["tiny", "full"]
Writer = Callable[[str, Path, Size, int], int]


def write_row(row: Row, folder: Path, size: Size, seed: int) -> int:
    """Write a row's files, at the paths that they have in their repository.

    Args:
        row: which.
        folder: to write into.
        size: `tiny`: runs in well under a second on a CPU. `full`: with the published configuration.
        seed: the same seed, the same bytes.

    Returns:
        The number of parameters.
    """
    return _writer(row.loader)(row.name, folder, size, seed)


def _writer(loader: str) -> Writer:
    writers: dict[str, Writer] = {
        "depth": depth.write,
        "grounding_dino": grounding_dino.write,
        "lama": lama.write,
        "rrdbnet": rrdbnet.write,
        "sam": sam.write,
        "sdxl": sdxl.write,
    }
    return writers[loader]
