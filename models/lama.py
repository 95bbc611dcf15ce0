"""LaMa: fills holes in a photo by Fourier convolutions, which see the whole picture at once.

Suvorov et al. (2022), "Resolution-robust Large Mask Inpainting with Fourier Convolutions"; the generator of the
published big-lama (advimman/lama, `FFCResNetGenerator`), under the names that its checkpoint gives the weights. It
counts in float32: in half precision Fourier transforms exist for powers of two only, and their sums overflow.
"""

# ruff: noqa: PLC0415 - torch is heavy, and only studio workers have it

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from models.device import Device
from models.files import ModelFiles
from models.networks import place_weights
from models.requests import Check
from pipeline.errors import ModelCorrupt
from pipeline.types import U8, Box, Mask

if TYPE_CHECKING:
    import torch

FILES = ("big-lama.safetensors",)
"""What is needed of the repository anyisalin/big-lama."""

FEATURES, BLOCKS = 64, 18
"""Of the published network: channels before the first halving, and residual blocks."""

GLOBAL_SHARE = 0.75
"""Of the channels between the halvings and the doublings, those that are transformed."""

_HALVINGS = 3
_FIRST = "model.1.ffc.convl2l.weight"
_GENERATOR = "generator."
_TRAINING = ("discriminator.", "loss_", "val_evaluator.", "test_evaluator.", "extra_evaluators.")
"""What else the checkpoint of a training holds (`BaseInpaintingTrainingModule`); filling holes takes none of it."""

_CONTEXT = 2.5  # sides of a crop to those of its hole
_LEAST_PX, _MOST_PX = 256, 1024  # of a crop's sides, as the network sees it
_AT_ONCE_PX = _MOST_PX**2  # of a batch: what the largest crop has
_JOINED_PX = 16  # holes that are no further apart are filled together
_MULTIPLE_PX, _SMALLEST_PX = 8, 16  # what halving three times and reflecting once takes
_ORTHO = "ortho"


def load(files: ModelFiles, device: Device) -> Lama:
    """The inpainter, on its device.

    Raises:
        ModelMissing, ModelCorrupt: the file is not there, or its weights are not those of this network.
    """
    import torch

    weights = _generator_of(files.tensors(*FILES))
    features, blocks = _size_of(weights)
    with torch.device("meta"):
        network = build_generator(features, blocks)
    return Lama(files.name, device, place_weights(network, weights, files.name, device, torch.float32))


