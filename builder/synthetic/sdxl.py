"""Random weights in the files of SDXL: the base, its decoder, its ControlNets and its adapters."""

# ruff: noqa: PLC0415 - torch, diffusers and transformers are heavy, and only these writers need them

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from builder.synthetic.random_weights import Dtype, Shape, write_random_weights
from models.sdxl import CONTROLNET_FILES, LIGHTNING_FILES, STYLE_FILES, UNION_FILES
from models.vae import VAE_FILES

if TYPE_CHECKING:
    import torch

Size = Literal["tiny", "full"]

PARAMETERS_M = {
    "unet": 2567,
    "text_encoder": 123,
    "text_encoder_2": 695,
    "sdxl-vae-fp16-fix": 84,
    "controlnet-depth-sdxl": 1251,
    "controlnet-canny-sdxl": 1251,
    "controlnet-union-promax": 1258,
}
"""Of the published networks, in millions."""

_SPREADS = {
    "embeddings.token_embedding.weight": 0.5,
    "embeddings.position_embedding.weight": 0.5,
    "task_embedding": 0.5,
}
_LIGHTNING_RANK, _STYLE_RANK, _TINY_RANK = 64, 16, 4
_FACTOR = 0.1  # spread of an adapter's factors: its products must be seen, and not drown the weights


def write(row: str, folder: Path, size: Size, seed: int) -> int:
    """Write the row's files into `folder`; see `builder.synthetic`.

    Returns:
        The number of parameters.
    """
    writers: dict[str, Callable[[Path, Size, int], int]] = {
        "sdxl-base": _write_base,
        "sdxl-vae-fp16-fix": _write_vae,
        "controlnet-depth-sdxl": _write_controlnet,
        "controlnet-canny-sdxl": _write_controlnet,
        "controlnet-union-promax": _write_union,
        "sdxl-lightning-4step": _write_lightning,
        "style-lora": _write_style,
    }
    count = writers[row](folder, size, seed)
    _check(row, count, size)
    return count


def _check(name: str, count: int, size: Size) -> None:
    wanted = PARAMETERS_M.get(name)
    if size == "full" and wanted is not None and abs(count / 1e6 / wanted - 1) > 0.01:
        raise AssertionError(f"{name} has {count / 1e6:.1f} million parameters, not {wanted}")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, sort_keys=True))


def _shapes(network: torch.nn.Module) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def _dtype(size: Size) -> Dtype:
    # The tiny networks run on a CPU, in float32: what is read is what was written.
    return "float16" if size == "full" else "float32"


def _write_base(folder: Path, size: Size, seed: int) -> int:
    parts = {"unet": _unet_shapes(size), **{name: _encoder_shapes(name, size) for name in _ENCODERS}}
    files = {"unet": "diffusion_pytorch_model.fp16.safetensors", **dict.fromkeys(_ENCODERS, "model.fp16.safetensors")}
    configs = {"unet": _UNET[size], **{name: _ENCODERS[name][size] for name in _ENCODERS}}
    total = 0
    for offset, (name, shapes) in enumerate(parts.items()):
        _write_json(folder / name / "config.json", configs[name])
        count = write_random_weights(folder / name / files[name], shapes, _dtype(size), seed + offset, _SPREADS)
        _check(name, count, size)
        total += count
    _write_json(folder / "scheduler/scheduler_config.json", _SCHEDULER)
    vocabulary = _ENCODERS["text_encoder"][size]["vocab_size"]
    for name, pad in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")):
        _write_tokenizer(folder / name, vocabulary, pad)
    return total


def _write_vae(folder: Path, size: Size, seed: int) -> int:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    config, weights = VAE_FILES
    _write_json(folder / config, _VAE[size])
    return write_random_weights(folder / weights, _shapes(_meta(AutoencoderKL, _VAE[size])), "float32", seed)


def _write_controlnet(folder: Path, size: Size, seed: int) -> int:
    from diffusers.models.controlnets.controlnet import ControlNetModel

    config, weights = CONTROLNET_FILES
    _write_json(folder / config, _CONTROLNET[size])
    return write_random_weights(
        folder / weights, _shapes(_meta(ControlNetModel, _CONTROLNET[size])), _dtype(size), seed
    )


