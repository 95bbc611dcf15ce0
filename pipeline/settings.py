"""What a deployment sets: `LIVERY_*` environment variables, validated once at start with every fault listed at once.

The table is the class `Settings`: each variable is `LIVERY_` and a field's name in upper case. An empty variable counts
as unset, since that is how container platforms pass on an input that was left blank.

The bucket that results go to has two sets of names: ours, and for its address and credentials those that RunPod's users
know (`RUNPOD_NAMES`). Ours wins, one variable at a time. Half a bucket is a fault.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from pipeline.types import Phase

PREFIX = "LIVERY_"

FOREIGN_VARIABLES = frozenset({"LIVERY_PHOTOS", "LIVERY_MAPS"})
"""Variables with our prefix that tests and benchmarks read; no settings of a worker."""

RUNPOD_NAMES: Mapping[str, str] = {
    "bucket_endpoint": "BUCKET_ENDPOINT_URL",
    "bucket_key_id": "BUCKET_ACCESS_KEY_ID",
    "bucket_secret": "BUCKET_SECRET_ACCESS_KEY",
}
"""Settings that RunPod's own variables stand for, where ours are unset."""

LONGEST_EXPIRY_S = 24 * 3600
"""Longest life of a link to a result."""

LONGEST_KEPT_S = 90 * 24 * 3600
"""Longest that a result may be kept."""

PLATFORM_REPLY_BYTES = 20_000_000
"""Above about this size RunPod shows a job as completed without its output."""


class SettingsError(Exception):
    """The worker can't start as it is set up.

    Args:
        faults: one line each, `LIVERY_NAME: what is wrong`. Values are not repeated: they may be secrets.
    """

    def __init__(self, faults: tuple[str, ...]) -> None:
        self.faults = faults
        super().__init__("; ".join(faults))


def _whole(value: object) -> object:
    # The kernels read LIVERY_THREADS themselves and take plain digits only, so nothing else may pass here.
    if isinstance(value, str) and not re.fullmatch(r"[0-9]+", value, re.ASCII):
        raise PydanticCustomError("int_parsing", "not a whole number")
    return value


