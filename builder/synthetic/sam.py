"""Random weights in the files of facebook/sam-vit-huge."""

# ruff: noqa: PLC0415 - transformers is heavy, and only these writers need it

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from builder.synthetic.random_weights import write_random_weights

PARAMETERS_M = 641
"""Of the published model, in millions."""

_SPREADS = {
    "positional_embedding": 1.0,
    "pos_embed": 0.02,
    "rel_pos_h": 0.02,
    "rel_pos_w": 0.02,
    "_embed.weight": 0.5,
    "_tokens.weight": 0.5,
    "iou_token.weight": 0.5,
}


def write(row: str, folder: Path, size: Literal["tiny", "full"], seed: int) -> int:
    """Write the row's files into `folder`; see `builder.synthetic`.

    Returns:
        The number of parameters.
    """
    config = _config(size)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True))
    (folder / "preprocessor_config.json").write_text(json.dumps(_preprocessing(config), indent=2, sort_keys=True))
    dtype: Literal["float16", "float32"] = "float16" if size == "full" else "float32"
    count = write_random_weights(folder / "model.safetensors", _shapes(config), dtype, seed, _SPREADS)
    if size == "full" and abs(count / 1e6 / PARAMETERS_M - 1) > 0.01:
        raise AssertionError(f"{row} has {count / 1e6:.1f} million parameters, not {PARAMETERS_M}")
    return count


def _shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor of the published file; what the network uses twice is stored once."""
    import torch
    from transformers import SamConfig, SamModel

    with torch.device("meta"):
        network = SamModel(SamConfig.from_dict(config))
    tied = set(network.all_tied_weights_keys)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items() if name not in tied}


def _config(size: Literal["tiny", "full"]) -> dict[str, Any]:
    """Full: segment-anything's build_sam_vit_h; what is left out is the library's default, which is the published."""
    if size == "full":
        vision: dict[str, Any] = {
            "hidden_size": 1280,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "global_attn_indexes": [7, 15, 23, 31],
            "mlp_dim": 5120,
            "window_size": 14,
            "image_size": 1024,
            "patch_size": 16,
        }
        return {"model_type": "sam", "vision_config": vision, "prompt_encoder_config": {}, "mask_decoder_config": {}}
    frame = {"image_size": 128, "patch_size": 8}
    return {
        "model_type": "sam",
        "vision_config": {
            **frame,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "global_attn_indexes": [1],
            "mlp_dim": 64,
            "window_size": 6,
            "output_channels": 32,
            "num_pos_feats": 16,
        },
        "prompt_encoder_config": {**frame, "hidden_size": 32},
        "mask_decoder_config": {
            "hidden_size": 32,
            "mlp_dim": 64,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 32,
        },
    }


def _preprocessing(config: dict[str, Any]) -> dict[str, Any]:
    side_px = config["vision_config"]["image_size"]
    return {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_pad": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_processor_type": "SamImageProcessor",
        "image_std": [0.229, 0.224, 0.225],
        "pad_size": {"height": side_px, "width": side_px},
        "processor_class": "SamProcessor",
        "resample": 2,
        "rescale_factor": 1 / 255,
        "size": {"longest_edge": side_px},
    }