def _generator_of(stored: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The generator's weights by its own names; what is neither its nor the training's is left for others to refuse."""
    return {name.removeprefix(_GENERATOR): value for name, value in stored.items() if not name.startswith(_TRAINING)}


def _size_of(weights: Mapping[str, torch.Tensor]) -> tuple[int, int]:
    """Channels and residual blocks, as the shapes say; the published ones where they say nothing."""
    first = weights.get(_FIRST)
    blocks = sum(name.endswith(".conv1.ffc.convl2l.weight") for name in weights)
    return FEATURES if first is None or first.ndim != 4 else first.shape[0], blocks


def build_generator(features: int, blocks: int) -> torch.nn.Module:
    """The network's layers as a tree whose state dict has the published names.

    `model` counts: 0 a reflecting border, 1 the first convolution, 2 to 4 the halvings, the residual blocks, one place
    that joins both kinds of channels, three places for each doubling, a reflecting border, the last convolution.
    """
    from torch import nn

    model = {"1": _ffc_layer(4, features, kernel_px=7, share_in=0, share_out=0)}
    for step in range(_HALVINGS):
        wide = features << step
        share_out = GLOBAL_SHARE if step == _HALVINGS - 1 else 0
        model[str(2 + step)] = _ffc_layer(wide, 2 * wide, kernel_px=3, stride=2, share_in=0, share_out=share_out)
    wide = features << _HALVINGS
    for block in range(blocks):
        both = {name: _ffc_layer(wide, wide, kernel_px=3) for name in ("conv1", "conv2")}
        model[str(2 + _HALVINGS + block)] = nn.ModuleDict(both)
    for step in range(_HALVINGS):
        at, half = _doubling_at(blocks, step), wide // 2
        model[str(at)] = nn.ConvTranspose2d(wide, half, 3, stride=2, padding=1, output_padding=1)
        model[str(at + 1)] = nn.BatchNorm2d(half)
        wide = half
    model[str(_doubling_at(blocks, _HALVINGS) + 1)] = nn.Conv2d(wide, 3, 7)
    return nn.ModuleDict({"model": nn.ModuleDict(model)})


def _doubling_at(blocks: int, step: int) -> int:
    return 2 + _HALVINGS + blocks + 1 + 3 * step


def _ffc_layer(
    wide_in: int,
    wide_out: int,
    *,
    kernel_px: int,
    stride: int = 1,
    share_in: float = GLOBAL_SHARE,
    share_out: float = GLOBAL_SHARE,
) -> torch.nn.Module:
    """A fast Fourier convolution with its norms (`FFC_BN_ACT`): local and global channels, each from both."""
    from torch import nn

    global_in, global_out = int(wide_in * share_in), int(wide_out * share_out)
    local_in, local_out = wide_in - global_in, wide_out - global_out

    def conv(channels_in: int, channels_out: int) -> nn.Module:
        padding = 0 if kernel_px == 7 else 1  # the first layer's border is a layer of its own
        return nn.Conv2d(channels_in, channels_out, kernel_px, stride, padding, bias=False, padding_mode="reflect")

    ffc = {"convl2l": conv(local_in, local_out)}
    norms: dict[str, nn.Module] = {"bn_l": nn.BatchNorm2d(local_out)}
    if global_out:
        ffc["convl2g"] = conv(local_in, global_out)
        norms["bn_g"] = nn.BatchNorm2d(global_out)
    if global_in:
        ffc |= {"convg2l": conv(global_in, local_out), "convg2g": _spectral_transform(global_in, global_out)}
    return nn.ModuleDict({"ffc": nn.ModuleDict(ffc), **norms})


def _spectral_transform(wide_in: int, wide_out: int) -> torch.nn.Module:
    from torch import nn

    half = wide_out // 2
    fourier = {"conv_layer": nn.Conv2d(2 * half, 2 * half, 1, bias=False), "bn": nn.BatchNorm2d(2 * half)}
    return nn.ModuleDict(
        {
            "conv1": nn.Sequential(nn.Conv2d(wide_in, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU()),
            "fu": nn.ModuleDict(fourier),
            "conv2": nn.Conv2d(half, wide_out, 1, bias=False),
        }
    )


def generate(network: Any, seen: torch.Tensor) -> torch.Tensor:
    """A picture without holes.

    Args:
        network: as `build_generator` makes it.
        seen: float32 [B, 4, H, W]: sRGB 0 to 1 with 0 in the holes, and 1 in the holes; H and W are multiples of 8,
            and at least 16.

    Returns:
        float32 [B, 3, H, W], 0 to 1.
    """
    import torch
    from torch.nn.functional import pad

    model = network["model"]
    blocks = sum("conv1" in layer for layer in model.values() if isinstance(layer, torch.nn.ModuleDict))
    local: Any = pad(seen, (3, 3, 3, 3), mode="reflect")
    whole: Any = None
    for step in range(1 + _HALVINGS):
        local, whole = _ffc_forward(model[str(1 + step)], local, whole)
    for block in range(blocks):
        layer = model[str(2 + _HALVINGS + block)]
        new_local, new_whole = _ffc_forward(layer["conv2"], *_ffc_forward(layer["conv1"], local, whole))
        local, whole = local + new_local, whole + new_whole
    picture = torch.cat((local, whole), dim=1)
    for step in range(_HALVINGS):
        at = _doubling_at(blocks, step)
        picture = model[str(at + 1)](model[str(at)](picture)).relu()
    last: torch.Tensor = model[str(_doubling_at(blocks, _HALVINGS) + 1)](pad(picture, (3, 3, 3, 3), mode="reflect"))
    return last.sigmoid()


def _ffc_forward(layer: Any, local: torch.Tensor, whole: torch.Tensor | None) -> tuple[Any, Any]:
    """Local and global channels after a layer; None where it has no global ones."""
    ffc = layer["ffc"]
    new_local = ffc["convl2l"](local)
    new_whole: Any = ffc["convl2g"](local) if "convl2g" in ffc else None
    if whole is not None:
        new_local = new_local + ffc["convg2l"](whole)
        new_whole = new_whole + _spectral_forward(ffc["convg2g"], whole)
    new_local = layer["bn_l"](new_local).relu()
    return new_local, None if new_whole is None else layer["bn_g"](new_whole).relu()


def _spectral_forward(layer: Any, whole: torch.Tensor) -> torch.Tensor:
    """Convolution by 1×1 kernels of the picture's spectrum; real and imaginary parts are channels beside each other."""
    import torch

    inner = layer["conv1"](whole)
    size = inner.shape[-2:]
    spectrum = torch.view_as_real(torch.fft.rfft2(inner, norm=_ORTHO))
    parts = spectrum.permute(0, 1, 4, 2, 3).flatten(1, 2)
    parts = layer["fu"]["bn"](layer["fu"]["conv_layer"](parts)).relu()
    spectrum = parts.unflatten(1, (-1, 2)).permute(0, 1, 3, 4, 2).contiguous()
    turned = torch.fft.irfft2(torch.view_as_complex(spectrum), s=size, norm=_ORTHO)
    changed: torch.Tensor = layer["conv2"](inner + turned)
    return changed


class Lama:
    """The inpainter.

    Attributes:
        networks: the one network. Its calls are not recorded as graphs: crops and batches are of too many sizes.
    """

    def __init__(self, name: str, device: Device, network: torch.nn.Module) -> None:
        self.networks = (network,)
        self._name = name
        self._device = device

    def inpaint(self, rgb: U8, mask: Mask, check: Check) -> U8:
        """The picture with its holes filled; every other pixel keeps its bytes.

        Each group of holes is filled from a crop around it, in which all that is still unknown counts as a hole. Crops
        that don't know of each other's holes are filled at once, as they would be one after another; on a GPU a batch
        may be summed in another order, which can move a value by one level.

        Args:
            rgb: uint8 [H, W, 3], sRGB.
            mask: bool [H, W], the holes.
            check: called before each batch; what it raises ends the work.

        Raises:
            ModelCorrupt: the network gives numbers that are none.
        """
        filled, unknown = rgb.copy(), mask.copy()
        for crops in _batches(list(_crops(mask))):
            check()
            seen = [_seen(crop, filled, unknown) for crop in crops]
            for crop, painted in zip(crops, self._paint(np.stack(seen)), strict=True):
                filled[crop.part][crop.hole] = _restored(painted, crop)[crop.hole]
                unknown[crop.part][crop.hole] = False
        return filled

    def _paint(self, seen: U8) -> U8:
        """uint8 [B, H, W, 3], holes and all, of crops as `_seen` makes them."""
        import torch

        with torch.inference_mode():
            # From an array that isn't pinned: the driver has read it by the time that the call returns.
            given = torch.from_numpy(seen).to(self._device.place(), non_blocking=True)
            painted = generate(self.networks[0], given.permute(0, 3, 1, 2).float() / 255)
            if not bool(painted.isfinite().all()):
                raise ModelCorrupt(f"{self._name} gives numbers that are none: its weights are damaged")
            levels = (painted * 255).round().to(torch.uint8)
            return levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


@dataclass(frozen=True, slots=True)
class _Crop:
    """A part of a picture, and which of the holes there, bool of its size, to fill from it."""

    box: Box
    hole: Mask

    @property
    def part(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.box.y0, self.box.y1), slice(self.box.x0, self.box.x1)

    @property
    def reduced_px(self) -> tuple[int, int]:
        """Height and width at which the network sees it."""
        height, width = self.hole.shape
        share = min(1.0, _MOST_PX / max(height, width))
        return max(1, round(height * share)), max(1, round(width * share))

    @property
    def seen_px(self) -> tuple[int, int]:
        """The same with a border to the next size that the network takes."""
        height, width = (max(side + -side % _MULTIPLE_PX, _SMALLEST_PX) for side in self.reduced_px)
        return height, width

    def sees(self, other: _Crop) -> bool:
        """Whether a pixel that is filled from the other one lies in this one."""
        x0, x1 = max(self.box.x0, other.box.x0), min(self.box.x1, other.box.x1)
        y0, y1 = max(self.box.y0, other.box.y0), min(self.box.y1, other.box.y1)
        if x0 >= x1 or y0 >= y1:
            return False
        left, top = other.box.x0, other.box.y0
        return bool(other.hole[y0 - top : y1 - top, x0 - left : x1 - left].any())


def _seen(crop: _Crop, rgb: U8, unknown: Mask) -> U8:
    """What the network is given of a picture, uint8 [h, w, 4]: colours, 0 where they are unknown, and 255 there."""
    (height, width), (whole_height, whole_width) = crop.reduced_px, crop.seen_px
    picture, known = rgb[crop.part], ~unknown[crop.part]
    if known.shape != (height, width):
        share = np.asarray(cv2.resize(known.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA))
        known = share >= 1.0  # a pixel that a hole touches is no longer known
        picture = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))
    border = ((0, whole_height - height), (0, whole_width - width))
    known = np.pad(known, border, mode="symmetric")
    masked = np.pad(picture, (*border, (0, 0)), mode="symmetric") * known[..., None]
    return np.dstack([masked, ~known * np.uint8(255)])


