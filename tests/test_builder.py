"""The builder's commands against the stand-in of the Hub: what they fetch, refuse, find and say."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.registry import REGISTRY, STYLE_LORA, rows_of
from models.store import Store
from pipeline.errors import ModelCorrupt, ModelMissing
from tests.builder_runs import Builder, finals, pinned_sha256
from tests.hub_server import Hub, fill, revision_of, start

pytest.importorskip("huggingface_hub", reason="the studio extra is not installed")

CANARY = "hf_CanaryThatMustNeverBeSeen"
BOTH = rows_of(("fast", "faithful"))
LAMA = "big-lama/big-lama.safetensors"


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return fill(tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    fill(folder)
    hub = start(folder)
    yield hub
    hub.stop()


@pytest.fixture(scope="module")
def warmed(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole volume. Tests take copies."""
    folder = tmp_path_factory.mktemp("warmed")
    Builder(hub, folder / "volume", folder / "home").json("warm", "--pin")
    return folder / "volume"


@pytest.fixture
def builder(hub: Hub, tmp_path: Path) -> Builder:
    hub.switch()
    hub.forget()
    return Builder(hub, tmp_path / "volume", tmp_path / "home")


@pytest.fixture
def pinned(builder: Builder, warmed: Path) -> Builder:
    builder.volume.mkdir()
    shutil.copy(warmed / "lock.json", builder.volume)
    return builder


@pytest.fixture
def whole(builder: Builder, warmed: Path) -> Builder:
    shutil.copytree(warmed, builder.volume)
    return builder


def place(volume: Path, path: str) -> Path:
    """Where `row/path` lies."""
    row, _, rest = path.partition("/")
    (revision,) = (volume / "models" / row).iterdir()
    return revision / rest


def edit_lock(volume: Path, row: str, **changes: Any) -> None:
    lock = json.loads((volume / "lock.json").read_text())
    lock["rows"][row] |= changes
    (volume / "lock.json").write_text(json.dumps(lock))


def edit_file(volume: Path, row: str, number: int = 0, **changes: Any) -> None:
    files = json.loads((volume / "lock.json").read_text())["rows"][row]["files"]
    files[number] |= changes
    edit_lock(volume, row, files=files)


def test_what_is_warmed_is_what_the_hub_holds(builder: Builder, contents: dict[str, bytes]) -> None:
    report = builder.json("warm", "--pin")
    fetched = {name: path.read_bytes() for name, path in finals(builder.volume).items()}
    repos = {row.name: row.repo for row in BOTH}
    assert {f"{repos[name.split('/')[0]]}/{name.split('/', 2)[2]}": data for name, data in fetched.items()} == {
        path: data
        for path, data in contents.items()
        if path.split("/loras/")[0] != "someone/a-style" and not path.startswith("Intel/")
    }
    assert {name.split("/")[1] for name in fetched if name.startswith("sam-")} == {revision_of("facebook/sam-vit-huge")}
    assert report["fetched_files"] == len(fetched)
    assert report["fetched_bytes"] == sum(map(len, fetched.values()))
    assert not any("pytorch_model.bin" in path for path in builder.hub.bodies())
    store = Store(builder.volume)
    assert store.kind == "hub"
    assert store.missing(("fast", "faithful")) == ()
    for row in BOTH:
        assert store.files(row.name).revision == revision_of(str(row.repo))
    again = builder.json("warm")
    assert (again["fetched_files"], again["fetched_bytes"]) == (0, 0)
    assert {row["state"] for row in again["rows"]} == {"there"}
    assert list((builder.volume / "staging").iterdir()) == [builder.volume / "staging" / "builder.lock"]


def test_a_mode_s_rows_only(pinned: Builder) -> None:
    pinned.json("warm", "--mode", "fast")
    there = {name.split("/")[0] for name in finals(pinned.volume)}
    assert there == {row.name for row in rows_of(("fast",))}
    assert "controlnet-union-promax" in there
    assert "controlnet-canny-sdxl" not in there
    store = Store(pinned.volume)
    assert store.missing(("fast",)) == ()
    assert store.missing(("faithful",)) == ("controlnet-depth-sdxl", "controlnet-canny-sdxl")
    assert pinned.json("status", expect=1)["faults"] != []
    assert pinned.json("status", "--mode", "fast")["faults"] == []


def test_a_row_without_a_pin_is_refused(builder: Builder) -> None:
    report = builder.json("warm", expect=1)
    assert report["faults"][0].startswith("ModelMissing: not pinned to a revision: grounding-dino-base, sam-vit-huge")
    assert finals(builder.volume) == {}
    assert builder.hub.requests() == []
    plan = builder.json("plan", expect=1)
    assert {row["state"] for row in plan["rows"]} == {"unpinned"}