def _write_union(folder: Path, size: Size, seed: int) -> int:
    from diffusers.models.controlnets.controlnet_union import ControlNetUnionModel

    config, weights = UNION_FILES
    _write_json(folder / config, _UNION[size])
    shapes = _shapes(_meta(ControlNetUnionModel, _UNION[size]))
    return write_random_weights(folder / weights, shapes, _dtype(size), seed, _SPREADS)


def _write_lightning(folder: Path, size: Size, seed: int) -> int:
    """In kohya's layout: every attention and feed-forward layer of the UNet, and the convolutions of its blocks."""
    rank = _TINY_RANK if size == "tiny" else _LIGHTNING_RANK
    shapes: dict[str, Shape] = {}
    for path, shape in _adapted(_unet_shapes(size), (".weight",)).items():
        stem = "lora_unet_" + path.replace(".", "_")
        shapes[f"{stem}.lora_down.weight"] = (rank, *shape[1:])
        shapes[f"{stem}.lora_up.weight"] = (shape[0], rank, *(1,) * (len(shape) - 2))
        shapes[f"{stem}.alpha"] = ()
    spreads = {".lora_down.weight": _FACTOR, ".lora_up.weight": _FACTOR}
    return write_random_weights(folder / LIGHTNING_FILES[0], shapes, _dtype(size), seed, spreads, {".alpha": rank / 2})


def _write_style(folder: Path, size: Size, seed: int) -> int:
    """In the layout of diffusers: the attention of the UNet and of both encoders."""
    rank = _TINY_RANK if size == "tiny" else _STYLE_RANK
    networks = {"unet": _unet_shapes(size), **{name: _encoder_shapes(name, size) for name in _ENCODERS}}
    shapes: dict[str, Shape] = {}
    for name, found in networks.items():
        ends = tuple(f".{layer}.weight" for layer in ("to_q", "to_k", "to_v", "q_proj", "k_proj", "v_proj"))
        for path, shape in _adapted(found, ends).items():
            shapes[f"{name}.{path}.lora_A.weight"] = (rank, *shape[1:])
            shapes[f"{name}.{path}.lora_B.weight"] = (shape[0], rank)
    spreads = {".lora_A.weight": _FACTOR, ".lora_B.weight": _FACTOR}
    return write_random_weights(folder / STYLE_FILES[0], shapes, _dtype(size), seed, spreads)


def _adapted(shapes: Mapping[str, Shape], ends: tuple[str, ...]) -> dict[str, Shape]:
    """Layers inside blocks whose weights are matrices or kernels, by their paths."""
    inside = ("down_blocks.", "mid_block.", "up_blocks.", "text_model.encoder.")
    return {
        name.removesuffix(".weight"): shape
        for name, shape in shapes.items()
        if name.startswith(inside) and name.endswith(ends) and len(shape) >= 2
    }


def _meta(kind: Any, config: Mapping[str, Any]) -> Any:
    import torch

    with torch.device("meta"):
        return kind.from_config(dict(config))


def _unet_shapes(size: Size) -> dict[str, Shape]:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return _shapes(_meta(UNet2DConditionModel, _UNET[size]))


def _encoder_shapes(name: str, size: Size) -> dict[str, Shape]:
    """With the names of the published files, which an older release of transformers wrote."""
    import torch
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection

    kind: Any = CLIPTextModel if name == "text_encoder" else CLIPTextModelWithProjection
    with torch.device("meta"):
        shapes = _shapes(kind(CLIPTextConfig.from_dict(dict(_ENCODERS[name][size]))))
    bare = ("embeddings.", "encoder.", "final_layer_norm.")
    return {f"text_model.{key}" if key.startswith(bare) else key: shape for key, shape in shapes.items()}


