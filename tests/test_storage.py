"""Uploading against a real S3 server in a process of its own, which checks signatures, expiry and digests."""

from __future__ import annotations

import hashlib
import logging
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from email.message import Message
from pathlib import Path
from typing import get_args

import pytest
from pydantic import SecretStr

from pipeline import storage
from pipeline.errors import Cancelled, DeadlineExceeded, LiveryError, UploadFailed
from pipeline.schema import Format
from pipeline.settings import Bucket
from pipeline.storage import ATTEMPTS, MEDIA_TYPES, Outgoing, Stored, upload
from tests.s3_server import KEY_ID, SECRET, Shaky, Store

ROOT = Path(__file__).resolve().parent.parent
DRAW = random.Random(5)
PNG = Outgoing("livery-2048.png", "image/png", DRAW.randbytes(300_000))
SVG = Outgoing("livery.svg", "image/svg+xml", b"<svg/>" * 9)
PLATE = Outgoing("livery-Signalröt.pdf", "application/pdf", DRAW.randbytes(20_000))
FILES = (PNG, SVG, PLATE)


def read(url: str) -> tuple[bytes, Message]:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.read(), answer.headers


def refused_status(url: str) -> int:
    with pytest.raises(urllib.error.HTTPError) as caught:
        read(url)
    caught.value.close()
    return caught.value.code


def after(calls: int, stop: LiveryError) -> Callable[[], None]:
    """A check that raises from its `calls`-th call on."""
    left = [calls]

    def check() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise stop

    return check


def shaky_bucket(store: Store, shaky: Shaky) -> Bucket:
    return store.bucket(endpoint=f"http://127.0.0.1:{shaky.port}")


# ---- what comes back


