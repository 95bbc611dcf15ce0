"""Real-ESRGAN's network for drawn pictures, which makes them four times as wide and high.

Wang et al. (2018), "ESRGAN", and Wang et al. (2021), "Real-ESRGAN": residual blocks within residual blocks, then two
doublings by nearest neighbour. The layers are named as in the published checkpoint (BasicSR's `RRDBNet`).
"""

# ruff: noqa: PLC0415 - torch is heavy, and only studio workers have it

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from models.device import Device
from models.files import ModelFiles
from models.graphs import Graphs, graphs_for
from models.networks import place_weights
from models.requests import Check, Tell, untold
from pipeline.errors import ModelCorrupt
from pipeline.types import U8

if TYPE_CHECKING:
    import torch

FILES = ("RealESRGAN_x4plus_anime_6B.pth",)
"""What is needed of the repository ximso/RealESRGAN_x4plus_anime_6B."""

FEATURES, GROWTH, BLOCKS = 64, 32, 6
"""Of the published network: channels, channels that each convolution of a dense block adds, outer residual blocks."""

SCALE = 4

_DENSE_BLOCKS, _CONVOLUTIONS = 3, 5  # of each outer block, and of each of those
_RESIDUAL = 0.2
_SLOPE = 0.2
_AVERAGED, _PLAIN = "params_ema", "params"


def load(files: ModelFiles, device: Device) -> Upscaler:
    """The upscaler, on its device.

    Raises:
        ModelMissing, ModelCorrupt: the file is not there, or its weights are not those of this network.
    """
    import torch

    weights = _weights_of(files)
    features, growth, blocks = _size_of(weights)
    with torch.device("meta"):
        network = build_rrdbnet(features, growth, blocks)
    return Upscaler(files.name, device, place_weights(network, weights, files.name, device, device.dtype()), blocks)


def _weights_of(files: ModelFiles) -> dict[str, torch.Tensor]:
    """The weights by name. Trainings store them averaged over time, or as they were last, or both; the first is meant.

    Raises:
        ModelCorrupt: there are neither.
    """
    import torch

    stored: Mapping[str, Any] = files.tensors(*FILES)
    weights = stored.get(_AVERAGED, stored.get(_PLAIN, stored))
    if not isinstance(weights, Mapping) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise ModelCorrupt(f"the weight file of {files.name} does not hold one network's weights")
    return dict(weights)


def _size_of(weights: Mapping[str, torch.Tensor]) -> tuple[int, int, int]:
    """Channels, growth and blocks, as the shapes say; the published ones where they say nothing."""
    first, inner = weights.get("conv_first.weight"), weights.get("body.0.rdb1.conv1.weight")
    return (
        FEATURES if first is None or first.ndim != 4 else first.shape[0],
        GROWTH if inner is None or inner.ndim != 4 else inner.shape[0],
        sum(name.startswith("body.") and name.endswith(".rdb1.conv1.weight") for name in weights),
    )


