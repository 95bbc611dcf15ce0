"""Fixtures that several test files share."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.__main__ import main as build
from tests.make_sample import draw_sample
from tests.scene import Scene


@pytest.fixture(scope="session")
def scene() -> Scene:
    """The project's own test photograph at the size of test_input.json, drawn once for the whole session."""
    return draw_sample()


@pytest.fixture(scope="session")
def tiny_volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume of tiny random models, every row of the registry but the optional ones."""
    torch = pytest.importorskip("torch", reason="the studio extra is not installed")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    volume = tmp_path_factory.mktemp("volume")
    assert build(["tiny", "--volume", str(volume)]) == 0
    torch.set_num_threads(threads)
    return volume
