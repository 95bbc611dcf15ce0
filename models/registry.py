"""The models that the studio engine uses: one table. Whoever needs to know something of a model asks its row.

A row names a repository of the Hugging Face Hub and the files that are needed of it. Which revision is used, and what
checksums its files have, stands in a lock (`models.pins`): no row is fetched or loaded without.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import ModelMissing

Mode = Literal["fast", "faithful"]
MODES: tuple[Mode, ...] = ("fast", "faithful")

Slot = Literal["detect", "segment", "inpaint", "depth", "base", "vae", "few_step", "control", "style", "upscale"]

STYLE_LORA = "style-lora"
"""Name of the row whose repository, file and licence each deployment chooses; they stand in its lock."""


@dataclass(frozen=True, slots=True)
class Row:
    """One model.

    Attributes:
        slot: what it is for. Rows that share a slot and a mode are used together or in place of each other.
        name: how the volume, the report and messages call it.
        repo: owner and name of its repository on the Hub; None where the deployment chooses one.
        files: paths within the repository, all that are needed and no others.
        licence: its SPDX name, or the name that its authors gave it.
        commercial: whether the licence allows what a customer pays for.
        dtype: what its networks count in: `half` is 16 bits wide where the device has them.
        vram_mb: MiB that its weights take on a GPU; 0 where they are merged into those of another row.
        loader: module within `models` that builds it, and within `builder.synthetic` that writes random ones.
        modes: of the studio engine, those that use it.
        optional: whether the engine also runs without.
    """

    slot: Slot
    name: str
    repo: str | None
    files: tuple[str, ...]
    licence: str
    commercial: bool
    dtype: Literal["half", "single"]
    vram_mb: int
    loader: str
    modes: tuple[Mode, ...] = MODES
    optional: bool = False


def _in(folder: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" for name in names)


_CLIP_TOKENIZER = ("merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json")
_TRANSFORMERS = ("config.json", "model.safetensors", "preprocessor_config.json")
_BERT_TOKENIZER = ("special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")

REGISTRY: tuple[Row, ...] = (
    Row(
        "detect",
        "grounding-dino-base",
        "IDEA-Research/grounding-dino-base",
        (*_TRANSFORMERS, *_BERT_TOKENIZER),
        "Apache-2.0",
        commercial=True,
        dtype="single",
        vram_mb=890,
        loader="grounding_dino",
    ),
    Row(
        "segment",
        "sam-vit-huge",
        "facebook/sam-vit-huge",
        _TRANSFORMERS,
        "Apache-2.0",
        commercial=True,
        dtype="half",
        vram_mb=1223,
        loader="sam",
    ),
    Row(
        "inpaint",
        "big-lama",
        "anyisalin/big-lama",
        ("big-lama.safetensors",),
        "Apache-2.0",
        commercial=True,
        dtype="single",
        vram_mb=195,
        loader="lama",
    ),
    Row(
        "depth",
        "depth-anything-v2-small",
        "depth-anything/Depth-Anything-V2-Small-hf",
        _TRANSFORMERS,
        "Apache-2.0",
        commercial=True,
        dtype="half",
        vram_mb=48,
        loader="depth",
    ),
    Row(
        "depth",
        "zoedepth",
        "Intel/zoedepth-nyu-kitti",
        _TRANSFORMERS,
        "MIT",
        commercial=True,
        dtype="half",
        vram_mb=660,
        loader="depth",
        optional=True,
    ),
    Row(
        "base",
        "sdxl-base",
        "stabilityai/stable-diffusion-xl-base-1.0",
        (
            "scheduler/scheduler_config.json",
            *_in("text_encoder", "config.json", "model.fp16.safetensors"),
            *_in("text_encoder_2", "config.json", "model.fp16.safetensors"),
            *_in("tokenizer", *_CLIP_TOKENIZER),
            *_in("tokenizer_2", *_CLIP_TOKENIZER),
            *_in("unet", "config.json", "diffusion_pytorch_model.fp16.safetensors"),
        ),
        "OpenRAIL++-M",
        commercial=True,
        dtype="half",
        vram_mb=6457,
        loader="sdxl",
    ),
    Row(
        "vae",
        "sdxl-vae-fp16-fix",
        "madebyollin/sdxl-vae-fp16-fix",
        ("config.json", "diffusion_pytorch_model.safetensors"),
        "MIT",
        commercial=True,
        dtype="half",
        vram_mb=160,
        loader="sdxl",
    ),
    Row(
        "control",
        "controlnet-depth-sdxl",
        "diffusers/controlnet-depth-sdxl-1.0",
        ("config.json", "diffusion_pytorch_model.fp16.safetensors"),
        "OpenRAIL++-M",
        commercial=True,
        dtype="half",
        vram_mb=2386,
        loader="sdxl",
        modes=("faithful",),
    ),
    Row(
        "control",
        "controlnet-canny-sdxl",
        "diffusers/controlnet-canny-sdxl-1.0",
        ("config.json", "diffusion_pytorch_model.fp16.safetensors"),
        "OpenRAIL++-M",
        commercial=True,
        dtype="half",
        vram_mb=2386,
        loader="sdxl",
        modes=("faithful",),
    ),
    Row(
        "control",
        "controlnet-union-promax",
        "xinsir/controlnet-union-sdxl-1.0",
        ("config_promax.json", "diffusion_pytorch_model_promax.safetensors"),
        "Apache-2.0",
        commercial=True,
        dtype="half",
        vram_mb=2397,
        loader="sdxl",
        modes=("fast",),
    ),
    Row(
        "few_step",
        "sdxl-lightning-4step",
        "ByteDance/SDXL-Lightning",
        ("sdxl_lightning_4step_lora.safetensors",),
        "OpenRAIL++-M",
        commercial=True,
        dtype="half",
        vram_mb=0,
        loader="sdxl",
        modes=("fast",),
    ),
    Row(
        "style",
        STYLE_LORA,
        None,
        ("pytorch_lora_weights.safetensors",),
        "the deployment's choice",
        commercial=False,
        dtype="half",
        vram_mb=0,
        loader="sdxl",
        optional=True,
    ),
    Row(
        "upscale",
        "realesrgan-x4plus-anime",
        "ximso/RealESRGAN_x4plus_anime_6B",
        ("RealESRGAN_x4plus_anime_6B.pth",),
        "BSD-3-Clause",
        commercial=True,
        dtype="half",
        vram_mb=9,
        loader="rrdbnet",
    ),
)


def row_named(name: str) -> Row:
    """The row of that name.

    Raises:
        ModelMissing: there is none.
    """
    for row in REGISTRY:
        if row.name == name:
            return row
    raise ModelMissing(f"no model is called {name}")


def rows_of(modes: Iterable[Mode], optional: Iterable[str] = ()) -> tuple[Row, ...]:
    """The rows that some of these modes need, and of the optional ones those that are named, in the table's order."""
    wanted, named = set(modes), set(optional)
    return tuple(row for row in REGISTRY if wanted & set(row.modes) and (not row.optional or row.name in named))