def build_rrdbnet(features: int, growth: int, blocks: int) -> torch.nn.Module:
    """The network's layers as a tree whose state dict has the published names."""
    from torch import nn

    def conv(wide_in: int, wide_out: int) -> nn.Module:
        return nn.Conv2d(wide_in, wide_out, 3, padding=1)

    def dense() -> nn.Module:
        widths = [features + growth * i for i in range(_CONVOLUTIONS)]
        adds = [growth] * (_CONVOLUTIONS - 1) + [features]
        return nn.ModuleDict({f"conv{i + 1}": conv(widths[i], adds[i]) for i in range(_CONVOLUTIONS)})

    def block() -> nn.Module:
        return nn.ModuleDict({f"rdb{i + 1}": dense() for i in range(_DENSE_BLOCKS)})

    return nn.ModuleDict(
        {
            "conv_first": conv(3, features),
            "body": nn.Sequential(*(block() for _ in range(blocks))),
            **{name: conv(features, features) for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr")},
            "conv_last": conv(features, 3),
        }
    )


def upscale(network: Any, seen: torch.Tensor, check: Check, graphs: Graphs | None = None) -> torch.Tensor:
    """A picture four times as wide and high.

    Args:
        network: as `build_rrdbnet` makes it.
        seen: floating-point [1, 3, H, W], sRGB 0 to 1.
        check: called before each block, and where many are replayed as one, after them.
        graphs: recordings of this network; None: none are made.

    Returns:
        Of the same type, [1, 3, 4 H, 4 W], about 0 to 1.
    """
    features_of = partial(_features, network, check)
    features = features_of(seen) if graphs is None else graphs.run("features", features_of, seen)
    return _doubled(network, features, check)


def _features(network: Any, check: Check, seen: torch.Tensor) -> torch.Tensor:
    """[1, C, H, W]: all that is computed at the size of the picture, many small steps."""
    first = network["conv_first"](seen)
    deep = first
    for block in network["body"]:
        check()
        inner = deep
        for dense in block.values():
            inner = _dense_forward(dense, inner)
        deep = inner * _RESIDUAL + deep
    features: torch.Tensor = first + network["conv_body"](deep)
    return features


def _doubled(network: Any, picture: torch.Tensor, check: Check) -> torch.Tensor:
    """[1, 3, 4 H, 4 W], of features: few steps, each of which keeps a GPU busy and takes gigabytes."""
    from torch.nn.functional import interpolate, leaky_relu

    for name in ("conv_up1", "conv_up2"):
        check()
        picture = interpolate(picture, scale_factor=2, mode="nearest")
        picture = leaky_relu(network[name](picture), _SLOPE, inplace=True)  # in place: 2 GiB each at 4096 px
    picture = leaky_relu(network["conv_hr"](picture), _SLOPE, inplace=True)
    last: torch.Tensor = network["conv_last"](picture)
    return last


def _dense_forward(dense: Any, given: torch.Tensor) -> torch.Tensor:
    """Each convolution sees all that came before it."""
    import torch
    from torch.nn.functional import leaky_relu

    *before, last = dense.values()
    seen = given
    for conv in before:
        seen = torch.cat((seen, leaky_relu(conv(seen), _SLOPE)), dim=1)
    added: torch.Tensor = last(seen)
    return added * _RESIDUAL + given


class Upscaler:
    """The upscaler.

    Attributes:
        networks: the one network.
        graphs: recordings of what it does at the picture's own size, where the whole is worked on at once. The rest
            would hold 4 GiB and more for 4096 px, and tiles are for where memory is short.
        reach_px: how far the input pixels lie, at most, that an output pixel depends on.
    """

    def __init__(self, name: str, device: Device, network: torch.nn.Module, blocks: int) -> None:
        self.networks = (network,)
        self.graphs = graphs_for(device)
        # A pixel for each convolution before the doublings; those after them reach 1/2 + 3/4 of one, and a doubled
        # pixel belongs to the one that it lies in.
        self.reach_px = 2 + blocks * _DENSE_BLOCKS * _CONVOLUTIONS + 2
        self._name = name
        self._device = device

    def enlarge(self, rgb: U8, check: Check, tile_px: int | None = None, tell: Tell = untold) -> U8:
        """The picture four times as wide and high.

        Tiles see so much of what lies around them that every pixel depends on what it does in the whole picture; only
        the order in which sums are taken may differ.

        Args:
            rgb: uint8 [H, W, 3], sRGB.
            check: called between the network's blocks; what it raises ends the work.
            tile_px: side of the squares that the picture is worked on in, without what they see around them; None for
                the whole at once.
            tell: told of each tile that is done.

        Returns:
            uint8 [4 H, 4 W, 3], sRGB.

        Raises:
            ModelCorrupt: the network gives numbers that are none.
        """
        if tile_px is None:
            return self._paint(rgb, check, self.graphs)
        height, width = rgb.shape[:2]
        out = np.empty((SCALE * height, SCALE * width, 3), np.uint8)
        places = list(product(range(0, height, tile_px), range(0, width, tile_px)))
        for done, (y, x) in enumerate(places):
            tell(f"enlarging, tile {done + 1} of {len(places)}", done / len(places))
            top, left = max(0, y - self.reach_px), max(0, x - self.reach_px)
            bottom, right = min(height, y + tile_px), min(width, x + tile_px)
            seen = rgb[top : bottom + self.reach_px, left : right + self.reach_px]
            tile = self._paint(seen, check, None)[SCALE * (y - top) :, SCALE * (x - left) :]
            place = out[SCALE * y : SCALE * bottom, SCALE * x : SCALE * right]
            place[:] = tile[: place.shape[0], : place.shape[1]]
        return out

    def _paint(self, rgb: U8, check: Check, graphs: Graphs | None) -> U8:
        import torch

        with torch.inference_mode():
            # From an array that isn't pinned: the driver has read it by the time that the call returns.
            seen = torch.from_numpy(np.ascontiguousarray(rgb)).to(self._device.place(), non_blocking=True)
            layout = torch.channels_last if self._device.channels_last else torch.contiguous_format
            seen = (seen.permute(2, 0, 1)[None].float() / 255).to(self._device.dtype(), memory_format=layout)
            painted = upscale(self.networks[0], seen, check, graphs)[0]
            if not bool(painted.isfinite().all()):
                raise ModelCorrupt(f"{self._name} gives numbers that are none: its weights are damaged")
            levels = (painted.float().clamp_(0, 1) * 255).round_().to(torch.uint8)
            return levels.permute(1, 2, 0).contiguous().cpu().numpy()
