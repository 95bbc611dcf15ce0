"""Whatever ends a builder, and however many run: the volume ends up whole, and never shows a file that is not."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.builder_runs import Builder, Watch, finals, pinned_sha256
from tests.faults.conftest import Figure
from tests.faults.disks import Disk, small_disk
from tests.hub_server import Hub, fill, start

pytest.importorskip("huggingface_hub", reason="the studio extra is not installed")

KILLS = 50


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    fill(folder, seed=3)
    hub = start(folder)
    yield hub
    hub.stop()


@pytest.fixture(scope="module")
def lock(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pinned")
    hub.switch()
    Builder(hub, folder, folder / "home").json("pin")
    return folder / "lock.json"


@pytest.fixture
def pinned(hub: Hub, lock: Path, tmp_path: Path) -> Builder:
    """A volume with a lock and nothing else."""
    hub.switch()
    hub.forget()
    builder = Builder(hub, tmp_path / "volume", tmp_path / "home")
    builder.volume.mkdir()
    shutil.copy(lock, builder.volume)
    return builder


def size_of(volume: Path) -> int:
    """Bytes of all that was fetched, half or whole."""
    total = 0
    for folder, _, names in os.walk(volume):
        for name in names:
            if "lease" not in name:
                with suppress(FileNotFoundError):  # it was just moved into place
                    total += Path(folder, name).stat().st_size
    return total


def end(process: subprocess.Popen[str], how: signal.Signals) -> bool:
    """Whether the signal found it alive."""
    process.send_signal(how)
    process.communicate(timeout=30)
    return process.returncode == -how


def test_killed_fifty_times_and_whole_in_the_end(hub: Hub, pinned: Builder, figure: Figure) -> None:
    draw = random.Random(11)
    hub.switch(bytes_per_s=10_000)
    kills = 0
    with Watch(pinned.volume) as watch:
        for number in range(3 * KILLS):
            before, process = size_of(pinned.volume), pinned.start("warm")
            if number % 2:
                while size_of(pinned.volume) == before and process.poll() is None:
                    time.sleep(0.005)
                time.sleep(draw.uniform(0, 0.1))
            else:
                time.sleep(draw.uniform(0, 0.4))
            kills += end(process, signal.SIGKILL)
            if kills == KILLS:
                break
        hub.switch()
        assert pinned.json("warm")["ok"]
    assert kills == KILLS
    assert watch.wrong == set()
    assert set(finals(pinned.volume)) == set(pinned_sha256(pinned.volume))
    assert pinned.json("verify")["files"] == len(pinned_sha256(pinned.volume))
    resumed = [request for request in hub.requests() if request["range"] is not None]
    assert len(resumed) >= 5, "no kill fell into a transfer"
    assert list((pinned.volume / "staging").glob("*.part")) == []
    measured = f"{kills} kills, {len(resumed)} transfers resumed: 0 wrong files in {watch.looks} looks"
    figure("corrupt weights", measured, "no readable final file with a wrong sha256")


def test_eight_builders_fetch_each_file_once(hub: Hub, pinned: Builder, figure: Figure) -> None:
    hub.switch(bytes_per_s=200_000)
    with Watch(pinned.volume) as watch:
        processes = [pinned.start("warm", "--json") for _ in range(8)]
        ended = [(process.communicate(timeout=120), process.returncode) for process in processes]
    assert [code for _, code in ended] == [0] * 8, ended
    assert watch.wrong == set()
    assert watch.looks > 5
    sizes = {f"{pin_path}": path.stat().st_size for pin_path, path in finals(pinned.volume).items()}
    bodies = hub.bodies()
    assert len(bodies) == len(sizes) == len(pinned_sha256(pinned.volume))
    assert all(len(sent) == 1 for sent in bodies.values()), bodies
    assert sum(sum(sent) for sent in bodies.values()) == sum(sizes.values())
    assert sum("waiting for it" in err for (_, err), _ in ended) == 7
    figure("corrupt weights", f"8 builders: {len(bodies)} files, {len(bodies)} transfers", "each file downloaded once")


def test_a_builder_that_stands_still_keeps_its_volume(hub: Hub, pinned: Builder) -> None:
    hub.switch(bytes_per_s=60_000)
    first = pinned.start("warm")
    while not hub.bodies():
        time.sleep(0.02)
    first.send_signal(signal.SIGSTOP)
    refused = pinned.json("warm", "--wait", "0.5", expect=1)
    assert refused["faults"][0].startswith("Cancelled: another builder is at work")
    first.send_signal(signal.SIGCONT)
    hub.switch()
    assert first.wait(60) == 0
    first.communicate()


def test_an_interrupted_builder_keeps_what_it_fetched(hub: Hub, pinned: Builder) -> None:
    hub.switch(bytes_per_s=6_000)
    process = pinned.start("warm")
    staging = pinned.volume / "staging"
    while sum(part.stat().st_size for part in staging.glob("*.part")) < 6_000:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert sum(part.stat().st_size for part in staging.glob("*.part")) >= 6_000
    assert not (staging / "builder.lease").exists()
    hub.switch()
    left = pinned.json("warm")["fetched_bytes"]
    assert left <= sum(path.stat().st_size for path in finals(pinned.volume).values()) - 6_000


def test_pinning_can_be_killed_too(hub: Hub, tmp_path: Path) -> None:
    hub.switch()
    builder = Builder(hub, tmp_path / "volume", tmp_path / "home")
    draw = random.Random(5)
    for _ in range(4):
        process = builder.start("warm", "--pin")
        time.sleep(draw.uniform(0.1, 0.8))
        end(process, signal.SIGKILL)
        shutil.rmtree(builder.volume / "models", ignore_errors=True)  # the manifest may list what is not there
    builder.json("warm", "--pin")
    builder.json("verify")


def on(disk: Disk, pinned: Builder) -> Builder:
    """The same builder with a volume on that disk."""
    volume = disk.folder / "volume"
    volume.mkdir()
    shutil.copy(pinned.volume / "lock.json", volume)
    return Builder(pinned.hub, volume, pinned.home)


def test_a_disk_without_room_is_refused_before_anything_is_fetched(
    pinned: Builder, tmp_path: Path, figure: Figure
) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        (fault,) = on(disk, pinned).json("warm", expect=1)["faults"]
        assert fault.startswith("VolumeFull: ")
        assert not any(name.endswith((".part", ".tmp", ".safetensors")) for name in disk.names())
    assert pinned.hub.bodies() == {}
    figure("disk full", "64 MB, builder: VolumeFull, nothing fetched", "VolumeFull, temporary files gone")


def test_a_disk_that_fills_up_meanwhile_is_volume_full_and_the_next_builder_is_fine(
    pinned: Builder, tmp_path: Path, figure: Figure
) -> None:
    # The builder keeps 64 MB free, so on less it would not begin.
    with small_disk(tmp_path / "disk", 72) as disk:
        small = on(disk, pinned)
        small.hub.switch(bytes_per_s=20_000)
        process = small.start("warm", "--json")
        while not list(small.volume.glob("staging/*.part")):
            time.sleep(0.02)
        disk.fill(100_000)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 1
        (fault,) = json.loads(out)["faults"]
        assert fault.startswith("VolumeFull: the volume is full")
        assert not list(small.volume.glob("staging/*.part"))
        expected = pinned_sha256(small.volume)
        for name, path in finals(small.volume).items():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == expected[name]
        disk.empty()
        small.hub.switch()
        small.json("warm")
        small.json("verify")
    measured = "filled while a builder writes: VolumeFull, no part left, the next builder whole"
    figure("disk full", measured, "VolumeFull, temporary files gone")
