"""Settings of a worker that is measured: it takes random weights, and no deadline ends what takes long here."""

from __future__ import annotations

from pipeline.settings import Settings

_LONGEST_S = 3600.0


def patient_settings() -> Settings:
    """Settings for any device, and for kernels that are compiled first."""
    longest = {name: _LONGEST_S for name in Settings.model_fields if "deadline_" in name}
    return Settings.model_validate({"allow_synthetic": True, **longest})
