"""Low-rank adapters (Hu et al. 2021) fused into a network's weights: W + scale · alpha / rank · B A.

Read in the layouts that SDXL adapters are published in: kohya's (`lora_unet_…`, `lora_te1_…`, with diffusers' names of
layers or the original code's) and that of diffusers and peft (`unet.….lora_A.weight`, `….lora.down.weight`).
"""

# ruff: noqa: PLC0415 - torch and diffusers are heavy, and only studio workers have them

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from models.files import ModelFiles
from pipeline.errors import ModelCorrupt

if TYPE_CHECKING:
    import torch

Target = Literal["unet", "text_encoder", "text_encoder_2"]

_PREFIXES: dict[str, Target] = {
    "lora_unet_": "unet",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "unet.": "unet",
    "text_encoder.": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
}
_PARTS = {
    ".lora_down.weight": "down",
    ".lora_A.weight": "down",
    ".lora.down.weight": "down",
    ".lora_linear_layer.down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_B.weight": "up",
    ".lora.up.weight": "up",
    ".lora_linear_layer.up.weight": "up",
    ".alpha": "alpha",
}
_RESNET_NAMES = {
    "norm1": "in_layers_0",
    "conv1": "in_layers_2",
    "time_emb_proj": "emb_layers_1",
    "norm2": "out_layers_0",
    "conv2": "out_layers_3",
    "conv_shortcut": "skip_connection",
}


@dataclass(frozen=True, slots=True)
class Pair:
    """One layer's factors: `down` [rank, …], `up` [out, rank, …], and alpha / rank."""

    down: torch.Tensor
    up: torch.Tensor
    gain: float

    def delta(self, scale: float, like: torch.Tensor) -> torch.Tensor:
        """What is added to a weight of the shape of `like`, float32 on its device."""
        import torch

        down = self.down.to(like.device, torch.float32).flatten(1)
        up = self.up.to(like.device, torch.float32).flatten(1)
        return (up @ down).mul_(scale * self.gain).reshape(like.shape)


@dataclass(frozen=True, slots=True)
class Lora:
    """An adapter's pairs by the network they belong to and the layer's name as it stands in the file."""

    row: str
    pairs: Mapping[tuple[Target, str], Pair]

    def for_network(self, target: Target, network: torch.nn.Module) -> dict[str, Pair]:
        """The pairs of one network, by the paths of its modules.

        Raises:
            ModelCorrupt: a layer is not among the network's, or its factors have other sizes.
        """
        paths = dict(_names_of(network))
        found = {}
        for (kind, name), pair in self.pairs.items():
            if kind != target:
                continue
            path = paths.get(name)
            if path is None or not _fits(pair, network.get_parameter(f"{path}.weight")):
                raise ModelCorrupt(f"{self.row} adapts a layer that the network lacks, or has in another size")
            found[path] = pair
        return found


def _fits(pair: Pair, weight: torch.Tensor) -> bool:
    if weight.ndim < 2:
        return False
    rank, inner = len(pair.down), weight[0].numel()
    return len(pair.up) == len(weight) and pair.down[0].numel() == inner and pair.up[0].numel() == rank


def _names_of(network: torch.nn.Module) -> Iterator[tuple[str, str]]:
    """Every name that an adapter's file may use for a layer, with the module's path."""
    for path, module in network.named_modules():
        if "weight" not in dict(module.named_parameters(recurse=False)):
            continue
        bare = path.removeprefix("text_model.")
        for name in (path, bare, f"text_model.{bare}"):
            yield name, path
            yield name.replace(".", "_"), path
        original = _original_name(path)
        if original is not None:
            yield original, path


def _original_name(path: str) -> str | None:
    """A UNet layer's name in the original code of SDXL, dots as underscores; None where it has none here."""
    match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)", path)
    if match:
        side, block, kind, layer, rest = match.groups()
        index = 3 * int(block) + int(layer) + (1 if side == "down" else 0)
        name = "input_blocks" if side == "down" else "output_blocks"
        return f"{name}_{index}_{0 if kind == 'resnets' else 1}_{_inner_name(kind, rest)}"
    match = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", path)
    if match:
        kind, layer, rest = match.groups()
        return f"middle_block_{1 if kind == 'attentions' else 2 * int(layer)}_{_inner_name(kind, rest)}"
    match = re.fullmatch(r"down_blocks\.(\d+)\.downsamplers\.0\.conv", path)
    return f"input_blocks_{3 * int(match[1]) + 3}_0_op" if match else None


def _inner_name(kind: str, rest: str) -> str:
    return _RESNET_NAMES.get(rest, rest) if kind == "resnets" else rest.replace(".", "_")


def read_lora(files: ModelFiles, name: str) -> Lora:
    """An adapter from its file.

    Raises:
        ModelMissing, ModelCorrupt: it is not there, is damaged, or is of another kind (LoHa, LoKr, DoRA).
    """
    layers: dict[tuple[Target, str], dict[str, torch.Tensor]] = {}
    for key, tensor in files.tensors(name).items():
        prefix = next((start for start in _PREFIXES if key.startswith(start)), None)
        suffix = next((end for end in _PARTS if key.endswith(end)), None)
        if prefix is None or suffix is None:
            raise ModelCorrupt(f"{files.name} is no low-rank adapter of SDXL in a layout that is known")
        layer = key[len(prefix) : -len(suffix)]
        layers.setdefault((_PREFIXES[prefix], layer), {})[_PARTS[suffix]] = tensor
    return Lora(files.name, {layer: _pair(parts, files.name) for layer, parts in layers.items()})


def _pair(parts: Mapping[str, torch.Tensor], row: str) -> Pair:
    if "down" not in parts or "up" not in parts or min(parts["down"].ndim, parts["up"].ndim) < 2:
        raise ModelCorrupt(f"{row} lacks one of a layer's two factors")
    rank = len(parts["down"])
    return Pair(parts["down"], parts["up"], float(parts["alpha"]) / rank if "alpha" in parts else 1.0)


class Fusion:
    """A network whose weights hold adapters: some for good, and a style whose scale can change.

    The weights are always computed from the same originals, so they depend on the scale alone and not on the jobs
    before. The originals of the layers that the style touches stay in the host's memory; without a style none do.

    Args:
        network: whose weights are replaced, in place and under the same addresses.
        fixed: adapters at scale 1.
        style: the one whose scale a request may set; it begins at 0.
    """

    def __init__(self, network: torch.nn.Module, fixed: Sequence[dict[str, Pair]], style: dict[str, Pair]) -> None:
        self._network = network
        self._fixed = fixed
        self._style = style
        self._originals = {path: self._weight(path).cpu().clone() for path in style}
        self.scale = 0.0
        for path in {path for pairs in fixed for path in pairs}:
            self._write(path, self._weight(path), 0.0)

    def restyle(self, scale: float) -> bool:
        """Bring the style to `scale`; says whether the weights changed."""
        if scale == self.scale or not self._style:
            return False
        self.scale = math.nan  # until all are written: a change that breaks off is none that a job could rely on
        for path, original in self._originals.items():
            self._write(path, original, scale)
        self.scale = scale
        return True

    def _weight(self, path: str) -> torch.Tensor:
        return self._network.get_parameter(f"{path}.weight")

    def _write(self, path: str, original: torch.Tensor, scale: float) -> None:
        import torch

        weight = self._weight(path)
        total = original.to(weight.device, torch.float32, copy=True)
        for pairs in self._fixed:
            if path in pairs:
                total += pairs[path].delta(1.0, weight)
        if path in self._style and scale != 0.0:
            total += self._style[path].delta(scale, weight)
        weight.copy_(total)
