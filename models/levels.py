"""Pictures as networks of the transformers library see them, with a byte for each number sent to the device.

The library resizes a picture on the CPU, in bytes, and then scales and normalises it in floating-point numbers, four
bytes each. Of a byte there are 256 values, so what it makes of every one of them is a table, which a device looks up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.types import U8

if TYPE_CHECKING:
    import torch


class Levels:
    """What an image processor makes of pictures, the same numbers.

    Args:
        processor: of the library's PIL kind, which resizes first and then looks at each number alone.
        place: the device of the pictures.
        dtype: of the pictures.
    """

    def __init__(self, processor: Any, place: torch.device, dtype: torch.dtype) -> None:
        ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
        of_each = processor(images=[ramp], do_resize=False, do_pad=False, **_FORM)["pixel_values"]
        self._processor = processor
        self._table = of_each.reshape(3, 256).to(place, dtype)

    def __call__(self, rgb: U8) -> torch.Tensor:
        """[1, 3, h, w]: the picture resized, scaled and normalised, without a border.

        Args:
            rgb: uint8 [H, W, 3], sRGB.
        """
        plain = self._processor(images=[rgb], do_rescale=False, do_normalize=False, do_pad=False, **_FORM)
        # From an array that isn't pinned: the driver has read it by the time that the call returns.
        levels = plain["pixel_values"].to(self._table.device, non_blocking=True)
        seen: torch.Tensor = self._table.gather(1, levels.reshape(3, -1).long()).reshape(levels.shape)
        return seen


_FORM = {"input_data_format": "channels_last", "return_tensors": "pt"}
