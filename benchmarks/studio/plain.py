"""diffusers' own pipelines on the modules that are resident already: what the studio engine is compared with."""

# ruff: noqa: PLC0415 - torch and diffusers are heavy, and only the processes that measure need them

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from benchmarks.studio.sound import UnsoundError
from models import units
from models.denoise import first_noise
from models.registry import Mode
from models.requests import PaintRequest
from models.sdxl import UNION_CANNY, UNION_DEPTH
from models.studio import StudioWorker
from pipeline.types import U8

_BASE, _SCHEDULER = "sdxl-base", "scheduler/scheduler_config.json"
_TOKENIZERS = ("tokenizer", "tokenizer_2")


@dataclass(frozen=True, slots=True)
class Plain:
    """A pipeline of diffusers. For the torch thread only.

    Attributes:
        pipe: on the resident modules; it has no weights of its own.
        shaped: what the pipeline calls its conditions, from both pictures.
        compiled: whether blocks of the modules are, which must not run here.
    """

    pipe: Any
    shaped: Callable[[list[Any]], Mapping[str, Any]]
    compiled: bool

    def paint(self, request: PaintRequest, moved: bool = False) -> Any:
        """The latents of a request, [1, 4, H / 8, W / 8] in the modules' dtype, once they are computed.

        Args:
            request: its `guidance_until` must be 1: the pipeline knows of none.
            moved: whether each value of the first noise is moved by up to one unit in its last place.

        Raises:
            UnsoundError: they hold a value that is no number.
        """
        import torch

        if request.guidance_until != 1.0:
            raise ValueError("diffusers' pipelines guide to the end")
        height_px, width_px = request.depth.shape
        weight = next(self.pipe.unet.parameters())
        noise = first_noise(height_px, width_px, request.seed).to(weight.device, weight.dtype)
        if moved:
            noise = noise * (1 + torch.finfo(noise.dtype).eps * (2 * torch.rand_like(noise) - 1))
        with torch.compiler.set_stance("force_eager") if self.compiled else nullcontext():
            found = self._called(request, noise)
        if not bool(found.isfinite().all()):  # reading it waits for the device, as ours does
            raise UnsoundError("diffusers' pipeline gives numbers that are none")
        return found

    def _called(self, request: PaintRequest, noise: Any) -> Any:
        height_px, width_px = request.depth.shape
        return self.pipe(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance_scale,
            controlnet_conditioning_scale=[request.depth_weight, request.canny_weight],
            control_guidance_end=[1.0, request.canny_until],
            latents=noise,
            height=height_px,
            width=width_px,
            output_type="latent",
            **self.shaped([_picture(request.depth), _picture(request.canny)]),
        ).images


def plain_pipeline(worker: StudioWorker, mode: Mode) -> Plain:
    """The pipeline of a mode, made of `worker`'s modules. For the torch thread only."""
    from diffusers.utils import logging

    residents, files = worker.residents(), worker.store.files(_BASE)
    painter = residents.get(units.PAINTERS[mode])
    first, second = residents.get(units.PROMPT).networks
    parts = {
        "vae": residents.get(units.VAE).networks[0],
        "text_encoder": first,
        "text_encoder_2": second,
        **{name: _tokenizer(files.path(f"{name}/vocab.json").parent) for name in _TOKENIZERS},
        "unet": painter.networks[0],
        "add_watermarker": False,
    }
    pipe = (_fast if mode == "fast" else _faithful)(parts, painter.networks[1:], files.json(_SCHEDULER))
    pipe.set_progress_bar_config(disable=True)
    logging.set_verbosity_error()  # it says with every call that a prompt is long
    compiled = bool(painter.regions.shapes)
    if mode == "fast":
        kinds = [UNION_DEPTH, UNION_CANNY]
        return Plain(pipe, lambda both: {"control_image": both, "control_mode": kinds}, compiled)
    return Plain(pipe, lambda both: {"image": both}, compiled)


def _fast(parts: dict[str, Any], nets: tuple[Any, ...], schedule: dict[str, Any]) -> Any:
    from diffusers.pipelines.controlnet.pipeline_controlnet_union_sd_xl import (
        StableDiffusionXLControlNetUnionPipeline,
    )
    from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

    scheduler = EulerDiscreteScheduler.from_config(schedule, timestep_spacing="trailing")
    return StableDiffusionXLControlNetUnionPipeline(**parts, controlnet=nets[0], scheduler=scheduler)


def _faithful(parts: dict[str, Any], nets: tuple[Any, ...], schedule: dict[str, Any]) -> Any:
    from diffusers.models.controlnets.multicontrolnet import MultiControlNetModel
    from diffusers.pipelines.controlnet.pipeline_controlnet_sd_xl import StableDiffusionXLControlNetPipeline
    from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

    scheduler = UniPCMultistepScheduler.from_config(schedule)
    return StableDiffusionXLControlNetPipeline(**parts, controlnet=MultiControlNetModel(nets), scheduler=scheduler)


def _tokenizer(folder: Any) -> Any:
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder)


def _picture(grey: U8) -> Any:
    """float32 [1, 3, H, W] in 0 to 1: a tensor, so that no time goes into converting pictures."""
    import torch

    return (torch.from_numpy(grey).to(torch.float32) / 255).expand(1, 3, *grey.shape).contiguous()
