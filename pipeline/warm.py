"""Compiling every kernel before the first job, so that no job waits for the compiler."""

from __future__ import annotations

import io
import math
import sys
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher
from PIL import Image

from pipeline.request import parse_request
from pipeline.resample import resize_linear
from pipeline.run import run
from pipeline.settings import load_settings
from pipeline.steps import PERCENT
from pipeline.worker import Worker

_WIDTH_PX, _HEIGHT_PX = 192, 128


def _picture() -> bytes:
    """A PNG with edges, slopes and grain, so that every step finds something to do."""
    y, x = np.mgrid[0:_HEIGHT_PX, 0:_WIDTH_PX]
    grain = (x * 37 + y * 91) % 23
    wheel = (x - 96) ** 2 + (y - 70) ** 2 < 40**2
    planes = [np.where(wheel, 200 - y, 60 + x // 2) + grain, np.where(wheel, 30, 90 + y) + grain, 120 - y // 2 + grain]
    file = io.BytesIO()
    Image.fromarray(np.stack(planes, axis=2).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


_SVG = {"formats": ["svg"]}
_EVERY_STEP = {"engine": "draft", "line_work": 0.8, "sanitize": {"regions": [[10, 10, 30, 30]]}, "output": _SVG}
REQUESTS: tuple[dict[str, Any], ...] = (
    {**_EVERY_STEP, "palette": {"extract": 6}},
    {**_EVERY_STEP, "background": "remove", "subject": {"box": [40, 20, 150, 120]}},
    {"engine": "draft", "output": {"formats": ["dxf"], "width_mm": 96, "min_feature_mm": 1, "stacking": "abutting"}},
    {"engine": "draft", "output": {"formats": ["svg"], "tolerance_px": 0.5}},
    {"engine": "draft", "output": {"formats": ["separations"], "width_mm": 96, "trap_mm": 0.3}},
    {"engine": "draft", "output": {"formats": ["dxf"], "single_cut": True}},
)
"""Between them they take every way through a job that has kernels of its own."""


def warm_kernels() -> int:
    """Run a small picture through every kernel: each is compiled, or loaded from the cache on disk.

    No deadline holds meanwhile: on a slow machine a phase compiles for longer than any job may take.

    Returns:
        How many had to be compiled.

    Raises:
        SettingsError: the environment's settings can't be used.
    """
    worker = Worker(load_settings().model_copy(update={f"deadline_{phase}_s": math.inf for phase in PERCENT}))
    for writeable in (False, True):  # decoders hand over both kinds, and the compiler tells them apart
        plain = np.zeros((40, 60, 3), np.uint8)
        plain.setflags(write=writeable)
        resize_linear(plain, 30, 20)
    picture = _picture()
    for request in REQUESTS:
        run(parse_request(request), worker, data=picture)
    return sum(compiled_now(module) for module in list(sys.modules) if module.startswith("pipeline."))


def compiled_now(module: str) -> int:
    """How many signatures of a module's kernels this process compiled because the cache lacked them."""
    kernels = [value for value in vars(sys.modules[module]).values() if isinstance(value, Dispatcher)]
    own = [kernel for kernel in kernels if kernel.py_func.__module__ == module and kernel.stats.cache_path is not None]
    return sum(sum(kernel.stats.cache_misses.values()) for kernel in own)
