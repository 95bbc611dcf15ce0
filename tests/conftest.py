"""Fixtures that several test files share."""

from __future__ import annotations

import pytest

from tests.make_sample import draw_sample
from tests.scene import Scene


@pytest.fixture(scope="session")
def scene() -> Scene:
    """The project's own test photograph at the size of test_input.json, drawn once for the whole session."""
    return draw_sample()