def test_a_link_gives_the_file_back_with_its_type_name_and_length(store: Store) -> None:
    stored = upload(FILES, "job-1", store.bucket())
    assert len(stored) == len(FILES)
    for file, one in zip(FILES, stored, strict=True):
        data, headers = read(one.url)
        assert data == file.data
        assert (one.bytes, one.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert headers["Content-Type"] == file.media_type
        assert headers["Content-Length"] == str(len(data))
        assert headers["Cache-Control"] == "private"
        assert headers["Content-Disposition"].startswith('inline; filename="livery')
    assert headers["Content-Disposition"].endswith("; filename*=UTF-8''livery-Signalr%C3%B6t.pdf")
    puts = store.requests("PUT")
    assert len(puts) == len(FILES)
    assert {"content-md5", "x-amz-content-sha256", "content-length"} <= set(puts[0]["headers"])


def test_every_format_has_its_media_type() -> None:
    assert set(MEDIA_TYPES) == set(get_args(Format))
    assert all(re.fullmatch(r"(image|application)/[a-z.+]+", media_type) for media_type in MEDIA_TYPES.values())


def test_a_link_says_when_it_expires_and_is_refused_from_then_on(store: Store) -> None:
    (stored,) = upload([SVG], "job-1", store.bucket(expiry_s=2))
    expires = datetime.strptime(stored.expires_at, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert 0 < (expires - datetime.now(UTC)).total_seconds() <= 2
    assert read(stored.url)[0] == SVG.data
    time.sleep((expires - datetime.now(UTC)).total_seconds() + 0.1)
    assert refused_status(stored.url) == 403


def test_a_link_reads_its_own_object_only_and_can_t_be_prolonged(store: Store) -> None:
    one, other = upload([SVG, PNG], "job-1", store.bucket())
    assert refused_status(one.url.replace(one.key, other.key)) == 403
    assert refused_status(one.url.replace("X-Amz-Expires=3600", "X-Amz-Expires=36000")) == 403
    assert refused_status(one.url.partition("?")[0]) == 403


def test_the_same_job_and_content_are_the_same_objects_again(store: Store) -> None:
    bucket = store.bucket()
    first, again = upload(FILES, "job-1", bucket), upload(FILES, "job-1", bucket)
    assert [one.key for one in first] == [one.key for one in again]
    assert len(store.keys()) == len(FILES)


def test_keys_can_t_be_guessed_from_what_callers_know(store: Store) -> None:
    def key(job_id: str, bucket: Bucket, data: bytes = SVG.data) -> str:
        return upload([replace(SVG, data=data)], job_id, bucket)[0].key

    bucket = store.bucket()
    keys = {key("job-1", bucket), key("job-2", bucket), key("job-1", bucket, b"<svg>")}
    folders = {one.split("/")[1] for one in keys}
    assert (len(keys), len(folders)) == (3, 2)
    assert all(re.fullmatch(r"livery/[0-9a-f]{32}/[0-9a-f]{16}-livery\.svg", one) for one in keys)
    other = replace(bucket, secret=SecretStr("another"))
    assert storage._key(other, "job-1", SVG).split("/")[1] not in folders


@pytest.mark.parametrize(
    "name", ["../../x.png", "a\r\nX-Evil: 1.png", '"; filename="b.exe', "車.png", "%2e%2e", "\ud800.png"]
)
def test_any_name_makes_a_plain_key_and_one_header(name: str, store: Store) -> None:
    (stored,) = upload([replace(PNG, name=name)], "job \ud800 1", store.bucket())
    assert stored.key.count("/") == 2
    _, headers = read(stored.url)
    assert re.fullmatch(r"inline; filename=\"[ -~]*\"(; filename\*=UTF-8''[\w.%~-]+)?", headers["Content-Disposition"])
    assert headers["X-Evil"] is None


def test_nothing_to_upload_asks_nothing(store: Store) -> None:
    assert upload([], "job-1", store.bucket()) == ()
    assert store.requests("PUT") == []


def test_a_large_file_goes_in_one_request(store: Store) -> None:
    data = DRAW.randbytes(1 << 20) * 25
    began_s = time.perf_counter()
    (stored,) = upload([Outgoing("livery.svg", "image/svg+xml", data)], "job-1", store.bucket())
    spent_s = time.perf_counter() - began_s
    assert read(stored.url)[0] == data
    assert [(put["length"], put["path"].count("?")) for put in store.requests("PUT")] == [(25 << 20, 0)]
    print(f"25 MiB uploaded in {spent_s:.2f} s")


# ---- what goes wrong on the way


def test_failures_of_the_store_are_tried_again(store: Store) -> None:
    store.switch(puts=((503, "SlowDown"), (500, "InternalError"), (400, "RequestTimeout")))
    (stored,) = upload([PNG], "job-1", store.bucket())
    assert read(stored.url)[0] == PNG.data
    assert len(store.requests("PUT")) == ATTEMPTS == 4


def test_a_body_that_was_changed_on_the_way_is_sent_again(store: Store) -> None:
    store.switch(puts=((400, "BadDigest"),))
    (stored,) = upload([PNG], "job-1", store.bucket())
    assert read(stored.url)[0] == PNG.data


@pytest.mark.parametrize("plan", [(0,), (200,), (100_000,), (-1,), (0, 100_000, -1)])
def test_broken_connections_are_tried_again(plan: tuple[int, ...], store: Store) -> None:
    shaky = Shaky(store.port, plan)
    (stored,) = upload([PNG], "job-1", shaky_bucket(store, shaky))
    assert read(stored.url)[0] == PNG.data
    assert store.keys() == [stored.key]
    assert shaky.connections >= len(plan) + 1
    shaky.close()


def test_a_store_that_keeps_failing_is_given_up_and_nothing_is_left(store: Store) -> None:
    store.switch(puts=((503, "SlowDown"),) * ATTEMPTS)
    began_s = time.perf_counter()
    with pytest.raises(UploadFailed, match="the bucket's store failed") as caught:
        upload([SVG], "job-1", store.bucket())
    assert time.perf_counter() - began_s < 6
    assert caught.value.retryable
    assert len(store.requests("PUT")) == ATTEMPTS
    assert store.keys() == []


def test_connections_that_keep_breaking_leave_no_part_of_an_object(store: Store) -> None:
    shaky = Shaky(store.port, (100_000,) * ATTEMPTS)
    with pytest.raises(UploadFailed, match="LIVERY_BUCKET_ENDPOINT"):
        upload([PNG], "job-1", shaky_bucket(store, shaky))
    shaky.close()
    assert store.keys() == []


def test_a_store_that_does_not_answer_is_given_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "ANSWER_S", 0.3)
    store.switch(wait_s=1.5)
    began_s = time.perf_counter()
    with pytest.raises(UploadFailed, match="could not be reached"):
        upload([SVG], "job-1", store.bucket())
    assert time.perf_counter() - began_s < 9
    time.sleep(2)


def test_an_upload_that_fails_takes_back_what_went_before(store: Store) -> None:
    spoilt: list[bool] = []

    def check() -> None:
        if len(store.keys()) == 2 and not spoilt:
            spoilt.append(True)
            store.switch(puts=((403, "AccessDenied"),))

    with pytest.raises(UploadFailed, match="may not write"):
        upload(FILES, "job-1", store.bucket(), check)
    assert spoilt
    assert store.keys() == []
    assert len(store.requests("DELETE")) == 3


def test_deleting_is_tried_twice_and_the_first_error_stays_the_error(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.switch(puts=((403, "AccessDenied"),), deletes=((500, "InternalError"),))
    with pytest.raises(UploadFailed, match="may not write"):
        upload([SVG], "job-1", store.bucket())
    assert len(store.requests("DELETE")) == 2
    assert caplog.records == []
    store.switch(puts=((403, "AccessDenied"),), deletes=((403, "AccessDenied"),) * 2)
    with pytest.raises(UploadFailed, match="may not write"):
        upload([SVG], "job-1", store.bucket())
    assert [record.getMessage() for record in caplog.records] == [
        "upload: 1 objects of an unfinished job could not be deleted"
    ]


REFUSALS: dict[str, tuple[dict[str, object], str]] = {
    "wrong secret": ({"secret": SecretStr("c4n4ry-wrong")}, "LIVERY_BUCKET_KEY_ID and LIVERY_BUCKET_SECRET"),
    "wrong key id": ({"key_id": SecretStr("c4n4ry-wrong")}, "LIVERY_BUCKET_KEY_ID and LIVERY_BUCKET_SECRET"),
    "wrong region": ({"region": "us-east-1"}, "LIVERY_BUCKET_REGION"),
    "no such bucket": ({"name": "c4n4ry-other"}, "LIVERY_BUCKET_NAME"),
    "an endpoint that is none": ({"endpoint": "http://c4n4ry_c4n4ry..test"}, "LIVERY_BUCKET_ENDPOINT"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_names_the_setting_and_is_not_tried_again(case: str, store: Store) -> None:
    changed, setting = REFUSALS[case]
    store.switch()
    with pytest.raises(UploadFailed, match=setting) as caught:
        upload([SVG], "job-1", store.bucket(**changed))
    assert len(store.requests("PUT")) <= 1
    assert "c4n4ry" not in str(caught.value).lower()


def test_a_store_that_is_not_there_is_a_failure_that_names_the_endpoint(store: Store) -> None:
    shaky = Shaky(store.port)
    shaky.close()
    with pytest.raises(UploadFailed, match="LIVERY_BUCKET_ENDPOINT"):
        upload([SVG], "job-1", shaky_bucket(store, shaky))


# ---- cancelling


def calls_of_a_whole_upload(store: Store) -> int:
    calls = [0]

    def count() -> None:
        calls[0] += 1

    upload(FILES, "job-0", store.bucket(), count)
    store.clear()
    return calls[0]


def test_a_job_cancelled_at_any_of_ten_points_leaves_no_object(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    whole = calls_of_a_whole_upload(store)
    assert whole > 20
    slowest_s = 0.0
    for point in range(10):
        began_s = time.perf_counter()
        with pytest.raises(Cancelled):
            upload(FILES, "job-1", store.bucket(), after(point * (whole - 1) // 9, Cancelled("the job was cancelled")))
        slowest_s = max(slowest_s, time.perf_counter() - began_s)
        assert store.keys() == []
    assert caplog.records == []
    assert slowest_s < 1
    print(f"cancelled at 10 of {whole} points, at most {slowest_s * 1000:.0f} ms")


def test_a_job_past_its_deadline_is_that_error(store: Store) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        upload(FILES, "job-1", store.bucket(), after(20, DeadlineExceeded("export ran past its time", phase="export")))
    assert caught.value.phase == "export"
    assert store.keys() == []


def test_a_cancelled_job_does_not_wait_for_the_next_attempt(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "FIRST_PAUSE_S", 60.0)
    store.switch(puts=((503, "SlowDown"),))
    began_s = time.perf_counter()

    def check() -> None:
        if time.perf_counter() - began_s > 0.5:
            raise Cancelled("the job was cancelled")

    with pytest.raises(Cancelled):
        upload([SVG], "job-1", store.bucket(), check)
    assert time.perf_counter() - began_s < 1.5
    assert store.keys() == []


JOB = """
    import signal, sys
    from pathlib import Path
    from pydantic import SecretStr
    from pipeline.errors import Cancelled
    from pipeline.settings import Bucket
    from pipeline.storage import Outgoing, upload

    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(True))

    def check():
        if told:
            raise Cancelled("the job was cancelled")

    key_id, secret, endpoint, name, region = sys.argv[1:]
    bucket = Bucket(endpoint, name, region, "livery", SecretStr(key_id), SecretStr(secret), 60)
    files = [Outgoing(f"{n}.png", "image/png", bytes([n]) * 400_000) for n in range(4)]
    print("uploading", flush=True)
    try:
        upload(files, "job-1", bucket, check)
    except Cancelled:
        print("cancelled", flush=True)
        sys.exit(3)
    print("finished", flush=True)
"""


def test_sigterm_at_ten_moments_leaves_all_objects_or_none(store: Store) -> None:
    shaky = Shaky(store.port, bytes_per_s=2_000_000)  # about a second for the four files
    bucket = shaky_bucket(store, shaky)
    arguments = [KEY_ID, SECRET, bucket.endpoint, bucket.name, bucket.region]
    ends, slowest_s = [], 0.0
    for moment in range(10):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(JOB), *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "uploading\n"
        time.sleep(0.1 + 0.12 * moment)
        process.send_signal(signal.SIGTERM)
        began_s = time.perf_counter()
        said, _ = process.communicate(timeout=12)
        slowest_s = max(slowest_s, time.perf_counter() - began_s)
        ends.append(said.strip())
        assert len(store.keys()) == (4 if said == "finished\n" else 0)
        store.clear()
    shaky.close()
    assert ends.count("cancelled") >= 5
    assert slowest_s < 12
    print(f"SIGTERM at 10 moments: {ends.count('cancelled')} cancelled, at most {slowest_s * 1000:.0f} ms")


# ---- secrets


def test_neither_errors_nor_logs_hold_a_secret_an_address_or_a_signature(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)  # as handler.py has it, our own lines at their least severe
    caplog.set_level(logging.DEBUG, "pipeline")
    shaky = Shaky(store.port, (0,) * 99)
    buckets = [store.bucket(**changed) for changed, _ in REFUSALS.values()] + [shaky_bucket(store, shaky)]
    said = []
    for bucket in buckets:
        with pytest.raises(UploadFailed) as caught:
            upload([SVG], "job-1", bucket)
        said += traceback.format_exception(caught.value)
        said.append(f"{bucket} {caught.value.as_reply()}")
    text = "".join(said) + caplog.text
    shaky.close()
    assert "attempt 1 of 4" in text
    for canary in (KEY_ID, SECRET, "c4n4ry-wrong", "X-Amz-", "livery/"):
        assert canary not in text
    assert str(shaky.port) not in caplog.text


def test_what_is_stored_names_no_secret(store: Store) -> None:
    (stored,) = upload([SVG], "job-1", store.bucket())
    assert isinstance(stored, Stored)
    assert SECRET not in repr(stored)


def test_the_module_costs_nothing_until_a_bucket_is_used() -> None:
    code = "import sys, pipeline.storage; sys.exit(bool({'boto3', 'botocore'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
