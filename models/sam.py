"""Segment Anything (ViT-H): the exact outline of a thing in a box or at a point (transformers' implementation).

The picture's encoder, 637 M of the 641 M parameters, runs in the device's half precision. Prompts and masks are decoded
in float32: float16 holds a coordinate to a quarter of a pixel only.
"""

# ruff: noqa: PLC0415 - torch and transformers are heavy, and only studio workers have them

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from models.device import Device
from models.files import ModelFiles
from models.graphs import graphs_for
from models.levels import Levels
from models.pretrained import load_pretrained
from models.requests import BoxF
from pipeline.errors import ModelCorrupt
from pipeline.types import U8, Mask

if TYPE_CHECKING:
    import torch

FILES = ("config.json", "model.safetensors", "preprocessor_config.json")
"""What is needed of the repository facebook/sam-vit-huge."""

PROMPTS_AT_ONCE = 16
"""Boxes that are decoded together: each takes some 30 MB while it is."""

NEARLY_BEST = 0.1
"""At a point, masks whose predicted IoU is within this of the best are as good."""


def load(files: ModelFiles, device: Device) -> Sam:
    """The segmenter, on its device.

    Raises:
        ModelMissing, ModelCorrupt: a file is not there, or its content does not fit the others.
    """
    import torch
    from transformers import SamConfig, SamModel
    from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

    config = SamConfig.from_dict(files.json("config.json"))
    network: Any = load_pretrained(SamModel, config, files, "model.safetensors")
    network.vision_encoder.to(device.place(), device.dtype())
    network.to(device.place())
    for part in (network.shared_image_embedding, network.prompt_encoder, network.mask_decoder):
        part.to(torch.float32)
    _place_positions(network, device)
    return Sam(files.name, device, network, SamImageProcessorPil.from_dict(files.json("preprocessor_config.json")))


def _place_positions(network: Any, device: Device) -> None:
    """Have the encoder's attention look up relative positions by indices that lie on the device.

    The library makes the same indices anew in each call of each layer, on the host. Beside a GPU each is a copy, before
    which all that was asked for is waited for, and which can't be part of a recording.
    """
    import torch

    for layer in network.vision_encoder.layers:
        attention = layer.attn
        if attention.use_rel_pos:
            side = (len(attention.rel_pos_h) + 1) // 2
            places = torch.arange(side, device=device.place())
            attention.get_rel_pos = partial(_relative, places[:, None] - places[None, :] + side - 1)


def _relative(apart: torch.Tensor, _queries: int, _keys: int, table: torch.Tensor) -> torch.Tensor:
    """[Q, K, C], one row of `table` for each query and key; the picture that is encoded has one size, and so has it."""
    return table[apart]


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A picture as the encoder left it.

    Attributes:
        digest: of the picture's pixels and shape.
        features: float32 [1, C, h, w], on the device.
        size_px: the picture's height and width.
        reduced_px: height and width at which the encoder saw it.
    """

    digest: bytes
    features: torch.Tensor
    size_px: tuple[int, int]
    reduced_px: tuple[int, int]


class Sam:
    """The segmenter. The last picture's features are kept, so that further prompts on it cost next to nothing.

    Attributes:
        networks: the one network.
        graphs: recordings of its encoder.
    """

    def __init__(self, name: str, device: Device, network: torch.nn.Module, processor: Any) -> None:
        self.networks = (network,)
        self.graphs = graphs_for(device)
        self._name = name
        self._device = device
        self._processor = processor
        self._levels = Levels(processor, device.place(), device.dtype())
        self._last: _Encoded | None = None

    def segment(self, rgb: U8, boxes: Sequence[BoxF]) -> tuple[Mask, ...]:
        """The thing in each box, bool [H, W].

        A box says which thing is meant, so the one mask is taken that the network was trained to give for it.

        Args:
            rgb: uint8 [H, W, 3], sRGB.
            boxes: (x0, y0, x1, y1) in pixels of `rgb`.

        Raises:
            ModelCorrupt: the network gives numbers that are none.
        """
        if not boxes:
            return ()
        picture = self._encode(rgb)
        masks: list[Mask] = []
        for start in range(0, len(boxes), PROMPTS_AT_ONCE):
            corners = self._to_reduced(picture, np.array(boxes[start : start + PROMPTS_AT_ONCE]).reshape(-1, 2, 2))
            decoded, _ = self._decode(picture, multimask_output=False, input_boxes=corners.reshape(1, -1, 4))
            masks += list(decoded[:, 0])
        return tuple(masks)

    def segment_at(self, rgb: U8, point: tuple[float, float]) -> Mask:
        """The thing at a point, bool [H, W]; of the three that the network offers (a part of a part, a part, the
        whole) the largest that it is nearly as sure of as of the best.

        Args:
            rgb: uint8 [H, W, 3], sRGB.
            point: (x, y) in pixels of `rgb`.

        Raises:
            ModelCorrupt: the network gives numbers that are none.
        """
        picture = self._encode(rgb)
        places = self._to_reduced(picture, np.array(point)).reshape(1, 1, 1, 2)
        decoded, predicted = self._decode(picture, multimask_output=True, input_points=places)
        good = predicted[0] >= predicted[0].max() - NEARLY_BEST
        areas = np.where(good, decoded[0].sum(axis=(1, 2)), -1)
        mask: Mask = decoded[0, int(areas.argmax())]
        return mask

    def forget(self) -> None:
        """Let the last picture's features go."""
        self._last = None

    def _encode(self, rgb: U8) -> _Encoded:
        import torch

        digest = hashlib.sha256(rgb.tobytes()).digest() + repr(rgb.shape).encode()
        if self._last is None or self._last.digest != digest:
            whole = self._processor.pad_size
            with torch.inference_mode():
                seen = self._levels(rgb)
                height, width = seen.shape[-2:]
                pixels = torch.nn.functional.pad(seen, (0, whole.width - width, 0, whole.height - height))
                features = self.graphs.run("encoder", self._features, pixels)
            self._last = _Encoded(digest, features, (rgb.shape[0], rgb.shape[1]), (height, width))
        return self._last

    def _features(self, pixels: torch.Tensor) -> torch.Tensor:
        """float32 [1, C, h, w] of a picture as large as the encoder takes it."""
        network: Any = self.networks[0]
        features: torch.Tensor = network.vision_encoder(pixels).last_hidden_state.float()
        return features

    @staticmethod
    def _to_reduced(picture: _Encoded, places: Any) -> torch.Tensor:
        """float32 [..., 2]: (x, y) of the picture in the frame that the encoder saw."""
        import torch

        (height, width), (reduced_height, reduced_width) = picture.size_px, picture.reduced_px
        return torch.as_tensor(places * (reduced_width / width, reduced_height / height), dtype=torch.float32)

    def _decode(self, picture: _Encoded, *, multimask_output: bool, **prompts: torch.Tensor) -> tuple[Any, Any]:
        """Masks, bool [N, M, H, W], and their predicted IoU, float32 [N, M]."""
        import torch

        network: Any = self.networks[0]
        with torch.inference_mode():
            made = network(
                image_embeddings=picture.features,
                multimask_output=multimask_output,
                **{name: value.to(self._device.place()) for name, value in prompts.items()},
            )
            if not bool(made.pred_masks.isfinite().all() & made.iou_scores.isfinite().all()):
                raise ModelCorrupt(f"{self._name} gives numbers that are none: its weights are damaged")
            masks = self._processor.post_process_masks(made.pred_masks, [picture.size_px], [picture.reduced_px])[0]
        return masks.cpu().numpy(), made.iou_scores[0].cpu().numpy()
