"""Depth from one picture: Depth Anything V2 Small, or ZoeDepth (transformers' implementations of both)."""

# ruff: noqa: PLC0415 - torch and transformers are heavy, and only studio workers have them

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from models.device import Device
from models.files import ModelFiles
from models.graphs import Graphs, graphs_for
from models.levels import Levels
from models.pretrained import load_pretrained
from pipeline.errors import InternalError, ModelCorrupt
from pipeline.types import U8

if TYPE_CHECKING:
    import torch

FILES = ("config.json", "model.safetensors", "preprocessor_config.json")
"""What is needed of depth-anything/Depth-Anything-V2-Small-hf, and of Intel/zoedepth-nyu-kitti."""

FLAT = 128
"""What a scene without any depth is given: no end of the range."""

_NEAREST_M = 1e-3  # ZoeDepth's own least distance


class DepthEstimator:
    """One estimator. Use `load`.

    Attributes:
        networks: the one network.
        graphs: recordings of it.
    """

    def __init__(
        self,
        network: Any,
        prepare: Callable[[U8], torch.Tensor],
        nearness: Callable[[torch.Tensor, int, int], torch.Tensor],
        graphs: Graphs,
    ) -> None:
        self.networks: tuple[torch.nn.Module, ...] = (network,)
        self.graphs = graphs
        self._network = network
        self._prepare = prepare
        self._nearness = nearness

    def depth(self, rgb: U8) -> U8:
        """Relative depth over the full range 0 to 255, near is light; `FLAT` everywhere where it is the same.

        Args:
            rgb: uint8 [H, W, 3], sRGB.

        Returns:
            uint8 [H, W].

        Raises:
            InternalError: the network gave a value that is no number.
        """
        import torch

        with torch.inference_mode():
            found = self.graphs.run("network", self._found, self._prepare(rgb))
            return full_range(self._nearness(found, rgb.shape[0], rgb.shape[1]))

    def _found(self, pixels: torch.Tensor) -> torch.Tensor:
        """float32 [1, h, w]."""
        found: torch.Tensor = self._network(pixels).predicted_depth.float()
        return found


def full_range(near: torch.Tensor) -> U8:
    """float32 [H, W] stretched to 0 to 255, uint8 [H, W]; `FLAT` where it is constant.

    Raises:
        InternalError: a value is no number.
    """
    import torch

    low, high = torch.stack(near.aminmax()).tolist()
    if not np.isfinite(high - low):
        raise InternalError
    if high <= low:
        return np.full(near.shape, FLAT, np.uint8)
    levels: U8 = ((near - low) * (255.0 / (high - low))).round().to(torch.uint8).cpu().numpy()
    return levels


def load(files: ModelFiles, device: Device) -> DepthEstimator:
    """The estimator that the row's configuration names, on its device.

    Raises:
        ModelMissing, ModelCorrupt: a file is not there, or its content does not fit the others.
    """
    kind = files.json("config.json").get("model_type")
    if kind == "depth_anything":
        return _depth_anything(files, device)
    if kind == "zoedepth":
        return _zoedepth(files, device)
    raise ModelCorrupt(f"{files.name} is no depth estimator that is known")


def _depth_anything(files: ModelFiles, device: Device) -> DepthEstimator:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation
    from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

    config = DepthAnythingConfig.from_dict(files.json("config.json"))
    network = load_pretrained(DepthAnythingForDepthEstimation, config, files, "model.safetensors")
    network.to(device.place(), device.dtype())
    processor = DPTImageProcessorPil.from_dict(files.json("preprocessor_config.json"))
    return DepthEstimator(network, Levels(processor, device.place(), device.dtype()), _disparity, graphs_for(device))


def _zoedepth(files: ModelFiles, device: Device) -> DepthEstimator:
    import torch
    from transformers import ZoeDepthConfig, ZoeDepthForDepthEstimation
    from transformers.models.zoedepth.image_processing_pil_zoedepth import ZoeDepthImageProcessorPil

    config = ZoeDepthConfig.from_dict(files.json("config.json"))
    network = load_pretrained(ZoeDepthForDepthEstimation, config, files, "model.safetensors")
    # Its heads take logarithms and exponentials of a temperature of up to 50: float16 has no room for them.
    network.to(device.place(), torch.float32)
    processor = ZoeDepthImageProcessorPil.from_dict(files.json("preprocessor_config.json"))

    def prepare(rgb: U8) -> torch.Tensor:
        ready = processor(images=[rgb], input_data_format="channels_last", return_tensors="pt")
        pixels: torch.Tensor = ready["pixel_values"].to(device.place(), torch.float32)
        return pixels

    # Which of its heads goes on, indoors or outdoors, the host decides in the middle: no recording can hold that.
    return DepthEstimator(network, prepare, _disparity_of_padded, Graphs(None))


def _disparity(found: torch.Tensor, height_px: int, width_px: int) -> torch.Tensor:
    """What Depth Anything gives is larger where it is nearer already; [1, h, w] to [height_px, width_px]."""
    return _resized(found, height_px, width_px)


def _disparity_of_padded(found: torch.Tensor, height_px: int, width_px: int) -> torch.Tensor:
    """ZoeDepth gives metres, of a picture with a reflected rim; ControlNets were trained on the inverse."""
    top, left = (int(3 * (side_px / 2) ** 0.5) for side_px in (height_px, width_px))
    whole = _resized(found, height_px + 2 * top, width_px + 2 * left)
    metres = whole[top : top + height_px, left : left + width_px]
    return 1.0 / metres.clamp_min(_NEAREST_M)


def _resized(found: torch.Tensor, height_px: int, width_px: int) -> torch.Tensor:
    import torch

    size = (height_px, width_px)
    return torch.nn.functional.interpolate(found[:, None], size, mode="bicubic", align_corners=False)[0, 0]
