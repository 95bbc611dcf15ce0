"""What the control plane tells a scraper of the replies that pass it."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest

from pipeline.types import Phase
from serve.observed import LARGEST, MOST_NAMES, Observed


def reply(**report: Any) -> dict[str, Any]:
    return {"svg": None, "png": [], "report": {"engine": "draft", "timings_ms": {"total": 900.0}, **report}}


def figures(observed: Observed) -> dict[str, float]:
    """Each series and its value."""
    lines = list(observed.lines())
    for line in lines:
        assert re.fullmatch(r'# (HELP|TYPE) \w+ .+|\w+(\{\w+="[^"\\]*"(,le="[^"]+")?\})? [0-9.]+', line), line
    heads = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(heads) == len(set(heads))
    return {name: float(value) for name, _, value in (s.rpartition(" ") for s in lines if not s.startswith("#"))}


def test_phases_fall_into_buckets() -> None:
    observed = Observed()
    for spent_ms in (90.0, 300.0, 700_000.0):
        observed.observe(reply(timings_ms={"steer": spent_ms, "enforce": None, "total": spent_ms}))
    found = figures(observed)
    steer = {
        le: found[f'livery_phase_seconds_bucket{{phase="steer",le="{le}"}}'] for le in ("0.1", "0.25", "0.5", "+Inf")
    }
    assert steer == {"0.1": 1, "0.25": 1, "0.5": 2, "+Inf": 3}
    assert found['livery_phase_seconds_sum{phase="steer"}'] == pytest.approx(700.39)
    assert found['livery_phase_seconds_count{phase="enforce"}'] == 0
    assert sum("_count" in name for name in found) == len(get_args(Phase))


def test_engines_loads_memory_cache_and_cost_are_counted() -> None:
    observed = Observed()
    studio = {"engine": "studio", "cost_estimate_usd": 0.0021}
    observed.observe(reply(**studio, loads={"painter fast": 1500.4, "vae": 80.0}, vram_peak_mb=15_900.6))
    observed.observe(reply(**studio, loads={"vae": 20.0}, vram_peak_mb=9_000.0, reinked=True))
    observed.observe(reply(cached=True, vram_peak_mb=None, cost_estimate_usd=None))
    found = figures(observed)
    assert found['livery_illustrations_total{engine="studio"}'] == 2
    assert found['livery_illustrations_total{engine="draft"}'] == 1
    assert found['livery_model_loads_total{unit="vae"}'] == 2
    assert found['livery_model_load_ms_total{unit="painter fast"}'] == 1500
    assert (found["livery_cache_hits_total"], found["livery_reinked_total"]) == (1, 1)
    assert (found["livery_vram_peak_mb"], found["livery_cost_micro_usd_total"]) == (15_901, 4200)


@pytest.mark.parametrize(
    "output",
    [
        None,
        "text",
        [],
        {"status": "ready", "engines": {}},
        {"report": {"engine": "draft", "timings_ms": {"decode": 5}}, "estimate": {}},
        {"svg": "", "report": None},
        {"svg": "", "report": {"engine": ["draft"], "timings_ms": [1], "loads": "x", "cached": 1}},
        reply(engine="other", timings_ms={"decode": "5", "steer": True, "enforce": -1, "upload": LARGEST, "other": 5}),
        reply(
            engine=None, loads={'a"} 1\n': 5, "": 5, "x" * 99: 5}, vram_peak_mb=float("inf"), cost_estimate_usd=10**400
        ),
    ],
    ids=lambda output: ascii(output)[:40],
)
def test_what_is_no_illustration_or_no_figure_changes_nothing(output: Any) -> None:
    observed = Observed()
    before = figures(observed)
    observed.observe(output)
    assert figures(observed) == before


def test_replies_do_not_make_series_without_end() -> None:
    observed = Observed()
    for i in range(MOST_NAMES + 10):
        observed.observe(reply(loads={f"unit {i}": 1.0, "unit 0": 1.0}))
    found = figures(observed)
    assert sum(name.startswith("livery_model_loads_total") for name in found) == MOST_NAMES
    assert found['livery_model_loads_total{unit="unit 0"}'] == MOST_NAMES + 10
