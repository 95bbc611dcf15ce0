"""The units of the studio engine: which rows of the registry each is built from, and who loads it."""

# ruff: noqa: PLC0415 - a model's module is imported with its first use: the libraries behind it take seconds

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from models.device import Device
from models.files import ModelFiles
from models.loader import Unit
from models.registry import STYLE_LORA, Mode

if TYPE_CHECKING:
    from models.depth import DepthEstimator
    from models.grounding_dino import GroundingDino
    from models.lama import Lama
    from models.lora import Lora
    from models.prompt import PromptEncoder
    from models.quantise import Quantiser
    from models.rrdbnet import Upscaler
    from models.sam import Sam
    from models.sdxl import FaithfulPainter, FastPainter
    from models.vae import Vae

Rows = Mapping[str, ModelFiles]


def _detector(rows: Rows, device: Device) -> GroundingDino:
    from models.grounding_dino import load

    return load(rows["grounding-dino-base"], device)


def _segmenter(rows: Rows, device: Device) -> Sam:
    from models.sam import load

    return load(rows["sam-vit-huge"], device)


def _inpainter(rows: Rows, device: Device) -> Lama:
    from models.lama import load

    return load(rows["big-lama"], device)


def _depth(rows: Rows, device: Device) -> DepthEstimator:
    from models.depth import load

    return load(rows["depth-anything-v2-small"], device)


def _prompt(rows: Rows, device: Device) -> PromptEncoder:
    from models.prompt import load_prompt_encoder

    return load_prompt_encoder(rows["sdxl-base"], device, _style(rows))


def _vae(rows: Rows, device: Device) -> Vae:
    from models.vae import load_vae

    return load_vae(rows["sdxl-vae-fp16-fix"], rows["sdxl-base"], device)


def _fast(rows: Rows, device: Device) -> FastPainter:
    from models.sdxl import load_fast_painter

    base, lightning, union = (rows[name] for name in FAST.rows)
    return load_fast_painter(base, union, lightning, device, _style(rows))


def _faithful(rows: Rows, device: Device) -> FaithfulPainter:
    from models.sdxl import load_faithful_painter

    base, depth, canny = (rows[name] for name in FAITHFUL.rows)
    return load_faithful_painter(base, depth, canny, device, _style(rows))


def _style(rows: Rows) -> Lora | None:
    from models.sdxl import load_style

    return load_style(rows[STYLE_LORA]) if STYLE_LORA in rows else None


def _upscaler(rows: Rows, device: Device) -> Upscaler:
    from models.rrdbnet import load

    return load(rows["realesrgan-x4plus-anime"], device)


def _quantiser(_: Rows, device: Device) -> Quantiser:
    from models.quantise import Quantiser

    return Quantiser(device)


_STYLED = (STYLE_LORA,)

_TORCH = ("torch",)
_TRANSFORMERS = "transformers.models"
_PROMPTS = (
    *_TORCH,
    f"{_TRANSFORMERS}.clip.modeling_clip",
    f"{_TRANSFORMERS}.clip.tokenization_clip",
)
_DIFFUSERS = (
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.models.controlnets.controlnet",
    "diffusers.schedulers.scheduling_euler_discrete",
    "diffusers.schedulers.scheduling_unipc_multistep",
)

DETECTOR = Unit(
    "detector",
    ("grounding-dino-base",),
    _detector,
    modules=(
        *_TORCH,
        f"{_TRANSFORMERS}.swin.modeling_swin",
        f"{_TRANSFORMERS}.bert.modeling_bert",
        f"{_TRANSFORMERS}.bert.tokenization_bert",
        f"{_TRANSFORMERS}.grounding_dino.modeling_grounding_dino",
        f"{_TRANSFORMERS}.grounding_dino.image_processing_pil_grounding_dino",
    ),
)
SEGMENTER = Unit(
    "segmenter",
    ("sam-vit-huge",),
    _segmenter,
    modules=(*_TORCH, f"{_TRANSFORMERS}.sam.modeling_sam", f"{_TRANSFORMERS}.sam.image_processing_pil_sam"),
)
INPAINTER = Unit("inpainter", ("big-lama",), _inpainter, modules=_TORCH)
DEPTH = Unit(
    "depth estimator",
    ("depth-anything-v2-small",),
    _depth,
    modules=(
        *_TORCH,
        f"{_TRANSFORMERS}.dinov2.modeling_dinov2",
        f"{_TRANSFORMERS}.depth_anything.modeling_depth_anything",
        f"{_TRANSFORMERS}.dpt.image_processing_pil_dpt",
    ),
)
PROMPT = Unit(
    "prompt encoder",
    ("sdxl-base",),
    _prompt,
    optional=_STYLED,
    folders={"sdxl-base": ("text_encoder", "text_encoder_2"), STYLE_LORA: ()},
    modules=_PROMPTS,
)
VAE = Unit(
    "decoder",
    ("sdxl-vae-fp16-fix", "sdxl-base"),
    _vae,
    folders={"sdxl-base": ()},
    modules=(*_TORCH, "diffusers.models.autoencoders.autoencoder_kl"),
)
FAST = Unit(
    "fast painter",
    ("sdxl-base", "sdxl-lightning-4step", "controlnet-union-promax"),
    _fast,
    optional=_STYLED,
    folders={"sdxl-base": ("unet",), STYLE_LORA: ()},
    merged=("sdxl-lightning-4step",),
    compiled=True,
    modules=(*_PROMPTS, *_DIFFUSERS, "diffusers.models.controlnets.controlnet_union"),
)
FAITHFUL = Unit(
    "faithful painter",
    ("sdxl-base", "controlnet-depth-sdxl", "controlnet-canny-sdxl"),
    _faithful,
    optional=_STYLED,
    folders={"sdxl-base": ("unet",), STYLE_LORA: ()},
    compiled=True,
    modules=(*_PROMPTS, *_DIFFUSERS),
)
PAINTERS: Mapping[Mode, Unit[Any]] = {"fast": FAST, "faithful": FAITHFUL}
QUANTISER = Unit("quantiser", (), _quantiser, modules=_TORCH)
UPSCALER = Unit("upscaler", ("realesrgan-x4plus-anime",), _upscaler, modules=_TORCH)
