"""What a prompt is to SDXL: the states of two CLIP text encoders, and the second one's pooled embedding."""

# ruff: noqa: PLC0415 - torch and transformers are heavy, and only studio workers have them

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.device import Device
from models.files import ModelFiles
from models.lora import Fusion, Lora, Target
from models.pretrained import load_pretrained

if TYPE_CHECKING:
    import torch

_TOKENIZER_FILES = ("merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json")
_ENCODER_FILES = ("config.json", "model.fp16.safetensors")
PROMPT_FILES = (
    *(f"{folder}/{name}" for folder in ("tokenizer", "tokenizer_2") for name in _TOKENIZER_FILES),
    *(f"{folder}/{name}" for folder in ("text_encoder", "text_encoder_2") for name in _ENCODER_FILES),
)
"""Of the row sdxl-base."""

_CACHED_PROMPTS = 64


@dataclass(frozen=True, slots=True)
class Words:
    """One prompt, encoded.

    Attributes:
        states: [1, 77, 2048], the last state but one of both encoders, side by side.
        pooled: [1, 1280], the second encoder's.
    """

    states: torch.Tensor
    pooled: torch.Tensor


class PromptEncoder:
    """Both text encoders and their tokenizers. Use `load_prompt_encoder`.

    Attributes:
        networks: the two encoders.
    """

    def __init__(self, tokenizers: tuple[Any, Any], networks: tuple[Any, Any], fusions: tuple[Fusion, Fusion]) -> None:
        self.networks: tuple[torch.nn.Module, ...] = networks
        self._tokenizers = tokenizers
        self._fusions = fusions
        self._cache: OrderedDict[tuple[str, float], Words] = OrderedDict()

    def encode(self, text: str, lora_scale: float = 0.0) -> Words:
        """The encoded prompt; the same text again costs nothing.

        Args:
            text: of which the encoders read 75 tokens (`unread` names the rest).
            lora_scale: of the style, where it adapts the encoders too.
        """
        import torch

        changed = [fusion.restyle(lora_scale) for fusion in self._fusions]
        if any(changed):
            self._cache.clear()
        words = self._cache.get((text, lora_scale))
        if words is None:
            with torch.inference_mode():
                words = self._encode(text)
            self._cache[text, lora_scale] = words
            if len(self._cache) > _CACHED_PROMPTS:
                self._cache.popitem(last=False)
        self._cache.move_to_end((text, lora_scale))
        return words

    def unread(self, text: str) -> str:
        """The end of a prompt that is too long for the encoders; empty where they read all of it."""
        ends: list[str] = []
        for tokenizer in self._tokenizers:
            tokens = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
            ends.append(tokenizer.decode(tokens[tokenizer.model_max_length - 2 :]).strip())
        return max(ends, key=len)

    def _encode(self, text: str) -> Words:
        import torch

        states = []
        for tokenizer, network in zip(self._tokenizers, self.networks, strict=True):
            length = tokenizer.model_max_length
            tokens = tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
            place = next(network.parameters()).device
            found = network(tokens.input_ids.to(place), output_hidden_states=True)
            states.append(found.hidden_states[-2])
        return Words(torch.cat(states, dim=-1), found.text_embeds)


def load_prompt_encoder(base: ModelFiles, device: Device, style: Lora | None = None) -> PromptEncoder:
    """Both encoders of sdxl-base, in `device.half`.

    Raises:
        ModelMissing, ModelCorrupt: a file is not there, or is damaged, or doesn't fit.
    """
    from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    first = _encoder(base, "text_encoder", CLIPTextModel, device)
    second = _encoder(base, "text_encoder_2", CLIPTextModelWithProjection, device)
    tokenizers = tuple(
        CLIPTokenizer.from_pretrained(base.path(f"{folder}/vocab.json").parent)
        for folder in ("tokenizer", "tokenizer_2")
    )
    fusions = _fusion(first, "text_encoder", style), _fusion(second, "text_encoder_2", style)
    return PromptEncoder((tokenizers[0], tokenizers[1]), (first, second), fusions)


def _encoder(base: ModelFiles, folder: str, kind: Any, device: Device) -> Any:
    from transformers.models.clip.configuration_clip import CLIPTextConfig

    config = CLIPTextConfig.from_dict(base.json(f"{folder}/config.json"))
    network = load_pretrained(kind, config, base, f"{folder}/model.fp16.safetensors")
    return network.to(device.place(), device.dtype())


def _fusion(network: torch.nn.Module, target: Target, style: Lora | None) -> Fusion:
    return Fusion(network, (), {} if style is None else style.for_network(target, network))
