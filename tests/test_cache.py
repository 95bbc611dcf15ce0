"""The result cache: what it gives back, what it is kept under, how long and how large; off, refresh and purge."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import time
import tracemalloc
import urllib.request
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import handler
from models.units import SEGMENTER
from pipeline.actions import illustrate, purge, result_name
from pipeline.art import Art
from pipeline.cache import PART_S, Cache, Dropped, EntryName
from pipeline.errors import SchemaError
from pipeline.finished import Finished, FinishedFile
from pipeline.handover import finished
from pipeline.paint import Painted
from pipeline.request import parse_request
from pipeline.run import begin, run
from pipeline.schema import JobOutput, PurgeOutput
from pipeline.settings import Settings
from pipeline.steps import Progress
from pipeline.types import Warning
from pipeline.worker import Worker
from tests.s3_server import KEY_ID, NAME, REGION, SECRET, Store
from tests.test_fields import BASE, CHANGES, PLATES

ROOT = Path(__file__).resolve().parent.parent
FRAME_PX = 96
DAY_S = 24 * 3600
HANG_S = 120
"""No process here may take longer; a guard against hangs, not a target."""


def picture(red: int = 200) -> bytes:
    """A red block on grey ground, 96 × 64 px, PNG."""
    rgb = np.full((64, 96, 3), (150, 180, 200), np.uint8)
    rgb[42:] = (110, 112, 115)
    rgb[24:48, 20:76] = (red, 38, 43)
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG")
    return file.getvalue()


PHOTO = picture()
PHOTO_SHA = hashlib.sha256(PHOTO).hexdigest()
OUTPUT: dict[str, Any] = {"formats": ["svg", "png", "dxf", "separations"], "png_widths": [64, 32], "width_mm": 90}
INKS = ["#14161A", {"hex": "#C8262B", "name": "Signalröt"}, "#96B4C8", "#6E7073"]
REQUEST: dict[str, Any] = {"palette": INKS, "output": OUTPUT}

A, B, C, D = (letter * 64 for letter in "abcd")


def request_of(photo: bytes = PHOTO, **changes: Any) -> dict[str, Any]:
    return {**REQUEST, "image": base64.b64encode(photo).decode("ascii"), **changes}


def serve(worker: Worker, photo: bytes = PHOTO, **changes: Any) -> JobOutput:
    return illustrate(parse_request(request_of(photo, **changes)), worker, frame_px=FRAME_PX)


def worker_of(folder: Path, **settings: Any) -> Worker:
    """A worker that has just started."""
    return Worker(Settings(cache=folder, **settings))


def picture_of(output: JobOutput) -> dict[str, Any]:
    """What a reply shows, without the job's own figures."""
    own = {"timings_ms", "cost_estimate_usd", "cached", "loads", "cold", "reinked", "vram_peak_mb", "gpu"}
    reply = output.model_dump(mode="json")
    return {**reply, "report": {name: value for name, value in reply["report"].items() if name not in own}}


def links(output: JobOutput) -> list[Any]:
    return [*output.png, *output.files]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@pytest.fixture(scope="module")
def result() -> Finished:
    return finished(run(parse_request(REQUEST), Worker(Settings()), data=PHOTO, frame_px=FRAME_PX))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cache(folder: Path) -> Cache:
    return Cache(folder, 1 << 30, DAY_S)


# ---- a folder of entries


def put(cache: Cache, photo: str, key: str, result: Finished) -> Warning | None:
    return cache.put(EntryName(photo, key, "result"), result.to_bytes())


def get(cache: Cache, photo: str, key: str) -> Finished | None:
    return cache.get(EntryName(photo, key, "result"), Finished.from_bytes)


def test_what_was_kept_comes_back_as_it_was(cache: Cache, folder: Path, result: Finished) -> None:
    assert get(cache, A, B) is None
    assert put(cache, A, B, result) is None
    assert len(result.files) > 4
    assert get(cache, A, B) == get(Cache(folder, 1 << 30, DAY_S), A, B) == result
    assert (get(cache, A, C), get(cache, C, B), get(cache, B, A)) == (None, None, None)
    assert names(folder) == [f"{A}-{B}.result"]


