"""SDXL held to a photo's shape: `FaithfulPainter` with two ControlNets, `FastPainter` distilled and with one for both.

Each is a unit of its own. What they share is loaded apart: the prompts' encoders (`models/prompt.py`) and the decoder
(`models/vae.py`). A picture is `vae.decode(painter.paint(request, wanted, unwanted, check))`.
"""

# ruff: noqa: PLC0415 - torch and diffusers are heavy, and only studio workers have them

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from models.compiled import Regions
from models.denoise import Condition, Guidance, Held, Launch, Residuals, Seen, condition, denoise, first_noise
from models.device import Device
from models.files import ModelFiles
from models.graphs import graphs_for
from models.lora import Fusion, Lora, read_lora
from models.networks import load_network
from models.projections import fuse_projections
from models.prompt import PROMPT_FILES, Words
from models.requests import Check, PaintRequest, Tell, untold
from pipeline.errors import ModelCorrupt, ModelMissing

if TYPE_CHECKING:
    import torch

_UNET = "unet/diffusion_pytorch_model.fp16.safetensors"
_SCHEDULER = "scheduler/scheduler_config.json"
_UNION_CONFIG, _UNION = "config_promax.json", "diffusion_pytorch_model_promax.safetensors"
_CONTROLNET = "diffusion_pytorch_model.fp16.safetensors"
_LIGHTNING = "sdxl_lightning_4step_lora.safetensors"

BASE_FILES = (_SCHEDULER, "unet/config.json", _UNET, *PROMPT_FILES)
"""Of the row sdxl-base (stabilityai/stable-diffusion-xl-base-1.0)."""
CONTROLNET_FILES = ("config.json", _CONTROLNET)
"""Of the rows controlnet-depth-sdxl and controlnet-canny-sdxl (diffusers/controlnet-…-sdxl-1.0)."""
UNION_FILES = (_UNION_CONFIG, _UNION)
"""Of the row controlnet-union-promax (xinsir/controlnet-union-sdxl-1.0)."""
LIGHTNING_FILES = (_LIGHTNING,)
"""Of the row sdxl-lightning-4step (ByteDance/SDXL-Lightning)."""
STYLE_FILES = ("pytorch_lora_weights.safetensors",)
"""Of the row style-lora, where its repository keeps to diffusers' name; any single .safetensors file is taken."""

UNION_DEPTH, UNION_CANNY = 1, 3
"""ControlNet-Union's numbers for kinds of conditions: depth, and Canny with line art."""


class FaithfulPainter:
    """SDXL with a depth and a Canny ControlNet, many steps, guidance. Use `load_faithful_painter`.

    Attributes:
        networks: the UNet and the two ControlNets.
        graphs, regions: how its steps are launched.
    """

    def __init__(
        self, unet: Any, depth: Any, canny: Any, style: Fusion, scheduler: dict[str, Any], device: Device
    ) -> None:
        self.networks: tuple[torch.nn.Module, ...] = (unet, depth, canny)
        self.graphs, self.regions = graphs_for(device), Regions(self.networks)
        self._depth, self._canny = _ControlNet(depth), _ControlNet(canny)
        self._style = style
        self._scheduler = scheduler

    def paint(
        self, request: PaintRequest, wanted: Words, unwanted: Words | None, check: Check, tell: Tell = untold
    ) -> torch.Tensor:
        """The latents of the picture, float32 [1, 4, H / 8, W / 8].

        Args:
            request: its `mode` is not looked at.
            wanted: `request.prompt`, encoded.
            unwanted: `request.negative_prompt`, encoded; not used without guidance, and then may be None.
            check: see `denoise`.
            tell: told of each step as it begins.

        Raises:
            InternalError: the latents hold a value that is no number.
        """
        from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

        self._style.restyle(request.lora_scale)
        unet = self.networks[0]
        shape, lines = _conditions(request, unet)
        controls = Held(self._depth, (shape,)), Held(self._canny, (lines,))
        scheduler = UniPCMultistepScheduler.from_config(self._scheduler)
        return _paint(
            unet, scheduler, controls, request, wanted, unwanted, Launch(self.graphs, self.regions), check, tell
        )


class FastPainter:
    """SDXL distilled to four steps, with one ControlNet-Union for both conditions. Use `load_fast_painter`.

    Attributes:
        networks: the UNet and the ControlNet-Union.
        graphs, regions: how its steps are launched.
    """

    def __init__(self, unet: Any, union: Any, style: Fusion, scheduler: dict[str, Any], device: Device) -> None:
        self.networks: tuple[torch.nn.Module, ...] = (unet, union)
        self.graphs, self.regions = graphs_for(device), Regions(self.networks)
        self._union = _Union(union)
        self._style = style
        self._scheduler = scheduler

    def paint(
        self, request: PaintRequest, wanted: Words, unwanted: Words | None, check: Check, tell: Tell = untold
    ) -> torch.Tensor:
        """As `FaithfulPainter.paint`."""
        from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

        self._style.restyle(request.lora_scale)
        unet = self.networks[0]
        # The distilled weights expect the last timestep to be the first (Lin, Wang and Yang 2024).
        scheduler = EulerDiscreteScheduler.from_config(self._scheduler, timestep_spacing="trailing")
        # One network takes both conditions: letting Canny go means that it enters with weight 0.
        controls = (Held(self._union, _conditions(request, unet)),)
        return _paint(
            unet, scheduler, controls, request, wanted, unwanted, Launch(self.graphs, self.regions), check, tell
        )


def is_guided(request: PaintRequest) -> bool:
    """Whether classifier-free guidance takes part, and with it the negative prompt."""
    return request.guidance_scale > 1.0 and request.guidance_until > 0.0


