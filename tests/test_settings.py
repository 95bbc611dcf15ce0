"""Settings: the defaults, every fault at once, unknown names, and no values in the messages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from pipeline.settings import PREFIX, RUNPOD_NAMES, Settings, SettingsError, load_settings


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(PREFIX) or name in RUNPOD_NAMES.values():
            monkeypatch.delenv(name)


VALUES: dict[str, tuple[str, object]] = {
    "auto_engine": ("studio", "studio"),
    "volume": ("/models", Path("/models")),
    "weights_mb": ("9000", 9000),
    "prefetch_mb": ("0", 0),
    "fp16_accumulation": ("true", True),
    "allow_noncommercial": ("true", True),
    "allow_synthetic": ("1", True),
    "cache": ("/results", Path("/results")),
    "cache_mb": ("0", 0),
    "cache_s": ("3600", 3600),
    "price_usd_per_s": ("0", 0.0),
    "deadline_decode_s": ("1.5", 1.5),
    "deadline_sanitize_s": ("2", 2.0),
    "deadline_steer_s": ("3", 3.0),
    "deadline_enforce_s": ("4", 4.0),
    "deadline_vectorize_s": ("5", 5.0),
    "deadline_export_s": ("6", 6.0),
    "deadline_upload_s": ("10", 10.0),
    "studio_deadline_sanitize_s": ("7", 7.0),
    "studio_deadline_steer_s": ("8", 8.0),
    "studio_deadline_enforce_s": ("9", 9.0),
    "max_reply_bytes": ("65536", 65536),
    "bucket_endpoint": ("https://s3.test:9000/", "https://s3.test:9000"),
    "bucket_name": ("pictures", "pictures"),
    "bucket_region": ("eu-central-1", "eu-central-1"),
    "bucket_prefix": ("a/b", "a/b"),
    "bucket_key_id": ("an-id", SecretStr("an-id")),
    "bucket_secret": ("a-secret", SecretStr("a-secret")),
    "bucket_expiry_s": ("3600", 3600),
    "log_level": ("error", "error"),
    "log_format": ("text", "text"),
    "threads": ("3", 3),
    "jobs_at_once": ("2", 2),
    "least_disk_mb": ("64", 64),
    "least_vram_mb": ("0", 0),
}


def test_each_setting_is_read_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(VALUES) == set(Settings.model_fields)
    for name, (text, _) in VALUES.items():
        monkeypatch.setenv(PREFIX + name.upper(), text)
    settings = load_settings()
    assert {name: getattr(settings, name) for name in VALUES} == {name: value for name, (_, value) in VALUES.items()}
    assert [settings.deadline_s("steer", engine) for engine in ("draft", "studio")] == [3.0, 8.0]
    assert [settings.deadline_s("export", engine) for engine in ("draft", "studio")] == [6.0, 6.0]


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVERY_VOLUME", "")
    monkeypatch.setenv("LIVERY_THREADS", "")
    assert load_settings() == Settings()
    assert Settings().volume is None


def test_every_fault_is_listed_at_once_and_no_value_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVERY_AUTO_ENGINE", "s3cret")
    monkeypatch.setenv("LIVERY_PRICE_USD_PER_S", "nan")
    monkeypatch.setenv("LIVERY_DEADLINE_STEER_S", "0")
    monkeypatch.setenv("LIVERY_MAX_REPLY_BYTES", "99999999999")
    monkeypatch.setenv("LIVERY_AUTO_ENGIN", "s3cret")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert caught.value.faults == (
        "LIVERY_AUTO_ENGIN: unknown setting; the nearest known one is LIVERY_AUTO_ENGINE",
        'LIVERY_AUTO_ENGINE: must be "auto", "draft" or "studio"',
        "LIVERY_PRICE_USD_PER_S: must be a finite number",
        "LIVERY_DEADLINE_STEER_S: must be more than 0.0",
        "LIVERY_MAX_REPLY_BYTES: must be at most 20000000",
    )
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("text", ["0", "-1", "2.0", "two", "²", "257", "9" * 5000])
def test_a_thread_count_that_the_kernels_would_not_take_is_a_fault(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVERY_THREADS", text)
    with pytest.raises(SettingsError, match="LIVERY_THREADS: must be"):
        load_settings()


def test_an_unknown_variable_alone_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVERY_VOLUMES", "x")
    with pytest.raises(SettingsError, match=r"nearest known one is LIVERY_VOLUME$"):
        load_settings()


def test_the_variables_of_tests_and_benchmarks_are_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVERY_PHOTOS", "x")
    monkeypatch.setenv("LIVERY_MAPS", "x")
    assert load_settings() == Settings()


BUCKET = {
    "LIVERY_BUCKET_NAME": "pictures",
    "LIVERY_BUCKET_REGION": "auto",
    "BUCKET_ENDPOINT_URL": "https://s3.test",
    "BUCKET_ACCESS_KEY_ID": "c4n4ry-id",
    "BUCKET_SECRET_ACCESS_KEY": "c4n4ry-secret",
}


def set_all(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_the_bucket_is_read_from_runpod_s_names_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().bucket is None
    set_all(monkeypatch, BUCKET)
    bucket = load_settings().bucket
    assert bucket is not None
    assert (bucket.endpoint, bucket.name, bucket.region) == ("https://s3.test", "pictures", "auto")
    assert (bucket.prefix, bucket.expiry_s) == ("livery", 86_400)
    assert bucket.key_id.get_secret_value() == "c4n4ry-id"
    assert bucket.secret.get_secret_value() == "c4n4ry-secret"


def test_our_own_names_win_over_runpod_s_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {**BUCKET, "LIVERY_BUCKET_ENDPOINT": "https://other.test", "LIVERY_BUCKET_SECRET": ""})
    bucket = load_settings().bucket
    assert bucket is not None
    assert bucket.endpoint == "https://other.test"
    assert bucket.secret.get_secret_value() == "c4n4ry-secret"


@pytest.mark.parametrize(
    ("endpoint", "used"),
    [
        ("https://pictures.s3.eu-west-1.amazonaws.com", "https://s3.eu-west-1.amazonaws.com"),
        ("https://s3.test:9000/pictures/", "https://s3.test:9000"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("https://s3.test/gateway", "https://s3.test/gateway"),
    ],
)
def test_an_endpoint_may_name_the_bucket(endpoint: str, used: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {**BUCKET, "BUCKET_ENDPOINT_URL": endpoint})
    bucket = load_settings().bucket
    assert bucket is not None
    assert bucket.endpoint == used


@pytest.mark.parametrize("name", BUCKET)
def test_a_bucket_without_any_one_of_its_settings_is_a_fault(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {other: value for other, value in BUCKET.items() if other != name})
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert len(caught.value.faults) == 1
    assert caught.value.faults[0].startswith("LIVERY_BUCKET_")
    assert name in caught.value.faults[0].partition(":")[0]
    assert "must be set too, since LIVERY_BUCKET_" in caught.value.faults[0]
    assert "c4n4ry" not in str(caught.value)


def test_every_fault_of_a_bucket_is_listed_and_its_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {
        "BUCKET_ENDPOINT_URL": "https://c4n4ry:c4n4ry@s3.test",
        "LIVERY_BUCKET_NAME": "c4n4ry/..",
        "LIVERY_BUCKET_REGION": "c4n4ry c4n4ry",
        "LIVERY_BUCKET_PREFIX": "/../c4n4ry",
        "BUCKET_SECRET_ACCESS_KEY": "c4n4ry\n",
        "LIVERY_BUCKET_EXPIRY_S": "86401",
    }
    set_all(monkeypatch, {**BUCKET, **wrong})
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert caught.value.faults == (
        "LIVERY_BUCKET_ENDPOINT (or BUCKET_ENDPOINT_URL): must be an http:// or https:// address without user, query "
        "or fragment",
        "LIVERY_BUCKET_NAME: has characters or a length that are not allowed",
        "LIVERY_BUCKET_REGION: has characters or a length that are not allowed",
        "LIVERY_BUCKET_PREFIX: has characters or a length that are not allowed",
        "LIVERY_BUCKET_SECRET (or BUCKET_SECRET_ACCESS_KEY): must be printable ASCII characters without spaces or "
        "line breaks",
        "LIVERY_BUCKET_EXPIRY_S: must be at most 86400",
    )


@pytest.mark.parametrize("endpoint", ["s3.test", "ftp://s3.test", "https://", "https://s3.test:99999", "https://[::1"])
def test_an_endpoint_that_is_none_is_a_fault(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {**BUCKET, "BUCKET_ENDPOINT_URL": endpoint})
    with pytest.raises(SettingsError, match="BUCKET_ENDPOINT_URL"):
        load_settings()


def test_settings_and_buckets_print_without_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, BUCKET)
    settings = load_settings()
    shown = f"{settings} {settings!r} {settings.bucket} {settings.model_dump_json()}"
    assert "pictures" in shown
    assert "c4n4ry" not in shown
