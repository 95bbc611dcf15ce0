"""Settings: the defaults, every fault at once, unknown names, and no values in the messages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.settings import PREFIX, Settings, SettingsError, load_settings


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


VALUES: dict[str, tuple[str, object]] = {
    "auto_engine": ("studio", "studio"),
    "volume": ("/models", Path("/models")),
    "price_usd_per_s": ("0", 0.0),
    "deadline_decode_s": ("1.5", 1.5),
    "deadline_sanitize_s": ("2", 2.0),
    "deadline_steer_s": ("3", 3.0),
    "deadline_enforce_s": ("4", 4.0),
    "deadline_vectorize_s": ("5", 5.0),
    "deadline_export_s": ("6", 6.0),
    "max_reply_bytes": ("65536", 65536),
    "log_level": ("error", "error"),
    "threads": ("3", 3),
}


def test_each_setting_is_read_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(VALUES) == set(Settings.model_fields)
    for name, (text, _) in VALUES.items():
        monkeypatch.setenv(PREFIX + name.upper(), text)
    settings = load_settings()
    assert {name: getattr(settings, name) for name in VALUES} == {name: value for name, (_, value) in VALUES.items()}
    assert settings.deadline_s("steer") == 3.0


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