def _endpoint(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in value or "?" in value or "#" in value or not re.fullmatch(r"[!-~]+", value):
        raise PydanticCustomError("bucket_endpoint", "not an endpoint")
    return value.rstrip("/")


def _credential(value: SecretStr) -> SecretStr:
    # A line break from a file would travel in a header.
    if not re.fullmatch(r"[!-~]+", value.get_secret_value()):
        raise PydanticCustomError("credential", "not a credential")
    return value


Credential = Annotated[SecretStr, AfterValidator(_credential)]


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where results go: a bucket of any S3-compatible store.

    Attributes:
        endpoint: the store's address, http or https, without the bucket.
        name: the bucket's.
        region: what requests are signed for.
        prefix: what every key begins with, without slashes at its ends; empty for none.
        key_id, secret: of credentials that may put, get and delete objects there; never printed.
        expiry_s: how long links live, at most `LONGEST_EXPIRY_S`.
    """

    endpoint: str
    name: str
    region: str
    prefix: str
    key_id: SecretStr
    secret: SecretStr
    expiry_s: int


Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]


class Settings(BaseSettings):
    """Settings of one worker process."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", use_attribute_docstrings=True
    )

    auto_engine: Literal["auto", "draft", "studio"] = "auto"
    """What `engine: "auto"` may become: the best that is there, always draft, or studio and nothing less."""
    volume: Path | None = None
    """Folder of the model volume."""
    weights_mb: Annotated[int, BeforeValidator(_whole), Field(ge=1)] | None = None
    """MiB that the studio engine's weights may take together; unset: the GPU's memory less the room to work in."""
    prefetch_mb: Annotated[int, BeforeValidator(_whole), Field(ge=0)] = 6144
    """MiB of main memory for weights that are read while other models compute; 0: each is read when it is needed."""
    fp16_accumulation: bool = False
    """Whether a GPU sums up products of half precision in half precision too: on a GeForce quicker, less exact."""
    allow_noncommercial: bool = False
    """Whether models may be used whose licence forbids commercial work."""
    allow_synthetic: bool = False
    """Whether a volume of random weights, made for tests, may serve jobs."""
    cache: Path | None = None
    """Folder of the result cache, which many workers may share; unset: `cache` on the volume, where there is one."""
    cache_mb: Annotated[int, BeforeValidator(_whole), Field(ge=0, le=1_000_000)] = 2048
    """MiB that the kept results may take together; 0: none is kept."""
    cache_s: Annotated[int, BeforeValidator(_whole), Field(ge=1, le=LONGEST_KEPT_S)] = 7 * 24 * 3600
    """How long a result is kept, from when it was made. While no worker runs, it goes when the next one starts."""
    price_usd_per_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Price of a second of this worker in US dollars; without it replies carry no cost estimate."""
    deadline_decode_s: Seconds = 40.0
    """Longest time for fetching and reading the photo."""
    deadline_sanitize_s: Seconds = 20.0
    """Longest time for phase 1 of the draft engine."""
    deadline_steer_s: Seconds = 60.0
    """Longest time for phase 2 of the draft engine."""
    deadline_enforce_s: Seconds = 60.0
    """Longest time for phase 3 of the draft engine."""
    studio_deadline_sanitize_s: Seconds = 180.0
    """Longest time for phase 1 of the studio engine, its models' loading included."""
    studio_deadline_steer_s: Seconds = 300.0
    """Longest time for phase 2 of the studio engine, its models' loading and all its attempts included."""
    studio_deadline_enforce_s: Seconds = 120.0
    """Longest time for phase 3 of the studio engine, its model's loading included."""
    deadline_vectorize_s: Seconds = 60.0
    """Longest time for phase 4."""
    deadline_export_s: Seconds = 60.0
    """Longest time for the audit and the files."""
    deadline_upload_s: Seconds = 60.0
    """Longest time for handing the files over to the bucket."""
    max_reply_bytes: Annotated[int, Field(ge=65_536, le=PLATFORM_REPLY_BYTES)] = 16 * 1024 * 1024
    """Largest reply, in bytes of JSON."""
    bucket_endpoint: Annotated[str, AfterValidator(_endpoint)] | None = None
    """Address of the S3-compatible store for results, or `BUCKET_ENDPOINT_URL`; unset: replies carry the files."""
    bucket_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]$")] | None = None
    """Name of the bucket. Callers can name any picture in it as `image_url`, so give Livery a bucket of its own."""
    bucket_region: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,40}$")] | None = None
    """The store's region as it wants requests signed, such as `eu-central-1`, `auto` or `us-east-1`."""
    bucket_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*/?$", max_length=200)] = "livery"
    """What the key of every result begins with."""
    bucket_key_id: Credential | None = None
    """Id of the access key; or set `BUCKET_ACCESS_KEY_ID`."""
    bucket_secret: Credential | None = None
    """Secret of the access key; or set `BUCKET_SECRET_ACCESS_KEY`."""
    bucket_expiry_s: Annotated[int, BeforeValidator(_whole), Field(ge=60, le=LONGEST_EXPIRY_S)] = LONGEST_EXPIRY_S
    """Seconds that the links to results live."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe line that is logged."""
    log_format: Literal["json", "text"] = "json"
    """What a line of the log is: an object for a collector, or a sentence for people."""
    threads: Annotated[int, BeforeValidator(_whole), Field(ge=1, le=256)] | None = None
    """Threads of the compiled kernels, which read the variable themselves; unset: one for each processor."""
    jobs_at_once: Annotated[int, BeforeValidator(_whole), Field(ge=1, le=4)] = 1
    """Jobs that the worker serves at the same time, at most 4. The models serve one of them at a time."""
    least_disk_mb: Annotated[int, BeforeValidator(_whole), Field(ge=0)] = 512
    """MiB that must be free for temporary files when the worker starts on the platform."""
    least_vram_mb: Annotated[int, BeforeValidator(_whole), Field(ge=0)] = 12_288
    """MiB of GPU memory that must be free when a worker that may serve the studio engine starts on the platform."""

    @property
    def bucket(self) -> Bucket | None:
        """Where results go; None where no bucket is set."""
        endpoint, name, region = self.bucket_endpoint, self.bucket_name, self.bucket_region
        key_id, secret = self.bucket_key_id, self.bucket_secret
        if endpoint is None or name is None or region is None or key_id is None or secret is None:
            return None
        endpoint, prefix = _without_bucket(endpoint, name), self.bucket_prefix.rstrip("/")
        return Bucket(endpoint, name, region, prefix, key_id, secret, self.bucket_expiry_s)

    def deadline_s(self, phase: Phase, engine: Literal["draft", "studio"]) -> float:
        """Longest time for `phase` of `engine`, in seconds."""
        own = f"studio_deadline_{phase}_s"
        if engine == "studio" and own in type(self).model_fields:
            return float(getattr(self, own))
        return float(getattr(self, f"deadline_{phase}_s"))


