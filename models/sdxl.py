"""SDXL held to a photo's shape: `FaithfulPainter` with two ControlNets, `FastPainter` distilled and with one for both.

Each is a unit of its own. What they share is loaded apart: the prompts' encoders (`models/prompt.py`) and the decoder
(`models/vae.py`). A picture is `vae.decode(painter.paint(request, wanted, unwanted, check))`.
"""

# ruff: noqa: PLC0415 - torch and diffusers are heavy, and only studio workers have them

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from models.denoise import Control, Guidance, Residuals, Step, condition, denoise, first_noise, is_active
from models.device import Device
from models.files import ModelFiles
from models.lora import Fusion, Lora, read_lora
from models.networks import load_network
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
    """

    def __init__(self, unet: Any, depth: Any, canny: Any, style: Fusion, scheduler: dict[str, Any]) -> None:
        self.networks: tuple[torch.nn.Module, ...] = (unet, depth, canny)
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
            check: called before each network of each step; what it raises ends the work.
            tell: told of each step as it begins.

        Raises:
            InternalError: the latents hold a value that is no number.
        """
        from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

        self._style.restyle(request.lora_scale)
        unet, depth, canny = self.networks
        controls = (
            _controlnet(depth, condition(request.depth, depth), request.depth_weight, 1.0),
            _controlnet(canny, condition(request.canny, canny), request.canny_weight, request.canny_until),
        )
        scheduler = UniPCMultistepScheduler.from_config(self._scheduler)
        return _paint(unet, scheduler, controls, request, wanted, unwanted, check, tell)


class FastPainter:
    """SDXL distilled to four steps, with one ControlNet-Union for both conditions. Use `load_fast_painter`.

    Attributes:
        networks: the UNet and the ControlNet-Union.
    """

    def __init__(self, unet: Any, union: Any, style: Fusion, scheduler: dict[str, Any]) -> None:
        self.networks: tuple[torch.nn.Module, ...] = (unet, union)
        self._style = style
        self._scheduler = scheduler

    def paint(
        self, request: PaintRequest, wanted: Words, unwanted: Words | None, check: Check, tell: Tell = untold
    ) -> torch.Tensor:
        """As `FaithfulPainter.paint`."""
        from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

        self._style.restyle(request.lora_scale)
        unet, union = self.networks
        # The distilled weights expect the last timestep to be the first (Lin, Wang and Yang 2024).
        scheduler = EulerDiscreteScheduler.from_config(self._scheduler, timestep_spacing="trailing")
        return _paint(unet, scheduler, (_union(union, request),), request, wanted, unwanted, check, tell)


def is_guided(request: PaintRequest) -> bool:
    """Whether classifier-free guidance takes part, and with it the negative prompt."""
    return request.guidance_scale > 1.0 and request.guidance_until > 0.0


def _paint(
    unet: Any,
    scheduler: Any,
    controls: Sequence[Control],
    request: PaintRequest,
    wanted: Words,
    unwanted: Words | None,
    check: Check,
    tell: Tell,
) -> torch.Tensor:
    import torch

    height_px, width_px = request.depth.shape
    scheduler.set_timesteps(request.steps, device=next(unet.parameters()).device)
    noise = first_noise(height_px, width_px, request.seed)
    with torch.inference_mode():
        return denoise(unet, scheduler, controls, wanted, _guidance(request, unwanted), noise, check, tell)


def _guidance(request: PaintRequest, unwanted: Words | None) -> Guidance | None:
    if not is_guided(request):
        return None
    if unwanted is None:
        raise ValueError("guidance needs the negative prompt")
    return Guidance(unwanted, request.guidance_scale, request.guidance_until)


def _controlnet(network: Any, picture: torch.Tensor, weight: float, until: float) -> Control:
    def residuals(step: Step) -> Residuals | None:
        if weight == 0.0 or not is_active(step.index, step.of, until):
            return None
        down, middle = network(
            step.noisy,
            step.timestep,
            encoder_hidden_states=step.states,
            controlnet_cond=picture[: len(step.states)],
            conditioning_scale=weight,
            added_cond_kwargs=step.added,
            return_dict=False,
        )
        return Residuals(down, middle)

    return residuals


def _union(network: Any, request: PaintRequest) -> Control:
    import torch

    pictures = [condition(request.depth, network), condition(request.canny, network)]
    kinds = torch.zeros(2, network.config.num_control_type, dtype=pictures[0].dtype, device=pictures[0].device)
    kinds[:, [UNION_DEPTH, UNION_CANNY]] = 1

    def residuals(step: Step) -> Residuals | None:
        # One network takes both conditions: letting Canny go means that it enters with weight 0.
        canny_weight = request.canny_weight if is_active(step.index, step.of, request.canny_until) else 0.0
        if request.depth_weight == 0.0 and canny_weight == 0.0:
            return None
        down, middle = network(
            step.noisy,
            step.timestep,
            encoder_hidden_states=step.states,
            controlnet_cond=[picture[: len(step.states)] for picture in pictures],
            control_type=kinds[: len(step.states)],
            control_type_idx=[UNION_DEPTH, UNION_CANNY],
            conditioning_scale=[request.depth_weight, canny_weight],
            added_cond_kwargs=step.added,
            return_dict=False,
        )
        return Residuals(down, middle)

    return residuals


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
    shape, lines = (load_network(ControlNetModel, files, *CONTROLNET_FILES, device) for files in (depth, canny))
    return FaithfulPainter(unet, shape, lines, _fused(unet, (), style), base.json(_SCHEDULER))


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
    net = load_network(ControlNetUnionModel, union, *UNION_FILES, device)
    return FastPainter(unet, net, _fused(unet, (read_lora(lightning, _LIGHTNING),), style), base.json(_SCHEDULER))


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

    return load_network(UNet2DConditionModel, base, "unet/config.json", _UNET, device)


def _fused(unet: Any, fixed: Sequence[Lora], style: Lora | None) -> Fusion:
    pairs = [adapter.for_network("unet", unet) for adapter in fixed]
    return Fusion(unet, pairs, {} if style is None else style.for_network("unet", unet))
