"""`ping`: what this worker can do, found by doing it, and what it has to do it with.

The draft engine's readiness is a real job on a tiny picture, from encoded photo to audited SVG and PNG; the studio
engine's is its volume, compared with the manifest. No model is loaded, and no absolute path or host name is told.
"""

from __future__ import annotations

import io
import logging
import platform
import time
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from models.tree import survey_tree
from pipeline import compiled
from pipeline.errors import InternalError, LiveryError, ModelCorrupt, ModelMissing
from pipeline.nvml import read_gpu
from pipeline.report import package_version
from pipeline.request import parse_request
from pipeline.run import run
from pipeline.schema import EngineHealth, Health, VolumeTree
from pipeline.worker import Worker, choose_engine

CHECK_WIDTH_PX, CHECK_HEIGHT_PX = 96, 64
CHECK_INKS = ("#14161A", "#C8262B", "#F2F4F5")

LONGEST_LIST = 20
"""Paths of a kind that a reply names."""

PACKAGES = (
    *(
        "livery",
        "boto3",
        "ezdxf",
        "numba",
        "numpy",
        "opencv-python-headless",
        "pikepdf",
        "pillow",
        "pydantic",
        "pyvips",
    ),
    *("runpod", "vtracer", "torch", "diffusers", "transformers", "nvidia-ml-py"),
)

# What a broken installation raises inside the phases, besides our own errors: a missing or mismatched library, a kernel
# that does not compile, a child process that can't start.
_FAULTS = (LiveryError, ArithmeticError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError)

VolumeState = Literal["unset", "missing", "unreadable", "damaged", "present"]

log = logging.getLogger(__name__)


def ping(worker: Worker) -> Health:
    """The worker's health. Takes about as long as a tiny job; raises nothing that a job would raise."""
    draft, studio = _draft_health(worker), _studio_health(worker)
    volume, tree = _volume_health(worker.settings.volume)
    gpu = read_gpu()
    try:
        chosen, _ = choose_engine(parse_request({}), worker)
        auto = chosen if draft.ready else None
    except ModelMissing:
        auto = None
    return Health(
        status="failing" if auto is None else "ready",
        auto=auto,
        engines={"draft": draft, "studio": studio},
        volume=volume,
        tree=tree,
        gpu=None if isinstance(gpu, str) else gpu,
        gpu_reason=gpu if isinstance(gpu, str) else None,
        threads=compiled.thread_count(),
        versions={"python": platform.python_version(), **{name: package_version(name) for name in PACKAGES}},
    )


def _studio_health(worker: Worker) -> EngineHealth:
    """Whether the volume holds what each mode needs. No model is loaded: that takes a job's time."""
    reasons = []
    for mode in ("fast", "faithful"):
        try:
            choose_engine(parse_request({"engine": "studio", "mode": mode}), worker)
        except ModelMissing as fault:
            reasons.append(f"{mode}: {fault.message}")
    if reasons:
        return EngineHealth(ready=False, reason="; ".join(dict.fromkeys(reasons)))
    return EngineHealth(ready=True, reason="the volume holds every model at its pinned revision and size")


def _draft_health(worker: Worker) -> EngineHealth:
    began_s = time.perf_counter()
    try:
        _check_draft(worker)
    except _FAULTS as fault:
        log.exception("the draft engine's self-check failed")
        code = fault.code if isinstance(fault, LiveryError) else InternalError().code
        return EngineHealth(ready=False, reason=f"its self-check failed with {code}; the log has the details")
    spent_ms = round((time.perf_counter() - began_s) * 1000, 1)
    return EngineHealth(ready=True, reason="drew its test picture and passed the audit", self_check_ms=spent_ms)


def _check_draft(worker: Worker) -> None:
    """Illustrate three upright bands, one of each ink, and find every ink in the drawing."""
    bands = np.array([[int(ink[i : i + 2], 16) for i in (1, 3, 5)] for ink in CHECK_INKS], np.uint8)
    picture = np.tile(np.repeat(bands, CHECK_WIDTH_PX // len(bands), axis=0), (CHECK_HEIGHT_PX, 1, 1))
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "PNG")
    job = parse_request({"engine": "draft", "tone": 0, "palette": list(CHECK_INKS), "output": {"png_widths": [96]}})
    result = run(job, worker, data=encoded.getvalue(), frame_px=CHECK_WIDTH_PX)
    if any(ink.paths == 0 for ink in result.report.palette):
        raise RuntimeError("the test picture lost an ink")


def _volume_health(volume: Path | None) -> tuple[VolumeState, VolumeTree | None]:
    if volume is None:
        return "unset", None
    try:
        next(volume.iterdir(), None)
        tree = survey_tree(volume)
    except ModelCorrupt:
        return "damaged", None
    except (FileNotFoundError, NotADirectoryError):
        return "missing", None
    except OSError:
        return "unreadable", None
    lists = {"missing": tree.missing, "resized": tree.resized, "unexpected": tree.unexpected}
    return "present", VolumeTree(
        kind=tree.kind,
        revisions=tree.revisions,
        unlisted=tree.unlisted,
        **{name: paths[:LONGEST_LIST] for name, paths in lists.items()},
        cut=sum(len(paths[LONGEST_LIST:]) for paths in lists.values()),
    )
