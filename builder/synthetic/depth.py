"""Random weights in the files of Depth-Anything-V2-Small-hf and of zoedepth-nyu-kitti."""

# ruff: noqa: PLC0415 - transformers is heavy, and only these writers need it

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from builder.synthetic.random_weights import write_random_weights
from models.depth import FILES

PARAMETERS_M = {"depth-anything-v2-small": 24.8, "zoedepth": 345}
"""Of the published models, in millions."""

_SPREADS = {"cls_token": 0.5, "position_embeddings": 0.5, "relative_position_bias_table": 0.5}


def write(row: str, folder: Path, size: Literal["tiny", "full"], seed: int) -> int:
    """Write the row's files into `folder`; see `builder.synthetic`.

    Returns:
        The number of parameters.
    """
    import torch
    from transformers import (
        DepthAnythingConfig,
        DepthAnythingForDepthEstimation,
        ZoeDepthConfig,
        ZoeDepthForDepthEstimation,
    )

    config = {"depth-anything-v2-small": _DEPTH_ANYTHING, "zoedepth": _ZOEDEPTH}[row][size]
    with torch.device("meta"):
        network: Any
        if row == "zoedepth":
            network = ZoeDepthForDepthEstimation(ZoeDepthConfig.from_dict(config))
        else:
            network = DepthAnythingForDepthEstimation(DepthAnythingConfig.from_dict(config))
    config_name, weights_name, processor_name = FILES
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {config_name: config, processor_name: _PROCESSORS[row][size]}.items():
        (folder / name).write_text(json.dumps(content, indent=2, sort_keys=True))
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    dtype: Literal["float16", "float32"] = "float16" if size == "full" else "float32"
    count = write_random_weights(folder / weights_name, shapes, dtype, seed, _SPREADS)
    if size == "full" and abs(count / 1e6 / PARAMETERS_M[row] - 1) > 0.01:
        raise AssertionError(f"{row} has {count / 1e6:.1f} million parameters, not {PARAMETERS_M[row]}")
    return count


_DEPTH_ANYTHING: dict[str, dict[str, Any]] = {
    "full": {
        "model_type": "depth_anything",
        "backbone_config": {
            "model_type": "dinov2",
            "hidden_size": 384,
            "image_size": 518,
            "num_attention_heads": 6,
            "out_features": ["stage3", "stage6", "stage9", "stage12"],
            "out_indices": [3, 6, 9, 12],
            "patch_size": 14,
            "reshape_hidden_states": False,
        },
        "depth_estimation_type": "relative",
        "fusion_hidden_size": 64,
        "head_hidden_size": 32,
        "head_in_index": -1,
        "neck_hidden_sizes": [48, 96, 192, 384],
        "patch_size": 14,
        "reassemble_factors": [4, 2, 1, 0.5],
        "reassemble_hidden_size": 384,
    },
    "tiny": {
        "model_type": "depth_anything",
        "backbone_config": {
            "model_type": "dinov2",
            "hidden_size": 32,
            "image_size": 70,
            "num_attention_heads": 2,
            "num_hidden_layers": 4,
            "out_features": ["stage1", "stage2", "stage3", "stage4"],
            "out_indices": [1, 2, 3, 4],
            "patch_size": 14,
            "reshape_hidden_states": False,
        },
        "depth_estimation_type": "relative",
        "fusion_hidden_size": 8,
        "head_hidden_size": 8,
        "head_in_index": -1,
        "neck_hidden_sizes": [8, 8, 16, 16],
        "patch_size": 14,
        "reassemble_factors": [4, 2, 1, 0.5],
        "reassemble_hidden_size": 32,
    },
}

_ZOEDEPTH: dict[str, dict[str, Any]] = {
    "full": {
        "model_type": "zoedepth",
        "backbone_config": {
            "model_type": "beit",
            "hidden_size": 1024,
            "image_size": 384,
            "intermediate_size": 4096,
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "out_features": ["stage6", "stage12", "stage18", "stage24"],
            "out_indices": [6, 12, 18, 24],
            "reshape_hidden_states": False,
            "use_relative_position_bias": True,
        },
        "bin_configurations": [
            {"name": "nyu", "n_bins": 64, "min_depth": 0.001, "max_depth": 10.0},
            {"name": "kitti", "n_bins": 64, "min_depth": 0.001, "max_depth": 80.0},
        ],
        "neck_hidden_sizes": [256, 512, 1024, 1024],
        "num_patch_transformer_layers": 4,
        "patch_transformer_hidden_size": 128,
        "patch_transformer_intermediate_size": 1024,
        "patch_transformer_num_attention_heads": 4,
    },
    "tiny": {
        "model_type": "zoedepth",
        "backbone_config": {
            "model_type": "beit",
            "hidden_size": 32,
            "image_size": 64,
            "intermediate_size": 64,
            "num_attention_heads": 2,
            "num_hidden_layers": 4,
            "out_features": ["stage1", "stage2", "stage3", "stage4"],
            "out_indices": [1, 2, 3, 4],
            "reshape_hidden_states": False,
            "use_relative_position_bias": True,
        },
        "bin_configurations": [
            {"name": "nyu", "n_bins": 16, "min_depth": 0.001, "max_depth": 10.0},
            {"name": "kitti", "n_bins": 16, "min_depth": 0.001, "max_depth": 80.0},
        ],
        "bin_embedding_dim": 16,
        "bottleneck_features": 16,
        "fusion_hidden_size": 16,
        "neck_hidden_sizes": [8, 8, 16, 16],
        "num_patch_transformer_layers": 4,
        "num_relative_features": 8,
        "patch_transformer_hidden_size": 128,  # the library knows no other
        "patch_transformer_intermediate_size": 32,
        "patch_transformer_num_attention_heads": 2,
    },
}


def _processor(kind: str, height_px: int, width_px: int, multiple: int, mean: list[float], std: list[float]) -> Any:
    return {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "do_pad": kind == "ZoeDepthImageProcessor",
        "ensure_multiple_of": multiple,
        "image_mean": mean,
        "image_processor_type": kind,
        "image_std": std,
        "keep_aspect_ratio": True,
        "resample": 2 if kind == "ZoeDepthImageProcessor" else 3,
        "rescale_factor": 1 / 255,
        "size": {"height": height_px, "width": width_px},
    }


_IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_HALVES = [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]
_PROCESSORS: dict[str, dict[str, Any]] = {
    "depth-anything-v2-small": {
        "full": _processor("DPTImageProcessor", 518, 518, 14, *_IMAGENET),
        "tiny": _processor("DPTImageProcessor", 70, 70, 14, *_IMAGENET),
    },
    "zoedepth": {
        "full": _processor("ZoeDepthImageProcessor", 384, 512, 32, *_HALVES),
        "tiny": _processor("ZoeDepthImageProcessor", 64, 96, 32, *_HALVES),
    },
}
