"""Weights that are read before they are asked for: in order, within a bound, whole, and gone with the job."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from models import units
from models.loader import Residents, Spent
from models.networks import timed_moves
from models.reading import BLOCK_BYTES, ReadAhead, Reads, Wanted
from models.requests import unchecked
from models.store import Store
from models.studio import StudioWorker
from pipeline.errors import Cancelled, ModelCorrupt
from pipeline.worker import Worker
from tests.test_studio import illustrate, settings_of

torch = pytest.importorskip("torch", reason="the studio extra is not installed")

RGB = np.full((64, 96, 3), 128, np.uint8)
SIZE = 3 * BLOCK_BYTES + 17
HANG_S = 20.0


@pytest.fixture
def reads() -> Reads:
    return Reads()


@pytest.fixture
def ahead(reads: Reads) -> Iterator[ReadAhead]:
    reader = ReadAhead(reads)
    yield reader
    reader.end()
    assert threads() == 0, "it reads on after its end"


def threads() -> int:
    return sum(thread.name == "livery-ahead" for thread in threading.enumerate())


def files(folder: Path, count: int) -> list[Wanted]:
    """Files of `SIZE` bytes, each with a content of its own."""
    wanted = []
    for n in range(count):
        path = folder / f"{n}.safetensors"
        path.write_bytes(random.Random(n).randbytes(SIZE))
        wanted.append(Wanted(path, SIZE, hashing=True))
    return wanted


def until(true: Callable[[], bool]) -> bool:
    end_s = time.monotonic() + HANG_S
    while not true() and time.monotonic() < end_s:
        time.sleep(0.005)
    return true()


def test_what_is_taken_is_the_file_with_its_checksum_and_only_once(
    ahead: ReadAhead, reads: Reads, tmp_path: Path
) -> None:
    wanted = files(tmp_path, 3)
    ahead.begin(wanted, 10 * SIZE)
    for one in wanted:
        assert until(lambda: reads.files == 3)
        read = ahead.take(one.path)
        assert read is not None
        assert read.data.tobytes() == one.path.read_bytes()
        assert read.sha256 == hashlib.sha256(read.data.tobytes()).hexdigest()
        assert ahead.take(one.path) is None
    assert (reads.files, reads.bytes) == (3, 3 * SIZE)
    assert (reads.spent_s > 0, reads.waited_s) == (True, 0)


def test_no_more_is_held_than_was_allowed_and_what_is_taken_makes_room(
    ahead: ReadAhead, reads: Reads, tmp_path: Path
) -> None:
    wanted = files(tmp_path, 5)
    ahead.begin(wanted, 2 * SIZE)
    assert until(lambda: reads.files == 2)
    time.sleep(0.1)
    assert reads.files == 2
    assert ahead.take(wanted[0].path) is not None
    assert until(lambda: reads.files == 3)
    time.sleep(0.1)
    assert reads.files == 3


def test_what_has_not_begun_is_left_to_whoever_asks(ahead: ReadAhead, reads: Reads, tmp_path: Path) -> None:
    wanted = files(tmp_path, 4)
    ahead.begin(wanted, 2 * SIZE)
    assert until(lambda: reads.files == 2)
    assert ahead.take(wanted[2].path) is None
    for one in wanted[:2]:
        ahead.take(one.path)
    assert until(lambda: reads.files == 3), "the last file is not read"
    assert ahead.take(wanted[3].path) is not None
    assert ahead.take(wanted[2].path) is None, "it was read twice"


def test_a_file_that_is_larger_than_all_room_is_left_out(ahead: ReadAhead, reads: Reads, tmp_path: Path) -> None:
    large, small = tmp_path / "large", files(tmp_path, 1)[0]
    large.write_bytes(bytes(SIZE + 1))
    ahead.begin([Wanted(large, SIZE + 1, hashing=True), small], SIZE)
    assert until(lambda: reads.files == 1)
    assert ahead.take(large) is None
    assert ahead.take(small.path) is not None


def slow_file(folder: Path) -> Path:
    """A file whose end comes when somebody writes it: a pipe."""
    path = folder / "slow"
    os.mkfifo(path)
    return path


def test_a_wait_for_what_is_being_read_ends_where_the_job_is_cancelled(ahead: ReadAhead, tmp_path: Path) -> None:
    path = slow_file(tmp_path)
    writer = threading.Thread(target=lambda: path.open("wb").close())  # a pipe opens when both its ends do
    ahead.begin([Wanted(path, 1, hashing=True)], SIZE)
    assert until(lambda: ahead._under_way == path)

    def cancel() -> None:
        raise Cancelled("the job was cancelled")

    with pytest.raises(Cancelled):
        ahead.take(path, cancel)
    writer.start()
    writer.join()


def test_what_can_not_be_read_is_as_if_it_was_not_wanted(ahead: ReadAhead, reads: Reads, tmp_path: Path) -> None:
    good = files(tmp_path, 1)
    ahead.begin([Wanted(tmp_path / "missing", 1, hashing=True), Wanted(tmp_path, 1, hashing=True), *good], SIZE)
    assert until(lambda: reads.files == 1)
    assert ahead.take(tmp_path / "missing") is None
    assert ahead.take(good[0].path) is not None


def test_at_its_end_nothing_is_held_and_nothing_reads(ahead: ReadAhead, reads: Reads, tmp_path: Path) -> None:
    wanted = files(tmp_path, 3)
    ahead.begin(wanted, 2 * SIZE)
    assert until(lambda: reads.files == 2)
    ahead.end()
    assert threads() == 0
    assert [ahead.take(one.path) for one in wanted] == [None] * 3
    ahead.begin(wanted, 2 * SIZE)
    assert until(lambda: reads.files == 4)


def store_of(worker: Worker) -> Store:
    assert worker.studio is not None
    return worker.studio.store


def test_a_job_finds_weights_that_were_read_ahead_and_draws_the_same(tiny_volume: Path) -> None:
    with_it, without = (Worker(settings_of(tiny_volume, prefetch_mb=mb)) for mb in (64, 0))
    assert illustrate(with_it).drawing.svg == illustrate(without).drawing.svg
    early, late = store_of(with_it).reads, store_of(without).reads
    assert (early.ahead > 5, late.ahead) == (True, 0)
    assert (early.files, early.bytes) == (late.files, late.bytes), "something was read twice, or to no purpose"
    before = early.files
    again = illustrate(with_it, seed=43)
    assert (early.files, again.report.loads, again.report.cold) == (before, {}, None)
    assert threads() == 0


def test_the_report_says_what_a_first_job_waited_for(tiny_volume: Path) -> None:
    worker = Worker(settings_of(tiny_volume, prefetch_mb=64))
    result = illustrate(worker)
    cold, reads = result.report.cold, store_of(worker).reads
    assert cold is not None
    assert (cold.files, cold.files_ahead, cold.mb) == (reads.files, reads.ahead, round(reads.bytes / 2**20, 1))
    waited_ms = cold.import_ms + cold.read_ms + cold.build_ms + cold.device_ms
    assert sum(result.report.loads.values()) < waited_ms + 1 < result.report.timings_ms.total
    assert min(cold.import_ms, cold.read_ms, cold.build_ms, cold.device_ms) > 0
    assert cold.read_ms == pytest.approx(1000 * reads.waited_s, abs=1)
    assert cold.reading_ms == pytest.approx(1000 * reads.spent_s, abs=1)
    assert cold.first_ms is not None
    assert result.report.loads["segmenter"] < cold.first_ms < result.report.timings_ms.total
    other = illustrate(worker, mode="faithful")
    assert other.report.cold is not None
    assert 0 < other.report.cold.files < cold.files
    assert illustrate(worker, mode="faithful", cache="use").report.cold is None


def test_what_loads_waited_for_adds_up(tiny_volume: Path) -> None:
    worker = StudioWorker(tiny_volume, prefetch_mb=64, threads=1)
    with worker.reading_ahead([units.DEPTH, units.UPSCALER]):
        studio = worker.job(unchecked)
        assert studio.first_s is None
        studio.depth(RGB)
        depth_s = time.perf_counter() - studio.began_s
        studio.enlarge(RGB, unchecked)
    timeline = studio.timeline()
    spent, loads_s = timeline.spent, sum(studio.loads.values()) / 1000
    assert min(spent.import_s, spent.read_s, spent.build_s, spent.device_s) > 0
    assert spent.read_s == pytest.approx(worker.store.reads.waited_s)
    found_s = spent.total_s - loads_s  # the rest: PyTorch and the device, before the first load
    assert 0 < found_s < spent.import_s
    assert timeline.first_s is not None
    assert loads_s / 2 < studio.loads["depth estimator"] / 1000 < timeline.first_s <= depth_s
    again = worker.job(unchecked)
    again.depth(RGB)
    assert (again.timeline().spent, again.timeline().imported_s) == (Spent(), 0)


def test_moves_are_timed_whoever_makes_them() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(300, 400), torch.nn.Linear(400, 500))
    began_s = time.perf_counter()
    with timed_moves() as moves_s:
        network.to(torch.float16)
        torch.ones(3).to("cpu", torch.float64)
        torch.ones(3) + 1
    assert len(moves_s) == 5
    assert 0 < sum(moves_s) < time.perf_counter() - began_s
    network.to(torch.float32)
    assert len(moves_s) == 5


def test_what_a_job_loads_is_read_ahead_in_the_order_that_it_is_asked_for(tiny_volume: Path) -> None:
    weights = Store(tiny_volume).weights(units.FAST.weights())
    rows = [one.path.relative_to(tiny_volume / "models").parts[0] for one in weights]
    assert rows == ["sdxl-base", "sdxl-lightning-4step", "controlnet-union-promax"]


def test_weights_that_are_merged_into_others_need_no_room_of_their_own(tiny_volume: Path) -> None:
    store = Store(tiny_volume)
    files = {row: store.files(row) for row in units.FAST.rows}
    kept = (files["sdxl-base"].folder / "unet", files["controlnet-union-promax"].folder)
    sizes = [path.stat().st_size for folder in kept for path in folder.iterdir()]
    assert Residents._weight_bytes(units.FAST, files) == sum(sizes)


def test_damage_is_found_in_what_was_read_ahead_too(tiny_volume: Path, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    shutil.copytree(tiny_volume, volume)
    (weights,) = volume.glob("models/depth-anything-v2-small/*/model.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ModelCorrupt, match="depth-anything-v2-small"):
        illustrate(Worker(settings_of(volume, prefetch_mb=64)))
    assert threads() == 0
