"""Attention's projections of the same tensor as one product of matrices: fewer, larger ones keep a GPU busier."""

# ruff: noqa: PLC0415 - torch and diffusers are heavy, and only studio workers have them

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_SELF, _CROSS = ("to_q", "to_k", "to_v"), ("to_k", "to_v")


def fuse_projections(network: torch.nn.Module) -> None:
    """Have every attention of a network of diffusers project with one weight instead of three, or two.

    The layers' own weights become parts of that one, so what changes them in place, such as an adapter, changes it,
    and no memory holds them twice.

    Args:
        network: on its device; without biases in these projections, as SDXL's networks are.
    """
    import torch
    from diffusers.models import attention_processor
    from torch.nn.functional import linear

    processor: Any = attention_processor.FusedAttnProcessor2_0

    for attention in _attentions(network):
        names = _CROSS if attention.is_cross_attention else _SELF
        layers = [getattr(attention, name) for name in names]
        whole = torch.cat([layer.weight.data for layer in layers])
        parts = torch.split(whole, [len(layer.weight) for layer in layers])
        for layer, part in zip(layers, parts, strict=True):
            layer.weight.data = part
        # Past the module's own bookkeeping, which would count these weights among its parameters a second time.
        attention.__dict__[_fused_name(attention)] = partial(linear, weight=whole)
        attention.set_processor(processor())


def split_projections(network: torch.nn.Module) -> None:
    """Undo `fuse_projections`."""
    from diffusers.models import attention_processor

    processor: Any = attention_processor.AttnProcessor2_0
    for attention in _attentions(network):
        attention.__dict__.pop(_fused_name(attention), None)
        attention.set_processor(processor())


def _attentions(network: torch.nn.Module) -> Iterator[Any]:
    from diffusers.models.attention_processor import Attention

    return (module for module in network.modules() if isinstance(module, Attention))


def _fused_name(attention: Any) -> str:
    """What diffusers' processor looks for."""
    return "to_kv" if attention.is_cross_attention else "to_qkv"
