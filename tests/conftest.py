"""Fixtures that several test files share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder.__main__ import main as build
from builder.writers import write_row
from models.registry import row_named
from tests.faults import FIGURE
from tests.make_sample import draw_sample
from tests.scene import Scene

if TYPE_CHECKING:
    from tests.s3_server import Store

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # So a shell starts what runs in the background; the processes that tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of one row with tiny random weights: of the row that the test module calls `ROW`."""
    torch = pytest.importorskip("torch", reason="the studio extra is not installed")
    torch.set_num_threads(1)
    row: str = request.module.ROW
    folder = tmp_path_factory.mktemp("volume") / row
    write_row(row_named(row), folder, "tiny", 1)
    return folder


@pytest.fixture(scope="session")
def s3_process() -> Iterator[Store]:
    """An S3 store in a process of its own; tests take `store`."""
    from tests import s3_server  # noqa: PLC0415 - the SDK behind it takes long to import

    store = s3_server.start()
    yield store
    store.stop()


@pytest.fixture
def store(s3_process: Store) -> Store:
    """The S3 store, empty, with nothing about to go wrong."""
    s3_process.clear()
    return s3_process


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures as one table: fault, measured, target.

    Here and not beside the tests: with pytest-xdist, the process that prints collects nothing and reads this file only.
    """
    reports = [report for found in terminalreporter.stats.values() for report in found]
    properties = [pair for report in reports for pair in getattr(report, "user_properties", ())]
    figures = sorted({tuple(value) for name, value in properties if name == FIGURE})
    if not figures:
        return
    terminalreporter.section("faults")
    widths = [max(len(row[column]) for row in figures) for column in (1, 2)]
    for _, fault, measured, target in figures:
        terminalreporter.line(f"{fault:{widths[0]}} | {measured:{widths[1]}} | {target}")
