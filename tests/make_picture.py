"""Draws the README's picture, the scene before and after: `python -m tests.make_picture`."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from pipeline.request import parse_request
from pipeline.run import run
from pipeline.settings import Settings
from pipeline.worker import Worker
from tests.make_sample import draw_sample, sample_request

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "before-after.jpg"
WIDTH_PX = 900
GAP_PX = 12


def main() -> None:
    """Run the sample job and write photo and illustration side by side."""
    scene = draw_sample()
    result = run(parse_request(sample_request(scene)["input"]), Worker(Settings()))
    after = Image.open(io.BytesIO(result.pngs[0].data)).convert("RGB")
    height_px = round(WIDTH_PX * after.height / after.width)
    sheet = Image.new("RGB", (2 * WIDTH_PX + GAP_PX, height_px), "white")
    for left, picture in ((0, Image.fromarray(scene.rgb)), (WIDTH_PX + GAP_PX, after)):
        sheet.paste(picture.resize((WIDTH_PX, height_px), Image.Resampling.LANCZOS), (left, 0))
    PICTURE.parent.mkdir(exist_ok=True)
    sheet.save(PICTURE, quality=88)


if __name__ == "__main__":
    main()
