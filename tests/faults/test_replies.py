"""What a reply and the log hold: nothing that gives the worker away, and no more than can be posted."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import re
import socket
import subprocess
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import handler
import pipeline.export.svg
import pipeline.picture
from pipeline.errors import UploadFailed
from pipeline.finished import Finished
from pipeline.handover import finished, job_output
from pipeline.request import parse_request
from pipeline.run import run
from pipeline.settings import Settings
from pipeline.trace import livery
from pipeline.worker import Worker
from tests.faults.conftest import Figure
from tests.s3_server import Store
from tests.serving import ROOT
from tests.test_handler import PICTURE, serve
from tests.test_handover import settings_of
from tests.test_logs import PICTURE as GRAINY
from tests.test_run import INKS
from tests.test_run import PICTURE as PHOTO

HANG_S = 240
LARGE_BYTES = 25_000_000
CANARY = "c4n4ry"


# ---- error replies


@pytest.fixture
def canaries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Plants secrets, and lists what no reply may hold."""
    for name in ("AWS_SECRET_ACCESS_KEY", "BUCKET_SECRET_ACCESS_KEY", "HF_TOKEN", "RUNPOD_AI_API_KEY", "HOSTNAME"):
        monkeypatch.setenv(name, f"{CANARY}-{name}")
    monkeypatch.setenv("BUCKET_ENDPOINT_URL", f"https://{CANARY}.test")
    monkeypatch.setenv("BUCKET_ACCESS_KEY_ID", f"{CANARY}-id")
    monkeypatch.setenv("LIVERY_BUCKET_NAME", CANARY)
    monkeypatch.setenv("LIVERY_BUCKET_REGION", "auto")
    monkeypatch.setenv("LIVERY_VOLUME", f"/{CANARY}/volume")
    folder = tmp_path / CANARY
    folder.mkdir()
    monkeypatch.chdir(folder)
    return [CANARY, str(ROOT), str(tmp_path), sys.prefix, socket.gethostname(), "Traceback", 'File "', "site-packages"]


BAD_REQUESTS: list[Any] = [
    None,
    [],
    "x",
    {},
    {"imge": PICTURE},
    {"image": ""},
    {"image": "!" * 99},
    {"image": base64.b64encode(b"GIF89a" + bytes(99)).decode()},
    {"image": PICTURE[:-100]},
    {"image": "data:text/html;base64," + PICTURE},
    {"image": PICTURE, "palette": ["#GG0011", "#000000"]},
    {"image": PICTURE, "palette": {"extract": 1}},
    {"image": PICTURE, "palette": "https://palettes.test/000000-ffffff"},
    {"image": PICTURE, "engine": "studio"},
    {"image": PICTURE, "background": "#123456"},
    {"image": PICTURE, "subject": {"point": [999, 5]}},
    {"image": PICTURE, "sanitize": {"regions": [[99, 0, 120, 5]]}},
    {"image": PICTURE, "output": {"trap_mm": 1}},
    {"image": PICTURE, "output": {"png_widths": [5000]}},
    {"image_url": "https://127.0.0.1/car.jpg"},
    {"image_url": "file:///etc/passwd"},
    {"action": "purge"},
    {"action": "ping", "seed": 1},
    {"\ud800": 1},
    {"image": "\ud800"},
    {"detail": float("nan")},
]


def assert_clean_error(reply: dict[str, Any], canaries: list[str]) -> None:
    assert set(reply) == {"error", "code", "field", "retryable"}
    assert re.fullmatch(rf"{reply['code']}: [^\n]+", reply["error"])
    text = json.dumps(reply)
    assert [canary for canary in canaries if canary in text] == []


def test_no_error_reply_gives_anything_away(canaries: list[str], figure: Figure) -> None:
    for request in BAD_REQUESTS:
        reply = serve(request)
        assert_clean_error(reply, canaries)
        assert reply["field"]
        assert reply["retryable"] is False
    figure("error leakage, secrets", f"{len(BAD_REQUESTS)} error replies, {len(canaries)} canaries: 0 hits", "0 hits")


def break_the_tracer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(f"/{CANARY}/python")

    monkeypatch.setattr(livery, "trace", fail)


