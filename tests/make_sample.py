"""Writes test_input.json, the request that RunPod's tools and `make demo` send: `python -m tests.make_sample`."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from pipeline.palette import DEFAULT_PALETTE
from tests.scene import Scene, encode_jpeg, render_scene

SAMPLE = Path(__file__).resolve().parent.parent / "test_input.json"
WIDTH_PX, HEIGHT_PX = 1280, 853
JPEG_QUALITY = 88


def draw_sample() -> Scene:
    """The scene at the size that test_input.json holds."""
    return render_scene(WIDTH_PX, HEIGHT_PX)


def sample_request(scene: Scene) -> dict[str, object]:
    """The RunPod job for `scene`, with the default inks spelled out as an example."""
    image = base64.b64encode(encode_jpeg(scene, JPEG_QUALITY)).decode("ascii")
    palette = [{"hex": ink.hex, "name": ink.name} for ink in DEFAULT_PALETTE.inks]
    return {"input": {"image": image, "palette": palette}}


def main() -> None:
    """Draw the scene and write the request beside the README."""
    SAMPLE.write_text(json.dumps(sample_request(draw_sample()), indent=1) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
