"""Random weights in the files of IDEA-Research/grounding-dino-base, tokenizer included."""

# ruff: noqa: PLC0415 - transformers is heavy, and only these writers need it

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

from builder.synthetic.random_weights import write_random_weights

PARAMETERS_M = 232
"""Of the published model, in millions."""

_SPREADS = {
    "sampling_offsets.bias": 1.0,
    "relative_position_bias_table": 0.5,
    "_embeddings.weight": 0.5,
    "level_embed": 0.5,
}

# Ids that the network itself knows: it reads from them where a phrase ends.
_KNOWN = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# fmt: off
_WORDS = (
    "badge", "bus", "car", "decal", "emblem", "lettering", "license", "logo", "mirror", "motorcycle", "plate", "side",
    "sticker", "text", "truck", "van", "vehicle",
)
# fmt: on
_TINY_VOCABULARY, _FULL_VOCABULARY = 1100, 30522


def write(row: str, folder: Path, size: Literal["tiny", "full"], seed: int) -> int:
    """Write the row's files into `folder`; see `builder.synthetic`.

    Returns:
        The number of parameters.
    """
    config = _config(size)
    folder.mkdir(parents=True, exist_ok=True)
    _write_tokenizer(folder, config["text_config"]["vocab_size"])
    for name, content in {"config.json": config, "preprocessor_config.json": _preprocessing(size)}.items():
        (folder / name).write_text(json.dumps(content, indent=2, sort_keys=True))
    count = write_random_weights(folder / "model.safetensors", _shapes(config), "float32", seed, _SPREADS)
    if size == "full" and abs(count / 1e6 / PARAMETERS_M - 1) > 0.01:
        raise AssertionError(f"{row} has {count / 1e6:.1f} million parameters, not {PARAMETERS_M}")
    return count


def _shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor of the published file.

    Its names are those of the release of transformers that wrote it. The box head, which the network shares with its
    decoder, lies there under the decoder's name.
    """
    import torch
    from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection
    from transformers.core_model_loading import revert_weight_conversion

    with torch.device("meta"):
        network = GroundingDinoForObjectDetection(GroundingDinoConfig.from_dict(config))
        tied = set(network.all_tied_weights_keys)
        stored = {name: tensor for name, tensor in network.state_dict().items() if name not in tied}
        stored = revert_weight_conversion(network, stored)
    return {re.sub("^bbox_embed", "model.decoder.bbox_embed", name): tuple(t.shape) for name, t in stored.items()}


def _config(size: Literal["tiny", "full"]) -> dict[str, Any]:
    """What is left out of the full one is the library's default, which is the published value."""
    full: dict[str, Any] = {
        "model_type": "grounding-dino",
        "backbone_config": {
            "model_type": "swin",
            "embed_dim": 128,
            "depths": [2, 2, 18, 2],
            "num_heads": [4, 8, 16, 32],
            "window_size": 12,
            "image_size": 384,
            "out_features": ["stage2", "stage3", "stage4"],
            "out_indices": [2, 3, 4],
        },
        "text_config": {"model_type": "bert", "vocab_size": _FULL_VOCABULARY},
    }
    if size == "full":
        return full
    return {
        "model_type": "grounding-dino",
        "backbone_config": {
            **full["backbone_config"],
            "embed_dim": 16,
            "depths": [1, 1, 1, 1],
            "num_heads": [1, 2, 2, 4],
            "window_size": 4,
            "image_size": 64,
        },
        "text_config": {
            "model_type": "bert",
            "vocab_size": _TINY_VOCABULARY,
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 64,
        },
        "d_model": 32,
        "num_queries": 12,
        "encoder_layers": 1,
        "encoder_ffn_dim": 64,
        "encoder_attention_heads": 2,
        "decoder_layers": 2,
        "decoder_ffn_dim": 64,
        "decoder_attention_heads": 2,
    }


def _preprocessing(size: Literal["tiny", "full"]) -> dict[str, Any]:
    edges = (800, 1333) if size == "full" else (96, 160)
    return {
        "do_convert_annotations": True,
        "do_normalize": True,
        "do_pad": True,
        "do_rescale": True,
        "do_resize": True,
        "format": "coco_detection",
        "image_mean": [0.485, 0.456, 0.406],
        "image_processor_type": "GroundingDinoImageProcessor",
        "image_std": [0.229, 0.224, 0.225],
        "processor_class": "GroundingDinoProcessor",
        "resample": 2,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": edges[0], "longest_edge": edges[1]},
    }


def _write_tokenizer(folder: Path, size: int) -> None:
    """BERT's tokenizer with its special tokens and full stop where they belong, letters, and this trade's words."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    vocabulary = [f"[unused{i}]" for i in range(size)]
    for word, place in _KNOWN.items():
        vocabulary[place] = word
    letters = [chr(ord("a") + i) for i in range(26)]
    for place, word in enumerate([*_WORDS, *(f"##{letter}" for letter in letters)], start=_KNOWN["?"] + 1):
        vocabulary[place] = word
    vocabulary[200 : 200 + len(letters)] = letters
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    frame = [(word, _KNOWN[word]) for word in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=frame
    )
    tokenizer.add_special_tokens(list(_SPECIAL))
    names = {f"{word[1:-1].lower()}_token": word for word in _SPECIAL}
    settings = {
        **names,
        "added_tokens_decoder": {str(_KNOWN[word]): {"content": word, "special": True} for word in _SPECIAL},
        "do_lower_case": True,
        "model_max_length": 512,
        "processor_class": "GroundingDinoProcessor",
        "tokenizer_class": "BertTokenizer",
    }
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(names, indent=2, sort_keys=True))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True))
