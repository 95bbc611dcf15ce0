"""Handing results over: files into a bucket of any S3-compatible store, and presigned links to them.

The SDK's own uploader guesses the region, takes the month as the bucket's name and, where nothing is set, writes into a
local folder without a word. Here everything is explicit (`pipeline.settings.Bucket`). What holds:

- Each file is one PUT, which S3 makes visible whole or not at all: there are no multipart uploads to leave behind. The
  store checks its length, its MD5 and, within the signature, its SHA-256.
- A key is `prefix/job/content-name`. The job's part is a keyed hash (HMAC-SHA256 under the bucket's secret), so nobody
  guesses it, and the same job with the same content writes the same objects again.
- A job that fails or is cancelled while it uploads deletes what it had uploaded, as far as the store lets it; of a job
  that runs again, the earlier run's objects too. A killed process can leave whole objects that nobody has a link to: a
  lifecycle rule on the prefix takes those, and all others once their links are dead.
- Nothing of the credentials, the endpoint or a signature gets into an error or the log.

boto3's own retries are off: they sleep where a cancelled job could not wake them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import logging
import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlsplit

from pipeline.errors import LiveryError, UploadFailed
from pipeline.settings import Bucket

MEDIA_TYPES: Final = MappingProxyType(
    {
        "svg": "image/svg+xml",
        "png": "image/png",
        "pdf": "application/pdf",
        "dxf": "image/vnd.dxf",
        "separations": "application/pdf",
    }
)
"""Media type of each format of `output.formats`."""

ATTEMPTS: Final = 4
"""How often a file is sent before the upload has failed."""

FIRST_PAUSE_S: Final = 0.5
"""Longest pause before the second attempt; each further one may be twice as long."""

CONNECT_S: Final = 5.0
ANSWER_S: Final = 10.0
"""Longest time without a byte while a file is sent or its answer awaited; so long may a cancelled upload still take."""

CLEANUP_S: Final = 5.0
"""After that much time no further object is deleted."""

_CLEANUP_ANSWER_S: Final = 2.0
_POLL_S: Final = 0.05
_BLOCK_BYTES: Final = 16 * 1024
"""Sent between two looks at whether the job goes on."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A file to hand over.

    Attributes:
        name: what it is called where it is saved, such as `livery-2048.png`.
        media_type: of `MEDIA_TYPES`.
        data: the file.
    """

    name: str
    media_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that lies in the bucket.

    Attributes:
        url: a presigned link; whoever has it can read the file until `expires_at`.
        expires_at: UTC, such as `2027-01-31T12:00:00Z`.
        bytes, sha256: of the file.
        key: the object's, for deleting it.
    """

    url: str
    expires_at: str
    bytes: int
    sha256: str
    key: str


def upload(
    files: Sequence[Outgoing], job_id: str, bucket: Bucket, check: Callable[[], None] = lambda: None
) -> tuple[Stored, ...]:
    """Put a job's files into the bucket.

    Args:
        files: in any order; two of the same name and content become one object.
        job_id: the job's, the same when the platform runs it again.
        bucket: where to.
        check: asked before each file, while it is sent and while a retry waits; where it raises, all is undone.

    Returns:
        A link for each file, in their order; all expire at about the same time.

    Raises:
        UploadFailed: the bucket refused, failed `ATTEMPTS` times or was not reached; what was uploaded is deleted.
        LiveryError: what `check` raised.
    """
    client = _client(bucket, ANSWER_S)
    keys: list[str] = []
    with ExitStack() as undo:
        undo.callback(_delete, bucket, keys)
        for file in files:
            check()
            keys.append(_key(bucket, job_id, file))
            _put(client, bucket, keys[-1], file, check)
        check()
        stored = tuple(_stored(bucket, key, file) for key, file in zip(keys, files, strict=True))
        undo.pop_all()
    return stored


def presigned_url(bucket: Bucket, key: str, expiry_s: int) -> str:
    """A link that reads one object for `expiry_s` seconds. Made here, without asking the store."""
    place = {"Bucket": bucket.name, "Key": key}
    return str(_client(bucket, ANSWER_S).generate_presigned_url("get_object", Params=place, ExpiresIn=expiry_s))


