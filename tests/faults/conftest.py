"""What every test of the suite may take: a place for the figure that it reached."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults import FAULTS, FIGURE

Figure = Callable[[str, str, str], None]
"""Notes a fault of `FAULTS`, what was measured, and the target."""


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """Lines of the table that the run ends with. What a test notes is its report's, so it outlives a worker process."""

    def note(fault: str, measured: str, target: str) -> None:
        assert fault in FAULTS
        print(f"{fault}: {measured} (target: {target})")
        record_property(FIGURE, (FAULTS.index(fault), fault, measured, target))

    return note
