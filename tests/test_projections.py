"""Fused projections against the layers that they are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="the studio extra is not installed")
pytest.importorskip("diffusers", reason="the studio extra is not installed")

from models.device import CPU  # noqa: E402
from models.projections import fuse_projections, split_projections  # noqa: E402
from models.prompt import load_prompt_encoder  # noqa: E402
from tests.painters import files, load_fast, paint, request, write_volume  # noqa: E402

NEAR = 1e-4
"""float32: the same products, in matrices of another size."""


def test_a_painter_s_networks_are_fused_and_paint_the_same_split(tmp_path: Path) -> None:
    volume = write_volume(tmp_path)
    encoder, painter = load_prompt_encoder(files(volume, "sdxl-base"), CPU), load_fast(volume, styled=True)
    counts = [sum(weight.numel() for weight in network.parameters()) for network in painter.networks]
    names = [list(network.state_dict()) for network in painter.networks]
    jobs = [request("fast", steps=2, lora_scale=scale) for scale in (0.0, 0.8, 0.3)]
    fused = [paint(painter, encoder, job) for job in jobs]
    calls = _linears(painter, encoder)
    for network in painter.networks:
        split_projections(network)
    split = [paint(painter, encoder, job) for job in jobs]
    # A transformer block has six projections, of which three are left.
    assert calls < _linears(painter, encoder)
    for network in painter.networks:
        fuse_projections(network)
    again = [paint(painter, encoder, job) for job in jobs]
    assert all(float((one - other).abs().max()) < NEAR for one, other in zip(fused, split, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(fused, again, strict=True))
    assert not torch.equal(fused[0], fused[1])
    assert counts == [sum(weight.numel() for weight in network.parameters()) for network in painter.networks]
    assert names == [list(network.state_dict()) for network in painter.networks]


def _linears(painter: Any, encoder: Any) -> int:
    """Products of matrices in one step."""
    with torch.profiler.profile() as seen:
        paint(painter, encoder, request("fast", steps=1))
    return sum(event.count for event in seen.key_averages() if event.key == "aten::linear")


def test_the_parts_lie_in_the_whole(tmp_path: Path) -> None:
    painter = load_fast(write_volume(tmp_path))
    kinds = 0
    for network in painter.networks:
        modules: Any = network.modules()
        for module in modules:
            whole = module.__dict__.get("to_qkv", module.__dict__.get("to_kv"))
            if whole is not None:
                kinds += 1
                weight = whole.keywords["weight"]
                assert module.to_k.weight.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr()
                assert module.to_k.weight.is_contiguous()
    assert kinds > 4
