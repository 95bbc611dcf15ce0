"""SDXL's decoder: recorded calls against plain ones, and the levels that it gives against the host's rounding.

What it decodes is compared with diffusers' own pipelines where the painters are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="the studio extra is not installed")
pytest.importorskip("diffusers", reason="the studio extra is not installed")

from models.device import CPU  # noqa: E402
from models.vae import Vae, load_vae  # noqa: E402
from tests.painters import files, write_volume  # noqa: E402
from tests.traces import counts, recording  # noqa: E402


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_volume(tmp_path_factory.mktemp("volume"))


def load(volume: Path) -> Vae:
    return load_vae(files(volume, "sdxl-vae-fp16-fix"), files(volume, "sdxl-base"), CPU)


def latents(seed: int, height: int = 12, width: int = 16) -> Any:
    return torch.randn(1, 4, height, width, generator=torch.Generator().manual_seed(seed)) * 0.5


def test_recorded_calls_decode_what_plain_ones_do(volume: Path) -> None:
    plain, recorded = load(volume), recording(load(volume))
    for seed in range(3):
        picture = recorded.decode(latents(seed))
        assert np.array_equal(picture, plain.decode(latents(seed)))
    assert picture.std() > 5
    assert counts(recorded.graphs) == (1, 2, 0)


def test_tiles_are_not_recorded(volume: Path) -> None:
    plain, recorded = load(volume), recording(load(volume))
    large = latents(0, 40, 40)
    recorded.decode(large)
    whole = recorded.decode(large)
    assert counts(recorded.graphs) == (1, 1, 0)
    for _ in range(3):
        tiled = recorded.decode(large, tiled=True)
        assert np.array_equal(tiled, plain.decode(large, tiled=True))
    assert not np.array_equal(tiled, whole)
    assert np.array_equal(recorded.decode(large), whole)  # the recording is of the whole, still
    assert counts(recorded.graphs) == (1, 2, 0)


def test_levels_are_those_that_the_host_would_round_to(volume: Path) -> None:
    vae = load(volume)
    network: Any = vae.networks[0]
    given = latents(5, 32, 48) * 3
    with torch.inference_mode():
        found = network.decode(given / network.config.scaling_factor, return_dict=False)[0][0]
    unit = (found / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy()
    made = vae.decode(given)
    assert np.array_equal(made, (unit * 255).round().astype(np.uint8))
    assert made.flags.c_contiguous
    assert {0, 255} <= set(np.unique(made))