def _stored(bucket: Bucket, key: str, file: Outgoing) -> Stored:
    url = presigned_url(bucket, key, bucket.expiry_s)
    # The link's own time of signing counts, not ours a moment later.
    signed = datetime.strptime(parse_qs(urlsplit(url).query)["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    expires = signed + timedelta(seconds=bucket.expiry_s)
    return Stored(
        url=url,
        expires_at=f"{expires:%Y-%m-%dT%H:%M:%SZ}",
        bytes=len(file.data),
        sha256=hashlib.sha256(file.data).hexdigest(),
        key=key,
    )


def _key(bucket: Bucket, job_id: str, file: Outgoing) -> str:
    secret = bucket.secret.get_secret_value().encode()
    folder = hmac.new(secret, b"livery results\0" + job_id.encode("utf-8", "backslashreplace"), hashlib.sha256)
    name = re.sub("[^A-Za-z0-9._-]", "-", file.name)
    content = hashlib.sha256(file.data).hexdigest()[:16]
    return f"{bucket.prefix}/{folder.hexdigest()[:32]}/{content}-{name[-80:]}"


_MAKING = threading.Lock()


def _client(bucket: Bucket, answer_s: float) -> Any:
    """boto3's client, which jobs may share. They make it one at a time: boto3's sessions are not made for threads."""
    with _MAKING:
        return _made_client(bucket, answer_s)


@lru_cache(maxsize=4)
def _made_client(bucket: Bucket, answer_s: float) -> Any:
    """Two thirds of a second to make, so it is kept for the jobs that follow."""
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - heavy, and of use only where there is a bucket

    try:
        return _session().client("s3", **_connection(bucket, answer_s))
    except (BotoCoreError, ValueError):
        # It also reads AWS_ variables and files, which may ask for a profile that is not there.
        raise UploadFailed("the bucket can't be used; check LIVERY_BUCKET_ENDPOINT and the AWS_ variables") from None


@lru_cache(maxsize=1)
def _session() -> Any:
    """What clients share: the descriptions of the protocol, which take longest to load."""
    import boto3  # noqa: PLC0415 - heavy; see _client

    return boto3.session.Session()


def _connection(bucket: Bucket, answer_s: float) -> dict[str, Any]:
    from botocore.config import Config  # noqa: PLC0415 - heavy; see _client

    return {
        "endpoint_url": bucket.endpoint,
        "region_name": bucket.region,
        "aws_access_key_id": bucket.key_id.get_secret_value(),
        "aws_secret_access_key": bucket.secret.get_secret_value(),
        "config": Config(
            signature_version="s3v4",
            # Every store understands the bucket in the path; not every one has a name for each bucket.
            s3={"addressing_style": "path", "payload_signing_enabled": True},
            connect_timeout=CONNECT_S,
            read_timeout=answer_s,
            retries={"total_max_attempts": 1, "mode": "standard"},
            # boto3's newer default checksums are unknown to many stores; Content-MD5 is known to all.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    }


class _Body(io.BytesIO):
    """A file that is sent as long as `check` lets it."""

    def __init__(self, data: bytes, check: Callable[[], None]) -> None:
        super().__init__(data)
        self._check = check
        self.stopped: LiveryError | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        # botocore wraps what is raised in here, so it is kept to be raised again.
        try:
            self._check()
        except LiveryError as stop:
            self.stopped = stop
            raise
        return super().read(size if size is None or size < 0 else min(size, _BLOCK_BYTES))


def _put(client: Any, bucket: Bucket, key: str, file: Outgoing, check: Callable[[], None]) -> None:
    from botocore.exceptions import ClientError  # noqa: PLC0415 - heavy; see _client

    said = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            _pause(random.uniform(0.5, 1) * FIRST_PAUSE_S * 2 ** (attempt - 1), check)  # noqa: S311 - spreads workers
        body = _Body(file.data, check)
        try:
            client.put_object(
                Bucket=bucket.name,
                Key=key,
                Body=body,
                ContentLength=len(file.data),
                ContentMD5=base64.b64encode(hashlib.md5(file.data, usedforsecurity=False).digest()).decode(),
                ContentType=file.media_type,
                ContentDisposition=_disposition(file.name),
                CacheControl="private",
            )
        except ClientError as fault:
            said, passing = _refusal(fault)
            if not passing:
                raise UploadFailed(said) from None
        except _broken_connections():
            if body.stopped is not None:
                raise body.stopped from None
            said = "the bucket's store could not be reached; if that stays so, check LIVERY_BUCKET_ENDPOINT"
        else:
            return
        log.warning("upload, attempt %d of %d: %s", attempt + 1, ATTEMPTS, said)
    raise UploadFailed(said)


def _broken_connections() -> tuple[type[Exception], ...]:
    """What botocore raises where a connection or an answer breaks."""
    from botocore.exceptions import ConnectionError as NotConnected  # noqa: PLC0415 - heavy; see _client
    from botocore.exceptions import HTTPClientError  # noqa: PLC0415
    from botocore.parsers import ResponseParserError  # noqa: PLC0415

    return (HTTPClientError, NotConnected, ResponseParserError)


def _refusal(fault: Any) -> tuple[str, bool]:
    """What a store's answer means to the deployer, and whether it may pass."""
    code = str(fault.response.get("Error", {}).get("Code", ""))
    status = int(fault.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if status >= 500 or status == 429 or code in _PASSING:
        return "the bucket's store failed; it may work again later", True
    if code in _REFUSALS:
        return _REFUSALS[code], False
    return "the bucket refused the files; check the LIVERY_BUCKET_ settings and what the store's log says", False


_PASSING: Final = frozenset(
    {"BadDigest", "IncompleteBody", "RequestTimeout", "SlowDown", "XAmzContentSHA256Mismatch", "OperationAborted"}
)
_WRONG_KEY: Final = "the bucket's store refused the access key; check LIVERY_BUCKET_KEY_ID and LIVERY_BUCKET_SECRET"
_NO_RIGHT: Final = (
    "the access key may not write to the bucket; it needs to put, get and delete objects under LIVERY_BUCKET_PREFIX"
)
_WRONG_PLACE: Final = "the bucket lies in another region; check LIVERY_BUCKET_REGION and LIVERY_BUCKET_ENDPOINT"
_REFUSALS: Final = MappingProxyType(
    {
        "NoSuchBucket": "there is no such bucket; check LIVERY_BUCKET_NAME and LIVERY_BUCKET_ENDPOINT",
        "InvalidBucketName": "there is no such bucket; check LIVERY_BUCKET_NAME",
        "InvalidAccessKeyId": _WRONG_KEY,
        "SignatureDoesNotMatch": _WRONG_KEY,
        "AccessDenied": _NO_RIGHT,
        "AllAccessDisabled": _NO_RIGHT,
        "AuthorizationHeaderMalformed": _WRONG_PLACE,
        "IllegalLocationConstraintException": _WRONG_PLACE,
        "PermanentRedirect": _WRONG_PLACE,
        "RequestTimeTooSkewed": "the bucket refused the files, since the worker's clock is wrong",
        "EntityTooLarge": "the bucket takes no file as large as this",
        "QuotaExceeded": "the bucket is full",
    }
)
"""Where each of the store's own codes points to. The store's texts are left out: they may repeat the key's id."""


def _disposition(name: str) -> str:
    """The Content-Disposition that saves a file as `name`: in ASCII for all, as it is for those that know RFC 6266."""
    plain = re.sub(r'[^ -~]|["\\%]', "_", name)
    plainly = f'inline; filename="{plain}"'
    return plainly if plain == name else f"{plainly}; filename*=UTF-8''{quote(name, safe='', errors='replace')}"


def _pause(seconds: float, check: Callable[[], None]) -> None:
    wake_s = time.monotonic() + seconds
    while (left_s := wake_s - time.monotonic()) > 0:
        check()
        time.sleep(min(left_s, _POLL_S))


def _delete(bucket: Bucket, keys: Sequence[str]) -> None:
    """Delete objects, as far as the store lets us. Those that are not there count as deleted."""
    if not keys:
        return
    from botocore.exceptions import ClientError  # noqa: PLC0415 - heavy; see _client

    client = _client(bucket, _CLEANUP_ANSWER_S)
    end_s = time.monotonic() + CLEANUP_S
    left = set(keys)
    for key in (*reversed(keys), *keys):
        if key not in left or time.monotonic() > end_s:
            continue
        try:
            client.delete_object(Bucket=bucket.name, Key=key)
            left.discard(key)
        except (ClientError, *_broken_connections()):
            continue
    if left:
        log.warning("upload: %d objects of an unfinished job could not be deleted", len(left))
