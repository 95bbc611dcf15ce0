"""What a deployment sets: `LIVERY_*` environment variables, validated once at start with every fault listed at once.

The table is the class `Settings`: each variable is `LIVERY_` and a field's name in upper case. An empty variable counts
as unset, since that is how container platforms pass on an input that was left blank.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from pipeline.types import Phase

PREFIX = "LIVERY_"

FOREIGN_VARIABLES = frozenset({"LIVERY_PHOTOS", "LIVERY_MAPS"})
"""Variables with our prefix that tests and benchmarks read; no settings of a worker."""

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
    price_usd_per_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Price of a second of this worker in US dollars; without it replies carry no cost estimate."""
    deadline_decode_s: Seconds = 20.0
    """Longest time for reading the photo."""
    deadline_sanitize_s: Seconds = 20.0
    """Longest time for phase 1."""
    deadline_steer_s: Seconds = 60.0
    """Longest time for phase 2."""
    deadline_enforce_s: Seconds = 60.0
    """Longest time for phase 3."""
    deadline_vectorize_s: Seconds = 60.0
    """Longest time for phase 4."""
    deadline_export_s: Seconds = 60.0
    """Longest time for the audit and the PNGs."""
    max_reply_bytes: Annotated[int, Field(ge=65_536, le=PLATFORM_REPLY_BYTES)] = 16 * 1024 * 1024
    """Largest reply, in bytes of JSON."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe line that is logged."""
    threads: Annotated[int, BeforeValidator(_whole), Field(ge=1, le=256)] | None = None
    """Threads of the compiled kernels, which read the variable themselves; unset: one for each processor."""

    def deadline_s(self, phase: Phase) -> float:
        """Longest time for `phase`, in seconds."""
        return float(getattr(self, f"deadline_{phase}_s"))


def load_settings() -> Settings:
    """The settings of this process, from its environment.

    Raises:
        SettingsError: with every fault, unknown `LIVERY_*` variables included.
    """
    faults = _unknown_variables(os.environ)
    try:
        settings = Settings()
    except ValidationError as refused:
        faults += [_sentence(fault) for fault in refused.errors(include_url=False, include_input=False)]
        raise SettingsError(tuple(faults)) from None
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


_SENTENCES: Mapping[str, str] = {
    "literal_error": "must be {expected}",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
}


def _sentence(fault: ErrorDetails) -> str:
    name = PREFIX + str(fault["loc"][0]).upper()
    return f"{name}: {_SENTENCES[fault['type']].format(**fault.get('ctx', {}))}".replace("'", '"')