def test_an_entry_holds_neither_the_photo_nor_a_link(cache: Cache, folder: Path, result: Finished) -> None:
    put(cache, A, B, result)
    entry = (folder / f"{A}-{B}.result").read_bytes()
    for forbidden in (PHOTO, base64.b64encode(PHOTO), b"data:", b"https:", b"X-Amz"):
        assert forbidden not in entry
    assert (folder.stat().st_mode & 0o77, next(folder.iterdir()).stat().st_mode & 0o77) == (0, 0)


def damaged(data: bytes) -> list[bytes]:
    """An entry as it may be found: cut short, longer, empty, or with one byte changed, in each of its parts."""
    places = [0, 20, 60, data.index(b"\n"), data.index(b"\n") + 5, data.index(b"<svg"), len(data) - 1]
    places += random.Random(7).sample(range(len(data)), 20)
    changed = [data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :] for place in places]
    return [b"", b"\n", data[:-1], data[: len(data) // 2], data + b"x", b"\n" + data, *changed]


def resealed(path: Path, data: bytes, old: bytes, new: bytes) -> bytes:
    """An entry that was changed by someone who knows the format."""
    first, _, body = data.partition(b"\n")
    assert old in body
    body = body.replace(old, new, 1)
    return first[:-64] + hashlib.sha256(path.name.encode() + b"\n" + body).hexdigest().encode() + b"\n" + body


def test_a_damaged_entry_is_a_miss_and_is_removed(cache: Cache, folder: Path, result: Finished) -> None:
    put(cache, A, B, result)
    path = folder / f"{A}-{B}.result"
    good = path.read_bytes()
    (last,) = re.findall(rb'"bytes":\d+\}\],"report"', good)
    sealed = [
        resealed(path, good, last, b'"bytes":1}],"report"'),
        resealed(path, good, b'"svg_bytes":', b'"svg_bytes":1'),
        resealed(path, good, b'"svg_bytes":', b'"svg_bytes":-'),
        resealed(path, good, b'"report":', b'"reports":'),
        resealed(path, good, b'"format":"png"', b'"format":"gif"'),
        resealed(path, good, b"<svg", b"\xff\xfe\xfd\xfc"),
        resealed(path, good, b"{", b"["),
    ]
    for data in damaged(good) + sealed:
        path.write_bytes(data)
        assert get(cache, A, B) is None
        assert not path.exists()


def test_an_entry_under_another_s_name_is_none(cache: Cache, folder: Path, result: Finished) -> None:
    for photo, key in ((A, C), (C, B)):
        put(cache, A, B, result)
        (folder / f"{A}-{B}.result").rename(folder / f"{photo}-{key}.result")
        assert get(cache, photo, key) is None
    assert names(folder) == []


@pytest.mark.parametrize("age_s", [DAY_S + 60, -DAY_S - 60], ids=["old", "dated ahead"])
def test_nothing_is_read_past_its_time(cache: Cache, folder: Path, result: Finished, age_s: float) -> None:
    put(cache, A, B, result)
    path = folder / f"{A}-{B}.result"
    nearly_s, past_s = (time.time() - age for age in (age_s * 0.9, age_s))
    os.utime(path, (time.time(), nearly_s))
    assert get(cache, A, B) is not None
    assert path.stat().st_mtime == pytest.approx(nearly_s, abs=1), "being used must not make it younger"
    os.utime(path, (time.time(), past_s))
    assert get(cache, A, B) is None
    assert names(folder) == []


def until(true: Callable[[], bool], longest_s: float = 5.0) -> bool:
    end_s = time.monotonic() + longest_s
    while not true() and time.monotonic() < end_s:
        time.sleep(0.01)
    return true()


def test_what_is_past_its_time_goes_though_no_job_comes(folder: Path, result: Finished) -> None:
    cache = Cache(folder, 1 << 30, 0.5)
    put(cache, A, B, result)
    assert names(folder)
    assert until(lambda: names(folder) == [])
    assert until(lambda: not cache._alarm.is_set), "nothing is kept and yet something waits"
    put(cache, A, C, result)
    assert until(lambda: names(folder) == []), "the second entry has nobody who sweeps it"


def test_a_worker_that_starts_removes_what_is_past_its_time(folder: Path, result: Finished) -> None:
    put(Cache(folder, 1 << 30, DAY_S), A, B, result)
    os.utime(folder / f"{A}-{B}.result", (time.time(), time.time() - 2 * DAY_S))
    starting = Cache(folder, 1 << 30, DAY_S)
    assert until(lambda: names(folder) == [])
    del starting


def test_the_least_recently_used_leave_before_the_cache_is_too_large(folder: Path, result: Finished) -> None:
    put(Cache(folder, 1 << 30, DAY_S), A, A, result)
    one = (folder / f"{A}-{A}.result").stat().st_size
    cache = Cache(folder, int(3.5 * one), DAY_S)
    for key in (B, C):
        put(cache, A, key, result)
    assert get(cache, A, A) is not None
    assert put(cache, B, D, result) is None
    assert [get(cache, *name) is not None for name in ((A, A), (A, B), (A, C), (B, D))] == [True, False, True, True]
    for n in range(10):
        put(cache, C, hashlib.sha256(bytes([n])).hexdigest(), result)
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 3.5 * one


def test_what_is_larger_than_the_whole_cache_is_not_kept_and_that_is_said(folder: Path, result: Finished) -> None:
    cache = Cache(folder, 1000, DAY_S)
    said = put(cache, A, B, result)
    assert said is not None
    assert said.code == "cache_full"
    assert names(folder) == []


def test_other_files_in_the_folder_are_never_touched(folder: Path, result: Finished) -> None:
    folder.mkdir()
    others = [f"{A}.result", f"{A}-{B}.result.txt", f"{A[:-1]}-{B}.result", "photo.png", ".hidden.part"]
    for name in others:
        (folder / name).write_bytes(bytes(10_000))
        os.utime(folder / name, (0, 0))
    cache = Cache(folder, 1_000_000, DAY_S)
    put(cache, A, B, result)
    cache.sweep(999_999)
    cache.purge(A)
    assert names(folder) == sorted(others)


def test_only_a_half_written_entry_that_nobody_writes_any_more_is_removed(cache: Cache, folder: Path) -> None:
    folder.mkdir()
    for name, age_s in ((".livery-old1.part", PART_S + 60), (".livery-new1.part", PART_S - 60)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time(), time.time() - age_s))
    cache.sweep()
    assert names(folder) == [".livery-new1.part"]


def test_a_full_disk_is_a_warning_and_leaves_nothing_half(cache: Cache, folder: Path, result: Finished) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        said = put(cache, A, B, result)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert said is not None
    assert said.code == "cache_full"
    assert names(folder) == []
    assert put(cache, A, B, result) is None


def test_purge_drops_every_entry_of_one_photo_and_no_other(cache: Cache, folder: Path, result: Finished) -> None:
    for photo, key in ((A, B), (A, C), (B, A), (B, C)):
        put(cache, photo, key, result)
    bytes_of_a = sum(path.stat().st_size for path in folder.glob(f"{A}-*"))
    dropped = cache.purge(A)
    assert (dropped.results, dropped.art, dropped.bytes) == (2, 0, bytes_of_a)
    assert names(folder) == [f"{B}-{A}.result", f"{B}-{C}.result"]
    assert cache.purge(A) == cache.purge(D) == Dropped()


def hammer(folder: Path, result: Finished, seed: int, seconds: float, faults: Any) -> None:
    """What a worker may do, at random, in a folder that holds about three entries."""
    draw, cache = random.Random(seed), Cache(folder, 3 * 60_000, DAY_S)
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        photo, key = draw.choice((A, B)), draw.choice((A, B, C))
        marked = replace(result, svg=f"{photo}{key}")
        act = draw.randrange(8)
        if act < 4:
            found = get(cache, photo, key)
            if found is not None and found != marked:
                faults.put(f"read another's entry: {found.svg[:8]}")
        elif act < 6:
            if (said := put(cache, photo, key, marked)) is not None:
                faults.put(said.message)
        elif act < 7:
            cache.sweep(60_000)
        else:
            cache.purge(photo)


def test_workers_that_share_a_folder_never_read_half_an_entry_or_another_s(folder: Path, result: Finished) -> None:
    small = replace(result, files=(FinishedFile("livery-64.png", "png", bytes(50_000), width_px=64, height_px=43),))
    processes = multiprocessing.get_context("fork")
    faults = processes.Queue()
    workers = [processes.Process(target=hammer, args=(folder, small, seed, 1.5, faults)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(HANG_S)
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    assert faults.empty(), faults.get()


def test_a_worker_that_is_killed_as_it_writes_leaves_a_whole_entry_or_none(folder: Path, result: Finished) -> None:
    large = replace(result, files=(FinishedFile("livery-64.png", "png", bytes(8_000_000), width_px=64, height_px=43),))
    processes, half = multiprocessing.get_context("fork"), 0
    for n in range(8):
        writer = processes.Process(target=lambda: [put(Cache(folder, 1 << 30, DAY_S), A, B, large)] * 1)
        writer.start()
        until(lambda: names(folder) != [])
        time.sleep(n * 0.002)
        writer.kill()
        writer.join(HANG_S)
        assert get(Cache(folder, 1 << 30, DAY_S), A, B) in (None, large)
        half += any(name.endswith(".part") for name in names(folder))
        for path in folder.iterdir():
            path.unlink()
    assert half, "no process was killed while it wrote"


# ---- jobs


def test_the_same_job_is_made_once_also_across_a_restart(folder: Path) -> None:
    told: list[Progress] = []
    worker = worker_of(folder, price_usd_per_s=1.0)
    first, again = serve(worker), serve(worker)
    job = parse_request(request_of())
    restarted = illustrate(job, worker_of(folder), "other", frame_px=FRAME_PX, progress=told.append)
    assert [output.report.cached for output in (first, again, restarted)] == [False, True, True]
    assert picture_of(first) == picture_of(again) == picture_of(restarted)
    assert first.svg is not None
    assert first.report.output_sha256 == hashlib.sha256(first.svg.encode()).hexdigest()
    assert [step.phase for step in told] == ["decode"]
    spent = again.report.timings_ms
    assert (spent.enforce, spent.vectorize, spent.export) == (None, None, None)
    assert spent.decode is not None
    assert spent.decode <= spent.total < first.report.timings_ms.total
    assert again.report.cost_estimate_usd == pytest.approx(spent.total / 1000, abs=1e-6)
    assert restarted.report.cost_estimate_usd is None


def key_of(request: Mapping[str, Any], worker: Worker, frame_px: int = FRAME_PX, **revisions: str) -> EntryName:
    order = begin(parse_request(dict(request)), worker, frame_px=frame_px)
    return result_name(order, revisions, worker)


@pytest.mark.parametrize("field", sorted(set(CHANGES) - {"engine"}))
def test_every_field_that_changes_a_result_changes_its_name(field: str) -> None:
    one, other = (key_of({**BASE, **change}, Worker(Settings())) for change in CHANGES[field])
    assert one != other
    assert (one.photo != other.photo) == (field == "image")


def test_what_changes_no_result_does_not_change_its_name() -> None:
    worker, base = Worker(Settings()), request_of()
    name = key_of(base, worker)
    for change in ({"cache": "refresh"}, {"engine": "draft"}, {"palette": INKS}, {"detail": 0.5}):
        assert key_of({**base, **change}, worker) == name
    assert key_of({**base, "image": f"data:image/png;base64,{base['image']}"}, worker) == name
    assert key_of(base, Worker(Settings(price_usd_per_s=1, deadline_export_s=5, threads=2))) == name


def test_another_frame_revision_or_licence_is_another_result() -> None:
    worker, base = Worker(Settings()), request_of()
    found = [
        key_of(base, worker),
        key_of(base, worker, frame_px=FRAME_PX + 1),
        key_of(base, worker, sdxl="1"),
        key_of(base, worker, sdxl="2"),
        key_of(base, Worker(Settings(allow_noncommercial=True))),
    ]
    assert len(set(found)) == len(found)


def test_another_build_never_serves_what_this_one_made(tmp_path: Path) -> None:
    for package in ("pipeline", "models"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    program = """
from pathlib import Path
from pipeline.build import __file__ as place, build
print(place)
for changed in (None, None, "pipeline/tone.py", "models/lock.json"):
    if changed is not None:
        Path(changed).write_text(Path(changed).read_text()[1:] + " ")  # as long as before
    build.cache_clear()
    print(build())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=True,
    )
    place, first, unchanged, *changed = done.stdout.split()
    assert Path(place).is_relative_to(tmp_path)
    assert unchanged == first
    assert len({first, *changed}) == 3


def test_off_neither_reads_nor_writes(folder: Path) -> None:
    worker = worker_of(folder)
    made = serve(worker, cache="off")
    assert names(folder) == []
    serve(worker)
    kept = [(path.name, path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()]
    again = serve(worker, cache="off")
    assert (made.report.cached, again.report.cached) == (False, False)
    assert [(path.name, path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()] == kept


def test_refresh_makes_it_anew_and_keeps_that(folder: Path) -> None:
    worker = worker_of(folder)
    first = serve(worker)
    (path,) = folder.iterdir()
    old = path.stat()
    refreshed, after = serve(worker, cache="refresh"), serve(worker)
    assert (refreshed.report.cached, after.report.cached) == (False, True)
    assert path.stat().st_ino != old.st_ino
    assert refreshed.svg == after.svg == first.svg
    assert [reply.report.options.cache for reply in (first, refreshed, after)] == ["use", "refresh", "use"]


def test_each_job_says_for_itself_why_its_engine_serves(folder: Path) -> None:
    def reasons(output: JobOutput) -> list[str]:
        return [warning.message for warning in output.report.warnings if warning.code == "engine_auto"]

    auto, draft = serve(worker_of(folder)), serve(worker_of(folder), engine="draft")
    told = serve(worker_of(folder, auto_engine="draft"))
    assert [output.report.cached for output in (auto, draft, told)] == [False, True, True]
    assert reasons(auto) == ["auto took the draft engine: this worker has no model volume"]
    assert reasons(draft) == []
    assert reasons(told) == ["auto took the draft engine, as this worker is set to"]
    assert draft.report.options.engine == "draft"
    assert [w.code for w in told.report.warnings] == [w.code for w in auto.report.warnings]


@pytest.mark.parametrize(("sound", "stray"), [(b"<path d=", b"<script="), (b'"#C8262B"', b'"#C8262C"')])
def test_an_svg_that_fails_the_audit_is_made_anew(folder: Path, sound: bytes, stray: bytes) -> None:
    first = serve(worker_of(folder))
    (path,) = folder.iterdir()
    good = path.read_bytes()
    head, svg, rest = good.partition(b"<svg")
    path.write_bytes(resealed(path, head + svg + rest.replace(sound, stray, 1), b"<svg", b"<svg"))
    assert path.read_bytes() != good
    assert get(Cache(folder, 1 << 30, DAY_S), *path.stem.split("-")) is not None
    again = serve(worker_of(folder))
    assert (again.report.cached, again.svg) == (False, first.svg)
    assert serve(worker_of(folder)).report.cached


def test_a_cache_that_can_t_be_written_fails_no_job_and_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "missing" / "cache"):
        output = serve(worker_of(folder))
        assert output.svg is not None
        (said,) = (warning.message for warning in output.report.warnings if warning.code == "cache_failed")
        assert said == "the result was not kept: the cache's folder can't be written"
        assert str(tmp_path) not in output.model_dump_json()
    assert not (tmp_path / "missing").exists()


def test_links_are_made_anew_for_every_reply(folder: Path, store: Store) -> None:
    bucket = {"bucket_endpoint": f"http://127.0.0.1:{store.port}", "bucket_name": NAME, "bucket_region": REGION}
    worker = worker_of(folder, **bucket, bucket_key_id=KEY_ID, bucket_secret=SECRET)
    job = parse_request(request_of())
    first = illustrate(job, worker, "job-1", frame_px=FRAME_PX)
    store.clear()
    again = illustrate(job, worker, "job-2", frame_px=FRAME_PX)
    assert (first.report.cached, again.report.cached) == (False, True)
    old, new = links(first), links(again)
    assert [file.sha256 for file in old] == [file.sha256 for file in new]
    assert not {file.url for file in old} & {file.url for file in new}
    for file in new:
        with urllib.request.urlopen(file.url, timeout=20) as answer:
            assert hashlib.sha256(answer.read()).hexdigest() == file.sha256
    assert again.report.timings_ms.upload is not None
    assert b"X-Amz" not in b"".join(path.read_bytes() for path in folder.iterdir())


def test_a_volume_that_is_there_has_a_cache_of_its_own(tmp_path: Path) -> None:
    def place(**settings: Any) -> Path | None:
        cache = Worker(Settings(**settings)).cache
        return None if cache is None else cache.folder

    assert place() is None
    assert place(volume=tmp_path) == tmp_path / "cache"
    assert place(volume=tmp_path / "gone") is None
    assert place(volume=tmp_path, cache=tmp_path / "other") == tmp_path / "other"
    assert place(volume=tmp_path, cache_mb=0) is None
    assert place(cache=tmp_path, cache_mb=0) is None
    kept = Worker(Settings(cache=tmp_path, cache_mb=3, cache_s=60)).cache
    assert kept is not None
    assert (kept.most_bytes, kept.most_s) == (3 << 20, 60)


# ---- purge


def test_purge_drops_all_of_the_photo_whatever_the_options_were(folder: Path) -> None:
    worker, other = worker_of(folder), picture(40)
    for changes in ({}, {"detail": 0.1}, {"output": PLATES}):
        serve(worker, **changes)
    serve(worker, other)
    size_bytes = sum(path.stat().st_size for path in folder.glob(f"{PHOTO_SHA}-*"))
    dropped = purge(parse_request(request_of(action="purge", tone=0.9)), worker_of(folder))
    assert dropped == PurgeOutput(input_sha256=PHOTO_SHA, results=3, pictures=0, bytes=size_bytes)
    assert not serve(worker, cache="use").report.cached
    assert serve(worker, other).report.cached
    assert purge(parse_request(request_of(action="purge")), Worker(Settings())).results == 0


def test_purge_needs_the_photo() -> None:
    with pytest.raises(SchemaError, match=r"^image: is missing"):
        purge(parse_request({"action": "purge"}), Worker(Settings()))


def test_purge_that_fails_does_not_say_that_it_worked(folder: Path, result: Finished) -> None:
    folder.mkdir()
    (folder / f"{PHOTO_SHA}-{A}.result").mkdir()
    with pytest.raises((IsADirectoryError, PermissionError)):
        purge(parse_request(request_of(action="purge")), worker_of(folder))


def test_purge_through_the_handler(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVERY_CACHE", str(folder))
    handler.worker_for.cache_clear()
    job: dict[str, Any] = {"id": "job-1", "input": request_of(output={"formats": ["svg"]})}
    handler.handler(job)
    reply = handler.handler({"id": "job-2", "input": {**job["input"], "action": "purge"}})
    handler.worker_for.cache_clear()
    assert PurgeOutput.model_validate_json(json.dumps(reply)).results == 1
    assert names(folder) == []


# ---- the studio engine


@pytest.fixture
def studio_worker(tiny_volume: Path, folder: Path) -> Callable[[], Worker]:
    return lambda: worker_of(folder, volume=tiny_volume, allow_synthetic=True, threads=1)


STUDIO: dict[str, Any] = {
    "engine": "studio",
    "subject": {"box": [10, 10, 86, 56]},
    "sanitize": {"max_subject_share": 1},
    "style": {"allow_drift": True, "retries": 0, "steps": 2},
    "output": {"png_widths": [64], "upscale": False},
}
"""Allowed to drift and to take off anything: random networks find and draw noise."""


def test_a_worker_that_has_just_started_answers_without_a_model(studio_worker: Callable[[], Worker]) -> None:
    first, worker = serve(studio_worker(), **STUDIO), studio_worker()
    again = serve(worker, **STUDIO)
    assert (first.report.cached, again.report.cached) == (False, True)
    assert picture_of(first) == picture_of(again)
    assert first.report.loads
    assert again.report.loads == {}
    assert worker.studio is not None
    assert worker.studio._residents is None
    assert not serve(worker, **{**STUDIO, "seed": 7}).report.cached
    assert not serve(worker, **{**STUDIO, "mode": "faithful"}).report.cached


def test_a_worker_that_has_just_started_re_inks_what_another_painted(
    studio_worker: Callable[[], Worker], folder: Path
) -> None:
    other_inks = {**STUDIO, "palette": ["#101010", "#F0F0F0", "#C02020"]}
    serve(studio_worker(), **STUDIO)
    reinked, made = serve(studio_worker(), **other_inks), serve(studio_worker(), **other_inks, cache="refresh")
    assert (reinked.report.reinked, reinked.report.cached, reinked.report.loads) == (True, False, {})
    assert (made.report.reinked, made.report.loads == {}) == (False, False)
    assert [reinked.svg, reinked.report.models] == [made.svg, made.report.models]
    enlarged = serve(studio_worker(), **{**other_inks, "output": {"png_widths": [64], "upscale": True}})
    assert (enlarged.report.reinked, sorted(enlarged.report.loads)) == (True, ["upscaler"])
    assert not serve(studio_worker(), **{**other_inks, "seed": 7}).report.reinked
    assert serve(studio_worker(), picture(40), **other_inks).report.loads
    assert sorted({path.suffix for path in folder.iterdir()}) == [".art", ".result"]


def test_damaged_art_is_painted_anew(studio_worker: Callable[[], Worker], folder: Path) -> None:
    serve(studio_worker(), **STUDIO)
    (path,) = folder.glob("*.art")
    good = path.read_bytes()
    photo, key = path.stem.split("-")
    name = EntryName(photo, key, "art")
    cache = Cache(folder, 1 << 30, DAY_S)
    sealed = [
        resealed(path, good, b'"width_px":', b'"width_px":1'),
        resealed(path, good, b'"width_px":', b'"width_px":-'),
        resealed(path, good, b'"width_px":', b'"width":'),
        resealed(path, good, b'"attempts":[', b'"attempts":[1,'),
        resealed(path, good, b"\n", b""),
        resealed(path, good, good[-40:], b""),
        resealed(path, good, good[-1:], good[-1:] * 2),
    ]
    for data in (b"", good[:-1], good + b"x", *sealed):
        path.write_bytes(data)
        assert cache.get(name, Art.from_bytes) is None
        assert not path.exists()
    path.write_bytes(good)
    assert cache.get(name, Art.from_bytes) is not None
    path.write_bytes(good[:-1])
    again = serve(studio_worker(), **STUDIO, detail=0.1)
    assert (again.report.reinked, path.read_bytes()) == (False, good)


def test_art_that_unpacks_to_more_than_its_picture_is_refused_before_it_takes_the_memory() -> None:
    painted = Painted(np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), bool), None, ())
    head, _, _ = Art(painted, (), {}, ()).to_bytes().partition(b"\n")
    bomb = head + b"\n" + zlib.compress(bytes(300 << 20))
    tracemalloc.start()
    try:
        assert Art.from_bytes(bomb) is None
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_purge_drops_what_the_models_made_as_well(studio_worker: Callable[[], Worker]) -> None:
    worker, other = studio_worker(), picture(40)
    serve(worker, other, **STUDIO)
    serve(worker, **STUDIO)
    assert serve(worker, **{**STUDIO, "detail": 0.1}).report.reinked
    assert worker.studio is not None
    segmenter = worker.studio.residents()._loaded[SEGMENTER.name].model
    assert segmenter._last is not None, "the segmenter keeps no features, so there is nothing to forget"
    dropped = purge(parse_request(request_of(action="purge")), worker)
    assert (dropped.results, dropped.pictures, segmenter._last) == (2, 2, None), "in memory and in the folder"
    assert not serve(worker, **STUDIO).report.reinked
    assert serve(worker, other, **{**STUDIO, "detail": 0.1}).report.reinked


def test_what_memory_made_worse_is_not_kept(studio_worker: Callable[[], Worker], folder: Path) -> None:
    torch = pytest.importorskip("torch")
    worker = studio_worker()
    failed: list[Any] = []

    def fail_once(module: Any, _: Any) -> None:
        if isinstance(module, torch.nn.Conv2d) and not failed:
            failed.append(module)
            raise torch.OutOfMemoryError("CUDA out of memory")

    handle = torch.nn.modules.module.register_module_forward_pre_hook(fail_once)
    try:
        short = serve(worker, **STUDIO)
    finally:
        handle.remove()
    assert "memory_freed" in [warning.code for warning in short.report.warnings]
    assert names(folder) == []
    assert not serve(worker, **STUDIO).report.cached
    assert serve(worker, **STUDIO).report.cached