def test_pins_come_from_the_hub(builder: Builder, contents: dict[str, bytes], tmp_path: Path) -> None:
    lock = tmp_path / "models-lock.json"
    builder.json("pin", "--lock", str(lock), "--with", "zoedepth")
    rows = json.loads(lock.read_text())["rows"]
    assert list(rows) == [row.name for row in REGISTRY if row.name != STYLE_LORA]
    for row in REGISTRY:
        if row.repo is not None:
            assert rows[row.name]["revision"] == revision_of(row.repo)
            for file in rows[row.name]["files"]:
                data = contents[f"{row.repo}/{file['path']}"]
                assert file == {**file, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    large = [path for path in builder.hub.bodies() if path.endswith((".safetensors", ".pth"))]
    assert large == [], "the Hub knows the checksums of large files"
    assert not builder.volume.exists()


def test_a_plan_says_what_it_costs(pinned: Builder) -> None:
    plan = pinned.json("plan")
    rows = {row["name"]: row for row in plan["rows"]}
    assert plan["bytes_to_fetch"] == sum(row["bytes"] for row in plan["rows"]) > 100_000
    assert rows["sdxl-base"]["licence"] == "OpenRAIL++-M"
    assert rows["sdxl-base"]["commercial"] is True
    assert plan["weights_vram_mb"]["fast"] == sum(row.vram_mb for row in rows_of(("fast",)))
    pinned.json("warm")
    after = pinned.json("plan")
    assert after["bytes_to_fetch"] == 0
    assert {row["state"] for row in after["rows"]} == {"there"}


@pytest.mark.parametrize(
    "name", ["sdxl-base/unet/diffusion_pytorch_model.fp16.safetensors", "sam-vit-huge/config.json"]
)
def test_a_flipped_byte_is_found_and_mended(whole: Builder, name: str) -> None:
    row, _, path = name.partition("/")
    damaged = place(whole.volume, name)
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 16
    damaged.write_bytes(data)
    report = whole.json("verify", expect=1)
    assert report["faults"] == [f"{row}: {path}: has another checksum; warm --recheck fetches it again"]
    store = Store(whole.volume)
    with pytest.raises(ModelCorrupt, match="checksum"):
        store.files(row).check(path)
    assert whole.json("warm", "--recheck")["fetched_files"] == 1
    assert whole.json("verify")["faults"] == []


def test_a_file_that_is_cut_short_is_fetched_again(whole: Builder) -> None:
    damaged = place(whole.volume, LAMA)
    size = damaged.stat().st_size
    os.truncate(damaged, size - 1)
    with pytest.raises(ModelCorrupt, match=f"{size - 1} bytes long, not {size}"):
        Store(whole.volume).files("big-lama")
    assert Store(whole.volume).missing(("fast",)) == ("big-lama",)
    assert whole.json("status", expect=1)["faults"] == [
        f"big-lama: a file of big-lama is {size - 1} bytes long, not {size}"
    ]
    assert whole.json("warm")["fetched_files"] == 1
    whole.json("verify")


def test_a_file_that_is_gone(whole: Builder) -> None:
    place(whole.volume, LAMA).unlink()
    assert "big-lama: big-lama.safetensors: is not there" in whole.json("verify", expect=1)["faults"][0]
    with pytest.raises(ModelMissing, match="lacks a file of big-lama"):
        Store(whole.volume).files("big-lama")


def test_wrong_bytes_never_get_a_name(pinned: Builder) -> None:
    pinned.hub.switch(wrong=["big-lama.safetensors"])
    report = pinned.json("warm", expect=1)
    assert report["faults"] == [
        "ModelCorrupt: the Hub sends other bytes for big-lama.safetensors of big-lama than are pinned"
    ]
    assert not any(name.startswith("big-lama") for name in finals(pinned.volume))
    assert not Store(pinned.volume).holds("big-lama")
    assert not list((pinned.volume / "staging").glob("big-lama*"))
    pinned.hub.switch()
    pinned.json("warm")
    pinned.json("verify")


def test_broken_transfers_go_on_where_they_broke(pinned: Builder) -> None:
    pinned.hub.switch(break_after={"*": 12_000})
    pinned.json("warm")
    pinned.json("verify")
    bodies = pinned.hub.bodies()
    assert max(len(sent) for sent in bodies.values()) >= 4
    assert sum(map(sum, bodies.values())) == sum(path.stat().st_size for path in finals(pinned.volume).values())


def test_a_server_that_knows_no_ranges(pinned: Builder) -> None:
    pinned.hub.switch(bytes_per_s=20_000)
    process = pinned.start("warm")
    while sum(part.stat().st_size for part in pinned.volume.glob("staging/*.part")) < 20_000:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    pinned.hub.switch(ranges=False)
    pinned.json("warm")
    pinned.json("verify")


def test_what_a_crash_garbled_is_fetched_anew(pinned: Builder) -> None:
    sha256 = next(sha for name, sha in pinned_sha256(pinned.volume).items() if name.endswith("big-lama.safetensors"))
    staging = pinned.volume / "staging"
    staging.mkdir()
    (staging / f"big-lama-big-lama.safetensors-{sha256[:16]}.{'0' * 32}.part").write_bytes(b"\0" * 7000)
    pinned.json("warm")
    pinned.json("verify")
    assert len(pinned.hub.bodies()["anyisalin/big-lama/big-lama.safetensors"]) == 2


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (404, "it is not there (status 404)"),
        (401, "HF_TOKEN set (status 401)"),
        (403, "another HF_TOKEN (status 403)"),
        (410, "the Hub refuses (status 410)"),
        (503, "the Hub answers with status 503, 6 times in a row"),
    ],
)
def test_refusals_are_told_apart(pinned: Builder, status: int, says: str) -> None:
    pinned.hub.switch(statuses={"big-lama.safetensors": status}, retry_after_s=0)
    (fault,) = pinned.json("warm", expect=1)["faults"]
    assert fault.startswith("ModelMissing: big-lama can't be fetched: ")
    assert fault.endswith(says)
    asked = [request for request in pinned.hub.requests() if request["path"].startswith("cdn/anyisalin/")]
    assert len(asked) == (6 if status == 503 else 1)


