"""Label maps as files: what is read exactly, and what is refused by its kind."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ImageCorrupt, ImageError, ImageTooLarge, ImageUnsupported
from pipeline.labels import MAX_SIDE_PX, read_label_map
from pipeline.types import UNPAINTED, Ink, Palette
from tests.images import GREY, INDEXED, TRUECOLOUR, encode, png, png_chunk, png_header

PALETTE = Palette(tuple(Ink(f"#{i:02X}0000", f"ink {i}") for i in range(64)))
LABELS = np.random.default_rng(4).choice([*range(64), UNPAINTED], (17, 23)).astype(np.uint8)


def test_labels_come_through_as_they_are() -> None:
    for interlaced in (False, True):
        image = read_label_map(png(LABELS, 8, GREY, interlaced=interlaced), PALETTE)
        assert np.array_equal(image.index, LABELS)
        assert image.palette == PALETTE


@pytest.mark.parametrize(
    ("data", "fault", "sentence"),
    [
        (b"", ImageUnsupported, "no PNG"),
        (encode(LABELS, "JPEG"), ImageUnsupported, "no PNG"),
        (png(LABELS.astype(np.uint16), 16, GREY), ImageUnsupported, "grey of 16 bits"),
        (png(LABELS % 16, 4, GREY), ImageUnsupported, "grey of 4 bits"),
        (png(LABELS.repeat(3).reshape(17, 23, 3), 8, TRUECOLOUR), ImageUnsupported, "colour or alpha of 8 bits"),
        (encode(Image.fromarray(LABELS).convert("P"), "PNG"), ImageUnsupported, "colour or alpha of 8 bits"),
        (encode(Image.fromarray(LABELS).convert("LA"), "PNG"), ImageUnsupported, "colour or alpha of 8 bits"),
        (png(LABELS, 8, GREY)[:-60], ImageCorrupt, "damaged or cut short"),
        (png(LABELS, 8, GREY)[:33], ImageCorrupt, "damaged or cut short"),
        (png(LABELS, 8, INDEXED), ImageUnsupported, "colour or alpha"),
    ],
)
def test_what_is_no_label_map_is_refused_by_its_kind(data: bytes, fault: type[ImageError], sentence: str) -> None:
    with pytest.raises(fault, match=sentence):
        read_label_map(data, PALETTE)


def test_a_label_outside_the_palette_is_named() -> None:
    few = Palette(PALETTE.inks[:5])
    index = np.full((4, 4), UNPAINTED, np.uint8)
    index[0, 0] = 4
    assert read_label_map(encode(index, "PNG"), few).index[0, 0] == 4
    index[1, 1], index[2, 2] = 9, 5
    with pytest.raises(ImageUnsupported, match=r"^label 5 is not in the palette, whose 5 colours are labels 0 to 4$"):
        read_label_map(encode(index, "PNG"), few)


def test_a_map_past_the_limit_is_refused_before_it_is_unpacked() -> None:
    start = b"\x89PNG\r\n\x1a\n" + png_header(MAX_SIDE_PX + 1, 2, 8, GREY)
    with pytest.raises(ImageTooLarge, match="8193 × 2 px"):
        read_label_map(start + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b""), PALETTE)


def test_no_damage_gets_past_the_errors() -> None:
    good = png(LABELS, 8, GREY)
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(good)
        for at in rng.integers(8, len(data), 2):
            data[at] = rng.integers(256)
        try:
            read_label_map(bytes(data), PALETTE)
        except ImageError as fault:
            assert "\n" not in str(fault)  # noqa: PT017