def _write_tokenizer(folder: Path, size: int, pad: str) -> None:
    """CLIP's byte-level tokenizer without merges: a prompt is read letter by letter, each the last of a word or not."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    symbols = [chr(code) for code in printable]
    symbols += [chr(256 + i) for i in range(256 - len(symbols))]  # for the bytes that print as nothing
    words = [*symbols, *(f"{symbol}</w>" for symbol in symbols)]
    words += [f"<|unused{i}|>" for i in range(size - 2 - len(words))]
    words += ["<|startoftext|>", "<|endoftext|>"]
    _write_json(folder / "vocab.json", {word: i for i, word in enumerate(words)})
    (folder / "merges.txt").write_text("#version: 0.2\n")
    names = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": pad,
        "unk_token": "<|endoftext|>",
    }
    _write_json(folder / "special_tokens_map.json", names)
    settings = {**names, "do_lower_case": True, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    _write_json(folder / "tokenizer_config.json", settings)


_SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "use_karras_sigmas": False,
}

_SHARED = {
    "act_fn": "silu",
    "addition_embed_type": "text_time",
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "addition_time_embed_dim": 256,
    "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "in_channels": 4,
    "layers_per_block": 2,
    "projection_class_embeddings_input_dim": 2816,
    "transformer_layers_per_block": [1, 2, 10],
    "use_linear_projection": True,
}
_SHARED_TINY = {
    **_SHARED,
    "attention_head_dim": [1, 2, 2],
    "block_out_channels": [8, 16, 16],
    "addition_time_embed_dim": 8,
    "cross_attention_dim": 64,
    "norm_num_groups": 4,
    "projection_class_embeddings_input_dim": 80,
    "transformer_layers_per_block": [1, 1, 1],
}

_UP = {"out_channels": 4, "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]}
_UNET: dict[Size, dict[str, Any]] = {
    "full": {"_class_name": "UNet2DConditionModel", **_SHARED, **_UP, "sample_size": 128},
    "tiny": {"_class_name": "UNet2DConditionModel", **_SHARED_TINY, **_UP, "sample_size": 32},
}

_EYES = {"conditioning_channels": 3, "conditioning_embedding_out_channels": [16, 32, 96, 256]}
_EYES_TINY = {"conditioning_channels": 3, "conditioning_embedding_out_channels": [4, 8, 8, 16]}
_CONTROLNET: dict[Size, dict[str, Any]] = {
    "full": {"_class_name": "ControlNetModel", **_SHARED, **_EYES},
    "tiny": {"_class_name": "ControlNetModel", **_SHARED_TINY, **_EYES_TINY},
}
_UNION: dict[Size, dict[str, Any]] = {
    "full": {**_CONTROLNET["full"], "_class_name": "ControlNetModel_Union", "num_control_type": 8},
    "tiny": {
        **_CONTROLNET["tiny"],
        "_class_name": "ControlNetModel_Union",
        "num_control_type": 8,
        "num_trans_channel": 8,
        "num_trans_head": 2,
        "num_proj_channel": 8,
    },
}

_VAE_SHARED = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "force_upcast": False,
    "in_channels": 3,
    "latent_channels": 4,
    "out_channels": 3,
    "scaling_factor": 0.13025,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
_VAE: dict[Size, dict[str, Any]] = {
    "full": {**_VAE_SHARED, "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "sample_size": 512},
    "tiny": {
        **_VAE_SHARED,
        "block_out_channels": [8, 8, 16, 16],
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "sample_size": 128,
    },
}

_ENCODERS: dict[str, dict[Size, dict[str, Any]]] = {
    "text_encoder": {
        "full": {
            "architectures": ["CLIPTextModel"],
            "model_type": "clip_text_model",
            "hidden_act": "quick_gelu",
            "hidden_size": 768,
            "intermediate_size": 3072,
            "max_position_embeddings": 77,
            "num_attention_heads": 12,
            "num_hidden_layers": 12,
            "projection_dim": 768,
            "vocab_size": 49408,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "pad_token_id": 1,
        },
    },
    "text_encoder_2": {
        "full": {
            "architectures": ["CLIPTextModelWithProjection"],
            "model_type": "clip_text_model",
            "hidden_act": "gelu",
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "max_position_embeddings": 77,
            "num_attention_heads": 20,
            "num_hidden_layers": 32,
            "projection_dim": 1280,
            "vocab_size": 49408,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "pad_token_id": 1,
        },
    },
}
_TINY_ENCODER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "projection_dim": 32,
    "vocab_size": 1000,
}
for _sizes in _ENCODERS.values():
    _sizes["tiny"] = {**_sizes["full"], **_TINY_ENCODER}