def test_a_hub_that_is_not_there(pinned: Builder) -> None:
    nowhere = Builder(pinned.hub, pinned.volume, pinned.home, {"HF_HUB_OFFLINE": "1"})
    assert "HF_HUB_OFFLINE is set" in nowhere.json("warm", expect=1)["faults"][0]
    empty = Builder(pinned.hub, pinned.volume, pinned.home, {"HF_ENDPOINT": f"{pinned.hub.endpoint}/elsewhere"})
    assert "status 404" in empty.json("warm", expect=1)["faults"][0]


def test_the_token_is_never_shown(builder: Builder) -> None:
    builder.hub.switch(token=CANARY)
    knowing = Builder(builder.hub, builder.volume, builder.home, {"HF_TOKEN": CANARY})
    strange = Builder(builder.hub, builder.volume, builder.home, {"HF_TOKEN": CANARY + "Wrong"})
    runs = [
        strange.run("warm", "--pin"),
        strange.run("warm", "--pin", "--json"),
        knowing.run("plan", "--json"),
        knowing.run("warm", "--pin", "--json"),
        knowing.run("status"),
        knowing.run("verify"),
    ]
    assert [run.code for run in runs] == [1, 1, 1, 0, 0, 0]
    assert "status 401" in runs[0].out
    builder.hub.switch(token=CANARY, statuses={"*": 404})
    place(builder.volume, LAMA).unlink()
    runs.append(knowing.run("warm"))
    assert runs[-1].code == 1
    for run in runs:
        assert CANARY not in run.out + run.err
        assert "secret-signature" not in run.out + run.err
        assert str(builder.volume) not in run.out
    for folder in (builder.volume, builder.home):
        for path in folder.rglob("*"):
            assert not path.is_file() or CANARY.encode() not in path.read_bytes()
    other_host = [request for request in builder.hub.requests() if request["path"].startswith("cdn/")]
    assert other_host != []
    assert not any(request["authorized"] for request in other_host)


def test_a_volume_without_room_is_refused_before_anything_is_fetched(pinned: Builder) -> None:
    edit_file(pinned.volume, "big-lama", bytes=10**15)
    (fault,) = pinned.json("warm", expect=1)["faults"]
    assert fault.startswith("VolumeFull: 1000000.")
    assert pinned.hub.requests() == []
    assert "are free" in pinned.json("plan", expect=1)["faults"][0]


def test_a_write_that_fails_leaves_nothing_half_made(pinned: Builder) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    (fault,) = pinned.json("warm", expect=1, preexec_fn=limit)["faults"]
    assert fault.startswith("VolumeFull: the volume is full")
    assert not list((pinned.volume / "staging").glob("*.part"))
    assert not (pinned.volume / "staging" / "builder.lease").exists()
    pinned.json("warm")
    pinned.json("verify")