def break_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVERY_THREADS", CANARY)


def break_a_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(13, "Permission denied", f"/{CANARY}/weights")

    monkeypatch.setattr(pipeline.picture, "sanitize", fail)


def break_the_grammar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.export.svg, "SVG_NS", f"https://{CANARY}.test")


def exhaust_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    def descend(*_: object) -> None:
        descend()

    monkeypatch.setattr(pipeline.picture, "sanitize", descend)


@pytest.mark.parametrize(
    "defect", [break_the_tracer, break_the_settings, break_a_phase, break_the_grammar, exhaust_the_stack]
)
def test_a_defect_of_ours_is_a_constant_sentence_and_the_next_job_runs(
    defect: Any, canaries: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        defect(patch)
        first, second = serve({"image": PICTURE}, "job-7"), serve({"image": PICTURE}, "job-8")
    assert first == second
    assert_clean_error(first, canaries)
    assert first["code"] == "InternalError"
    assert any("job-7" in record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR)
    assert serve({"image": PICTURE, "output": {"formats": ["svg"]}})["svg"]


def test_memory_that_runs_out_anywhere_is_typed(monkeypatch: pytest.MonkeyPatch, canaries: list[str]) -> None:
    def starve(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("pipeline.request.parse_request", starve)
    reply = serve({"image": PICTURE})
    assert_clean_error(reply, canaries)
    assert (reply["code"], reply["retryable"]) == ("OutOfMemory", True)


# ---- replies and logs

SERVE = """
import json, os, sys
import handler
from pipeline.logs import start_logging
from pipeline.settings import load_settings
from pipeline.trace import livery

def fail(*_, **__):  # a defect that quotes all it can lay hands on
    try:
        open(os.getcwd() + "/weights")
    except OSError as fault:
        raise RuntimeError(f"{jobs[0]['image']} {os.environ['HF_TOKEN']} https://s3.test/a?X-Amz-x=c4n4ry") from fault

start_logging(load_settings())
jobs = json.load(sys.stdin)
for n, request in enumerate(jobs):
    if request == "break":
        livery.trace = fail
        continue
    print(json.dumps(handler.handler({"id": f"job-{n}", "input": request})))
"""


def canary_jobs(address: str) -> list[Any]:
    """Good jobs and bad ones, each with a canary in what it sends."""
    named = {"image": GRAINY, "palette": [{"hex": "#6E7073", "name": CANARY}, "#C8262B", "#96B4C8"]}
    hidden = base64.b64encode(CANARY.encode() * 99).decode()
    return [
        named,
        named | {"action": "dry_run"},
        named | {"output": {"formats": ["png", "pdf", "dxf"], "png_widths": [64], "width_mm": 90}},
        named | {"engine": "studio"},
        named | {"detail": 7},
        named | {CANARY: 1},
        named | {"style": {"prompt": CANARY}},
        {"image": GRAINY[:-90]},
        {"image": hidden},
        {"image": GRAINY + CANARY},
        {"image_url": f"https://127.0.0.1/{CANARY}.png?X-Amz-Signature={CANARY}"},
        {"image_url": f"https://{CANARY}.invalid/a.png?X-Amz-Signature={CANARY}"},
        {"image_url": f"{address}/{CANARY}/a.png?X-Amz-Signature={CANARY}"},
        {"image_url": f"s3://{CANARY}-bucket/{CANARY}.png"},
        {"palette": CANARY, "image": GRAINY},
        {"action": "ping"},
        {"action": "purge", "image": GRAINY},
        "break",
        named | {"seed": 2},
    ]


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_canary_sings(store: Store, tmp_path: Path, log_format: str, figure: Figure) -> None:
    folder = tmp_path / CANARY
    folder.mkdir()
    secrets = {name: f"{CANARY}-{name}" for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "RUNPOD_AI_API_KEY")}
    known = {name: value for name, value in os.environ.items() if not name.startswith("LIVERY_")}
    bucket = store.bucket()
    done = subprocess.run(
        [sys.executable, "-c", SERVE],
        input=json.dumps(canary_jobs(bucket.endpoint)),
        cwd=folder,
        env={
            **known,
            **secrets,
            "PYTHONPATH": str(ROOT),
            "HOSTNAME": f"{CANARY}-host",
            "LIVERY_LOG_FORMAT": log_format,
            "LIVERY_LOG_LEVEL": "debug",
            "LIVERY_VOLUME": str(folder),
            "LIVERY_BUCKET_ENDPOINT": bucket.endpoint,
            "LIVERY_BUCKET_NAME": bucket.name,
            "LIVERY_BUCKET_REGION": bucket.region,
            "LIVERY_BUCKET_KEY_ID": bucket.key_id.get_secret_value(),
            "LIVERY_BUCKET_SECRET": bucket.secret.get_secret_value(),
        },
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    codes = [reply.get("code") for reply in replies]
    assert codes[:3] == [None, None, None]
    assert (codes[-1], "FetchError" in codes, "SchemaError" in codes) == ("InternalError", True, True)
    lines = done.stderr.splitlines()
    assert len([line for line in lines if "in " in line and "job-" in line]) >= len(replies)
    if log_format == "json":
        told = [json.loads(line) for line in lines]
        jobs = [line["job"] for line in told if "outcome" in line]
        assert jobs == [f"job-{n}" for n, request in enumerate(canary_jobs("")) if request != "break"]
        (defect,) = (line for line in told if "exceptions" in line)
        assert (defect["job"], defect["exceptions"][0]["type"]) == (jobs[-1], "RuntimeError")
    machine = [str(ROOT), str(tmp_path), sys.prefix, socket.gethostname(), "Traceback", "site-packages"]
    photo = [GRAINY[at : at + 40] for at in range(0, len(GRAINY) - 40, 40)]
    keys = [bucket.key_id.get_secret_value(), bucket.secret.get_secret_value()]
    assert sung(done.stderr, [CANARY, "X-Amz", *keys, *machine, *photo]) == []
    for reply in replies:
        hidden = [keys[1], f"{CANARY}-host", *secrets.values(), *machine]
        assert sung(json.dumps(reply), [*hidden, *(photo if "error" in reply else ())]) == []
    figure("error leakage, secrets", f"{log_format}: {len(replies)} replies, {len(lines)} log lines: 0 hits", "0 hits")


def sung(text: str, canaries: list[str]) -> list[str]:
    return [canary for canary in canaries if canary in text]


# ---- too large


@pytest.fixture(scope="module")
def vast() -> Finished:
    """A result whose SVG takes 25 MB."""
    result = finished(run(parse_request({"palette": INKS}), Worker(Settings()), data=PHOTO, frame_px=96))
    body, _, end = result.svg.rpartition("</svg>")
    return replace(result, svg=body + " " * (LARGE_BYTES - len(result.svg)) + "</svg>" + end)


def test_an_svg_of_25_mb_is_uploaded_or_a_typed_error(vast: Finished, store: Store, figure: Figure) -> None:
    output = job_output(vast, settings_of(store), "job-1")
    assert output.svg is None
    (link,) = (file for file in output.files if file.format == "svg")
    assert link.bytes == LARGE_BYTES
    with urllib.request.urlopen(link.url, timeout=60) as answer:
        data = answer.read()
    assert data == vast.svg.encode()
    assert hashlib.sha256(data).hexdigest() == link.sha256
    handler.postable(output.model_dump(mode="json"), settings_of(store))
    with pytest.raises(UploadFailed, match=r"the reply would take 25\.\d MB") as caught:
        handler.postable(job_output(vast, Settings()).model_dump(mode="json"), Settings())
    assert "LIVERY_MAX_REPLY_BYTES" in caught.value.message
    figure("reply too large", "25 MB SVG: a link with a bucket, UploadFailed without", "uploaded, or a typed error")


def test_a_reply_too_large_names_what_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVERY_MAX_REPLY_BYTES", "65536")
    reply = serve({"image": PICTURE, "output": {"png_widths": [4096, 4095, 4094, 4093]}})
    assert reply["code"] == "UploadFailed"
    assert "output.png_widths" in reply["error"]
    assert "LIVERY_MAX_REPLY_BYTES" in reply["error"]
