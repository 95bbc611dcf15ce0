"""Which build of the code makes pictures: what another build made is never taken for this one's."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

import models
from pipeline.report import package_version

MADE_WITH = (
    *("livery", "ezdxf", "numba", "numpy", "opencv-python-headless", "pikepdf", "pillow", "pyvips", "pyvips-binary"),
    *("vtracer", "diffusers", "torch", "transformers"),
)
"""Packages whose version may change a result."""


@cache
def build() -> str:
    """SHA-256 of the code that makes results: another build never serves what this one made."""
    digest = hashlib.sha256(json.dumps([package_version(name) for name in MADE_WITH]).encode())
    for house in (Path(__file__).parent, *(Path(folder) for folder in models.__path__)):
        for file in sorted(house.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(house).as_posix()} {file.stat().st_size}\n".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()