def test_a_style_lora_of_the_deployment_s_choice(whole: Builder, contents: dict[str, bytes]) -> None:
    source = "someone/a-style/loras/flat.safetensors"
    whole.json("pin", "--style-lora", source)
    entry = json.loads((whole.volume / "lock.json").read_text())["rows"][STYLE_LORA]
    assert (entry["repo"], entry["licence"], entry["commercial"]) == ("someone/a-style", "mit", True)
    assert whole.json("warm")["fetched_files"] == 1
    files = Store(whole.volume).files(STYLE_LORA)
    assert files.path("pytorch_lora_weights.safetensors").read_bytes() == contents[source]
    whole.json("verify")
    for bad in ("someone", "someone/a-style", "someone/a-style/flat.pt", "some one/a/b.safetensors"):
        assert whole.run("pin", "--style-lora", bad).code == 1
    assert json.loads((whole.volume / "lock.json").read_text())["rows"][STYLE_LORA] == entry


def test_a_licence_that_forbids_commercial_work_needs_a_switch(whole: Builder) -> None:
    whole.json("pin", "--style-lora", "someone/a-style/loras/flat.safetensors")
    edit_lock(whole.volume, STYLE_LORA, licence="cc-by-nc-4.0", commercial=False)
    (fault,) = whole.json("warm", expect=1)["faults"]
    assert f"no commercial work, or does not say: {STYLE_LORA}" in fault
    whole.json("warm", "--allow-noncommercial")
    with pytest.raises(ModelMissing, match="allows no commercial work"):
        Store(whole.volume).files(STYLE_LORA)
    assert Store(whole.volume, allow_noncommercial=True).files(STYLE_LORA).name == STYLE_LORA
    willing = Builder(whole.hub, whole.volume, whole.home, {"LIVERY_ALLOW_NONCOMMERCIAL": "true"})
    willing.json("warm")


def test_a_new_revision_replaces_the_old_one(whole: Builder) -> None:
    old = place(whole.volume, LAMA)
    edit_lock(whole.volume, "big-lama", revision="0" * 40)
    with pytest.raises(ModelMissing, match="another revision of big-lama"):
        Store(whole.volume).files("big-lama")
    assert "status 404" in whole.json("warm", expect=1)["faults"][0]  # the Hub doesn't know that one
    assert old.exists()
    status = whole.json("status", expect=1)
    assert status["unused_bytes"] == old.stat().st_size


def test_kinds_do_not_mix(whole: Builder) -> None:
    manifest = json.loads((whole.volume / "manifest.json").read_text())
    (whole.volume / "manifest.json").write_text(json.dumps({**manifest, "kind": "tiny"}))
    assert "holds tiny weights, and kinds don't mix" in whole.json("warm", expect=1)["faults"][0]
    assert Store(whole.volume).kind == "tiny"


def test_options_that_can_t_be_used(builder: Builder) -> None:
    nowhere = Builder(builder.hub, Path(), builder.home)
    assert nowhere.start().wait() == 2
    blank = Builder(builder.hub, builder.volume, builder.home, {"LIVERY_VOLUME": ""}).run("warm")
    assert (blank.code, blank.err) == (2, "error: no volume: name its folder with --volume or LIVERY_VOLUME\n")
    assert builder.run("warm", "--jobs", "0").code == 2
    assert builder.run("frost").code == 2


def test_lines_for_people(whole: Builder) -> None:
    said = whole.run("status")
    lines = said.out.splitlines()
    assert len(lines) == len(BOTH) + 1
    assert lines[0].startswith("grounding-dino-base      ready ")
    assert lines[-1].startswith("kind: hub; free: ")
    assert said.err == ""


def test_a_lease_of_another_host(pinned: Builder) -> None:
    staging = pinned.volume / "staging"
    staging.mkdir()
    lease = staging / "builder.lease"
    lease.write_text(json.dumps({"owner": "f" * 32, "machine": "another"}))
    left = threading.Event()

    def beat() -> None:
        while not left.wait(0.1):
            os.utime(lease)

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        assert "another builder is at work" in pinned.json("warm", "--wait", "1", expect=1)["faults"][0]
    finally:
        left.set()
        beating.join()
    lease.write_text("half wri")  # its owner died while it was made; nobody can tell when
    assert "another builder is at work" in pinned.json("warm", "--wait", "1", expect=1)["faults"][0]
    lease.unlink()
    pinned.json("warm")