def _paint(
    unet: Any,
    scheduler: Any,
    controls: Sequence[Held],
    request: PaintRequest,
    wanted: Words,
    unwanted: Words | None,
    launch: Launch,
    check: Check,
    tell: Tell,
) -> torch.Tensor:
    import torch

    height_px, width_px = request.depth.shape
    scheduler.set_timesteps(request.steps, device=next(unet.parameters()).device)
    noise = first_noise(height_px, width_px, request.seed)
    with torch.inference_mode():
        return denoise(unet, scheduler, controls, wanted, _guidance(request, unwanted), noise, launch, check, tell)


def _guidance(request: PaintRequest, unwanted: Words | None) -> Guidance | None:
    if not is_guided(request):
        return None
    if unwanted is None:
        raise ValueError("guidance needs the negative prompt")
    return Guidance(unwanted, request.guidance_scale, request.guidance_until)


def _conditions(request: PaintRequest, like: torch.nn.Module) -> tuple[Condition, Condition]:
    return (
        Condition(condition(request.depth, like), request.depth_weight, 1.0),
        Condition(condition(request.canny, like), request.canny_weight, request.canny_until),
    )


class _ControlNet:
    """A `ControlNetModel`, of one condition."""

    def __init__(self, network: Any) -> None:
        self._network = network

    def __call__(self, seen: Seen, pictures: Sequence[torch.Tensor], weights: Sequence[torch.Tensor]) -> Residuals:
        shaped: dict[str, Any] = {"controlnet_cond": pictures[0], "conditioning_scale": weights[0]}
        down, middle = self._network(seen.noisy, seen.timestep, **shaped, **seen.named())
        return Residuals(down, middle)


class _Union:
    """A `ControlNetUnionModel` for depth and Canny."""

    def __init__(self, network: Any) -> None:
        self._network = network
        weight = next(network.parameters())
        # One row for each of at most two prompts, made once: what comes from the host can't be part of a recording.
        self._kinds = weight.new_zeros(2, network.config.num_control_type)
        self._kinds[:, [UNION_DEPTH, UNION_CANNY]] = 1

    def __call__(self, seen: Seen, pictures: Sequence[torch.Tensor], weights: Sequence[torch.Tensor]) -> Residuals:
        shaped: dict[str, Any] = {
            "controlnet_cond": list(pictures),
            "control_type": self._kinds[: len(seen.noisy)],
            "control_type_idx": [UNION_DEPTH, UNION_CANNY],
            "conditioning_scale": list(weights),
        }
        down, middle = self._network(seen.noisy, seen.timestep, **shaped, **seen.named())
        return Residuals(down, middle)


def load_faithful_painter(
    base: ModelFiles, depth: ModelFiles, canny: ModelFiles, device: Device, style: Lora | None = None
) -> FaithfulPainter:
    """The painter of `faithful`, in `device.half`.

    Args:
        base, depth, canny: the rows sdxl-base, controlnet-depth-sdxl and controlnet-canny-sdxl.
        device: where it goes.
        style: from `load_style`, fused at the scale of each request.

    Raises:
        ModelMissing, ModelCorrupt: a file is not there, or is damaged, or doesn't fit.
    """
    from diffusers.models.controlnets.controlnet import ControlNetModel

    unet = _load_unet(base, device)
    shape, lines = (_load_fused(ControlNetModel, files, *CONTROLNET_FILES, device) for files in (depth, canny))
    return FaithfulPainter(unet, shape, lines, _fused(unet, (), style), base.json(_SCHEDULER), device)


def load_fast_painter(
    base: ModelFiles, union: ModelFiles, lightning: ModelFiles, device: Device, style: Lora | None = None
) -> FastPainter:
    """The painter of `fast`, in `device.half`; the few-step adapter is fused once, here.

    Args:
        base, union, lightning: the rows sdxl-base, controlnet-union-promax and sdxl-lightning-4step.
        device: where it goes.
        style: from `load_style`, fused at the scale of each request.

    Raises:
        ModelMissing, ModelCorrupt: a file is not there, or is damaged, or doesn't fit.
    """
    from diffusers.models.controlnets.controlnet_union import ControlNetUnionModel

    unet = _load_unet(base, device)
    fusion = _fused(unet, (read_lora(lightning, _LIGHTNING),), style)  # meanwhile the next network is read
    net = _load_fused(ControlNetUnionModel, union, *UNION_FILES, device)
    return FastPainter(unet, net, fusion, base.json(_SCHEDULER), device)


def load_style(files: ModelFiles) -> Lora:
    """The style adapter of the row style-lora: its one .safetensors file, whatever it is called.

    Raises:
        ModelMissing, ModelCorrupt: there is none, there are several, or it is damaged.
    """
    names = sorted(path.name for path in files.folder.glob("*.safetensors"))
    if not names:
        raise ModelMissing(f"the volume lacks a file of {files.name}")
    if len(names) > 1:
        raise ModelCorrupt(f"{files.name} has several weight files; its pin must name one")
    return read_lora(files, names[0])


def _load_unet(base: ModelFiles, device: Device) -> Any:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return _load_fused(UNet2DConditionModel, base, "unet/config.json", _UNET, device)


def _load_fused(kind: Any, files: ModelFiles, config_name: str, weights_name: str, device: Device) -> Any:
    network = load_network(kind, files, config_name, weights_name, device)
    fuse_projections(network)
    return network


def _fused(unet: Any, fixed: Sequence[Lora], style: Lora | None) -> Fusion:
    pairs = [adapter.for_network("unet", unet) for adapter in fixed]
    return Fusion(unet, pairs, {} if style is None else style.for_network("unet", unet))