def _restored(painted: U8, crop: _Crop) -> U8:
    """What the network painted, uint8 [h, w, 3], at the crop's own size."""
    height, width = crop.reduced_px
    picture = painted[:height, :width]
    if crop.hole.shape == (height, width):
        return picture
    size = crop.hole.shape[1], crop.hole.shape[0]
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC))


def _batches(crops: Sequence[_Crop]) -> Iterator[list[_Crop]]:
    """The same crops, to be filled several at once: of one size, and none of which sees another.

    Of two of which one sees the other, the first stays the first; the order of all others makes no difference.
    """
    turns: list[int] = []
    for crop in crops:
        before = (turn for other, turn in zip(crops, turns, strict=False) if crop.sees(other) or other.sees(crop))
        turns.append(max(before, default=-1) + 1)
    alike: dict[tuple[int, tuple[int, int]], list[_Crop]] = {}
    for turn, crop in sorted(zip(turns, crops, strict=True), key=lambda pair: pair[0]):
        alike.setdefault((turn, crop.seen_px), []).append(crop)
    for (_, (height, width)), group in alike.items():
        most = max(1, _AT_ONCE_PX // (height * width))
        for start in range(0, len(group), most):
            yield group[start : start + most]


def _crops(mask: Mask) -> Iterator[_Crop]:
    """Where to look, and which of the holes there to fill from it; together all, each once.

    Holes near each other are one group. A crop lies around the first group that is left, and takes with it every other
    one that has enough of the crop around it.
    """
    side = 2 * _JOINED_PX + 1
    near = cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8))
    count, groups, found, _ = cv2.connectedComponentsWithStats(near, connectivity=8)
    left = {n: Box(int(x), int(y), int(x + w), int(y + h)) for n, (x, y, w, h, _) in enumerate(found[1:count], 1)}
    while left:
        crop, core = _crop_around(next(iter(left.values())), mask.shape)
        taken = [group for group, box in left.items() if _holds(core, box)]
        part = (slice(crop.y0, crop.y1), slice(crop.x0, crop.x1))
        yield _Crop(crop, mask[part] & np.isin(groups[part], taken))
        left = {group: box for group, box in left.items() if group not in taken}


def _crop_around(hole: Box, shape: tuple[int, ...]) -> tuple[Box, Box]:
    """A crop with context around a hole, within a picture of that shape; and its core, where holes have context too."""
    x0, x1, core_x0, core_x1 = _span_around(hole.x0, hole.x1, shape[1])
    y0, y1, core_y0, core_y1 = _span_around(hole.y0, hole.y1, shape[0])
    return Box(x0, y0, x1, y1), Box(core_x0, core_y0, core_x1, core_y1)


def _span_around(start: int, end: int, limit: int) -> tuple[int, int, int, int]:
    """A crop's two ends along one axis, moved into 0 … limit, and those of its core."""
    side = min(limit, max(_LEAST_PX, int(_CONTEXT * (end - start))))
    first = min(max(0, (start + end - side) // 2), limit - side)
    last = first + side
    margin = side // 5
    return (
        first,
        last,
        min(start, 0 if first == 0 else first + margin),
        max(end, limit if last == limit else last - margin),
    )


def _holds(outer: Box, inner: Box) -> bool:
    return outer.x0 <= inner.x0 and inner.x1 <= outer.x1 and outer.y0 <= inner.y0 and inner.y1 <= outer.y1