def load_settings() -> Settings:
    """The settings of this process, from its environment.

    Raises:
        SettingsError: with every fault, unknown `LIVERY_*` variables included.
    """
    faults = _unknown_variables(os.environ)
    try:
        settings = Settings.model_validate(_from_runpod(os.environ))
    except ValidationError as refused:
        faults += [_sentence(fault) for fault in refused.errors(include_url=False, include_input=False)]
        raise SettingsError(tuple(faults)) from None
    faults += _bucket_faults(settings)
    if faults:
        raise SettingsError(tuple(faults))
    return settings


def _unknown_variables(environ: Mapping[str, str]) -> list[str]:
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    strangers = sorted(name for name in environ if name.startswith(PREFIX) and name not in {*known, *FOREIGN_VARIABLES})
    return [
        f"{name}: unknown setting; the nearest known one is {get_close_matches(name, known, n=1, cutoff=0.0)[0]}"
        for name in strangers
    ]


def _from_runpod(environ: Mapping[str, str]) -> dict[str, str]:
    """What RunPod's variables set that ours leave open."""
    return {
        field: environ[name]
        for field, name in RUNPOD_NAMES.items()
        if environ.get(name) and not environ.get(PREFIX + field.upper())
    }


def _bucket_faults(settings: Settings) -> list[str]:
    fields = ("bucket_endpoint", "bucket_name", "bucket_region", "bucket_key_id", "bucket_secret")
    given = [field for field in fields if getattr(settings, field) is not None]
    if not given:
        return []
    missing = (field for field in fields if field not in given)
    return [f"{_names(field)}: must be set too, since {_names(given[0])} is" for field in missing]


def _names(field: str) -> str:
    own = PREFIX + field.upper()
    return f"{own} (or {RUNPOD_NAMES[field]})" if field in RUNPOD_NAMES else own


def _without_bucket(endpoint: str, name: str) -> str:
    """RunPod's users name the bucket in the endpoint, before the host or after it; requests put it there themselves."""
    scheme, _, rest = endpoint.removesuffix(f"/{name}").partition("://")
    return f"{scheme}://{rest.removeprefix(f'{name}.')}"


_SENTENCES: Mapping[str, str] = {
    "literal_error": "must be {expected}",
    "bool_parsing": "must be true or false",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_pattern_mismatch": "has characters or a length that are not allowed",
    "string_too_long": "must be at most {max_length} characters",
    "bucket_endpoint": "must be an http:// or https:// address without user, query or fragment",
    "credential": "must be printable ASCII characters without spaces or line breaks",
}


def _sentence(fault: ErrorDetails) -> str:
    field = str(fault["loc"][0])
    name = _names(field) if field in RUNPOD_NAMES else PREFIX + field.upper()
    return f"{name}: {_SENTENCES[fault['type']].format(**fault.get('ctx', {}))}".replace("'", '"')
