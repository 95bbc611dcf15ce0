"""Writes .runpod/hub.json and .runpod/tests.json from the settings and the scene: `python -m tests.make_hub`."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from pipeline.settings import PREFIX, RUNPOD_NAMES, Settings
from tests.image.dockerfile import dockerfile
from tests.scene import encode_jpeg, render_scene

FOLDER = Path(__file__).resolve().parent.parent / ".runpod"

SHOWN = frozenset(
    {"auto_engine", "volume", "price_usd_per_s", "bucket_endpoint", "bucket_name", "bucket_region", *RUNPOD_NAMES}
)
"""Settings that a deployment usually makes; the form folds the others away."""

UNITS = {"_usd_per_s": " (USD per second)", "_s": " (seconds)", "_mb": " (MiB)"}

CUDA_VERSIONS = ("12.8", "12.9", "13.0")
"""Of hosts whose driver runs an image built for CUDA 12.8 on a Blackwell GPU."""

GPU_POOLS = ("ADA_32_PRO", "ADA_80_PRO")
"""The platform's names of the RTX 5090's pool and of the H100's; the studio engine takes an estimated 20 GiB."""

TEST_GPU = "NVIDIA GeForce RTX 5090"
PHOTO_PX = (320, 213)


def hub() -> dict[str, Any]:
    """The listing: what it is, what it runs on, and a field of the form for each setting."""
    return {
        "title": "Livery",
        "description": "A vehicle photo and a palette in; a palette-exact vector illustration out.",
        "type": "serverless",
        "category": "image",
        "config": {
            "runsOn": "GPU",
            "containerDiskInGb": 20,
            "gpuCount": 1,
            "gpuIds": ",".join(GPU_POOLS),
            "allowedCudaVersions": list(CUDA_VERSIONS),
            "presets": [
                {"name": "Studio, with a warmed network volume", "defaults": {"LIVERY_AUTO_ENGINE": "studio"}},
                {"name": "Draft only, without a volume", "defaults": {"LIVERY_AUTO_ENGINE": "draft"}},
            ],
            "env": [_entry(name, field) for name, field in Settings.model_fields.items()],
        },
    }


def _entry(name: str, field: FieldInfo) -> dict[str, Any]:
    """One variable. What the image sets is the default here too, since the platform sets each variable of the form."""
    key = PREFIX + name.upper()
    kind, options = _kind(field)
    default = dockerfile().environment("worker").get(key, field.default)
    entry: dict[str, Any] = {"name": _title(name), "type": kind, "description": field.description}
    if options:
        entry["options"] = [{"label": option, "value": option} for option in options]
    if default is not None:
        entry["default"] = default
    return {"key": key, "input": {**entry, "advanced": name not in SHOWN}}


def _kind(field: FieldInfo) -> tuple[str, tuple[str, ...]]:
    """The form's type for a setting, and the values that it may take where those are few."""
    inner: Any = field.annotation
    while get_origin(inner) in {Union, UnionType, Annotated}:
        inner = next(part for part in get_args(inner) if part is not type(None))
    if get_origin(inner) is Literal:
        return "string", get_args(inner)
    return {bool: "boolean", int: "number", float: "number"}.get(inner, "string"), ()


def _title(name: str) -> str:
    unit = next((unit for unit in UNITS if name.endswith(unit)), "")
    return name.removesuffix(unit).replace("_", " ").capitalize() + UNITS.get(unit, "")


def hub_tests() -> dict[str, Any]:
    """What the platform runs before it lists a release. It mounts no volume, so nothing here needs one."""
    image = base64.b64encode(encode_jpeg(render_scene(*PHOTO_PX), 80)).decode("ascii")
    photo = {"image": image, "engine": "draft", "palette": {"extract": 6}}
    return {
        "tests": [
            {"name": "ping", "input": {"action": "ping"}, "timeout": 60_000},
            {"name": "dry_run", "input": {**photo, "action": "dry_run"}, "timeout": 60_000},
            {"name": "draft", "input": {**photo, "output": {"png_widths": [640]}}, "timeout": 120_000},
        ],
        "config": {
            "gpuTypeId": TEST_GPU,
            "gpuCount": 1,
            "env": [{"key": "LIVERY_AUTO_ENGINE", "value": "draft"}],
            "allowedCudaVersions": list(CUDA_VERSIONS),
        },
    }


def text_of(document: dict[str, Any]) -> str:
    """As the files hold it."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Bring both files up to date."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "hub.json").write_text(text_of(hub()), encoding="utf-8")
    (FOLDER / "tests.json").write_text(text_of(hub_tests()), encoding="utf-8")


if __name__ == "__main__":
    main()
