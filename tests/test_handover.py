"""What a reply holds: data: URLs without a bucket, links into it with one, and a large SVG among them."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import urllib.request
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import Cancelled, UploadFailed
from pipeline.finished import Finished
from pipeline.handover import finished, job_output
from pipeline.request import parse_request
from pipeline.run import run
from pipeline.schema import JobOutput
from pipeline.settings import Settings
from pipeline.worker import Worker
from tests.s3_server import KEY_ID, NAME, REGION, SECRET, Store

REQUEST = {
    "palette": ["#14161A", "#C8262B", "#F2F4F5"],
    "output": {"formats": ["svg", "png", "dxf"], "png_widths": [64, 128]},
}


@pytest.fixture(scope="module")
def result() -> Finished:
    rgb = np.full((64, 96, 3), 240, np.uint8)
    rgb[20:50, 20:76] = (200, 38, 43)
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG")
    return finished(run(parse_request(REQUEST), Worker(Settings()), data=file.getvalue(), frame_px=96))


def settings_of(store: Store, **more: Any) -> Settings:
    return Settings.model_validate(
        {
            "bucket_endpoint": f"http://127.0.0.1:{store.port}",
            "bucket_name": NAME,
            "bucket_region": REGION,
            "bucket_key_id": KEY_ID,
            "bucket_secret": SECRET,
            **more,
        }
    )


def links(output: JobOutput) -> list[Any]:
    return [*output.png, *output.files]


def test_without_a_bucket_the_reply_carries_the_files(result: Finished) -> None:
    output = job_output(result, Settings())
    assert output.svg == result.svg
    assert [file.format for file in output.files] == ["dxf"]
    for link in links(output):
        head, data = link.url.split(",")
        assert head in ("data:image/png;base64", "data:image/vnd.dxf;base64")
        assert hashlib.sha256(base64.b64decode(data)).hexdigest() == link.sha256
        assert link.expires_at is None
    assert output.report.timings_ms.upload is None


def test_with_a_bucket_it_carries_links_that_give_the_files(result: Finished, store: Store) -> None:
    output = job_output(result, settings_of(store), "job-1")
    assert output.svg == result.svg
    types = []
    for link in links(output):
        assert link.expires_at is not None
        with urllib.request.urlopen(link.url, timeout=20) as answer:
            data = answer.read()
            types.append(answer.headers["Content-Type"])
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (link.sha256, link.bytes)
    assert types == ["image/png", "image/png", "image/vnd.dxf"]
    spent = output.report.timings_ms
    assert spent.upload is not None
    assert spent.total >= result.report.timings_ms.total + spent.upload - 0.1


def test_an_svg_that_is_too_large_for_the_reply_goes_to_the_bucket(result: Finished, store: Store) -> None:
    small = settings_of(store, max_reply_bytes=65_536)
    output = job_output(result, small, "job-2")
    assert output.svg is None
    svg = output.files[-1]
    assert svg.format == "svg"
    with urllib.request.urlopen(svg.url, timeout=20) as answer:
        assert answer.read().decode() == result.svg
        assert answer.headers["Content-Type"] == "image/svg+xml"
    assert len(json.dumps(output.model_dump(mode="json"))) < 65_536


def test_an_svg_that_nobody_asked_for_is_not_sent_anywhere(result: Finished, store: Store) -> None:
    output = result.report.options.output.model_copy(update={"formats": ("png",)})
    options = result.report.options.model_copy(update={"output": output})
    pngs = tuple(file for file in result.files if file.format == "png")
    pngs_only = Finished(result.svg, pngs, result.report.model_copy(update={"options": options}))
    reply = job_output(pngs_only, settings_of(store, max_reply_bytes=65_536), "job-3")
    assert (reply.svg, reply.files) == (None, ())
    assert len(store.keys()) == 2


def test_the_same_job_again_writes_the_same_objects(result: Finished, store: Store) -> None:
    first, again = (job_output(result, settings_of(store), "job-4") for _ in range(2))
    assert len(store.keys()) == len(links(first)) == len(links(again))
    job_output(result, settings_of(store), "job-5")
    assert len(store.keys()) == 2 * len(links(first))


def test_a_bucket_that_refuses_fails_the_job_and_leaves_nothing(result: Finished, store: Store) -> None:
    store.switch(puts=((403, "AccessDenied"),) * 8)
    with pytest.raises(UploadFailed) as caught:
        job_output(result, settings_of(store), "job-6")
    assert SECRET not in str(caught.value)
    assert KEY_ID not in str(caught.value)
    assert store.keys() == []


def test_a_cancelled_job_leaves_nothing(result: Finished, store: Store) -> None:
    asked = [0]

    def cancelled() -> bool:
        asked[0] += 1
        return asked[0] > 4

    with pytest.raises(Cancelled):
        job_output(result, settings_of(store), "job-7", cancelled=cancelled)
    assert store.keys() == []
