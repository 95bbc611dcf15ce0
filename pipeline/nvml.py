"""What the driver tells of the GPU: NVML, through the package `nvidia-ml-py`.

It makes no CUDA context and takes milliseconds, so it serves where no model is loaded and where torch is not installed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from pipeline.schema import GpuHealth


def read_gpu() -> GpuHealth | str:
    """The GPU that this process computes on, or in a few words why nothing is known of one. Raises nothing."""
    try:
        import pynvml  # noqa: PLC0415 - the studio extra brings it
    except ImportError:
        return "nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
        try:
            return _read(pynvml)
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as fault:
        return f"NVML: {fault}"


def _read(nvml: Any) -> GpuHealth:
    """What NVML tells of the process's first GPU.

    Raises:
        NVMLError: not even its name.
    """
    device = _device(nvml)

    def told(ask: Callable[[Any], Any]) -> Any:
        try:
            return ask(device)
        except nvml.NVMLError:  # a slice of a GPU tells less than a whole one, and some boards have no power meter
            return None

    memory, rates, power_mw = (
        told(ask)
        for ask in (nvml.nvmlDeviceGetMemoryInfo, nvml.nvmlDeviceGetUtilizationRates, nvml.nvmlDeviceGetPowerUsage)
    )
    return GpuHealth(
        name=nvml.nvmlDeviceGetName(device),
        driver=nvml.nvmlSystemGetDriverVersion(),
        memory_mb=None if memory is None else memory.total >> 20,
        memory_used_mb=None if memory is None else memory.used >> 20,
        utilisation_pct=None if rates is None else rates.gpu,
        temperature_c=told(lambda gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)),
        power_w=None if power_mw is None else power_mw / 1000,
    )


def _device(nvml: Any) -> Any:
    """The first GPU that CUDA shows this process, which may be another one than the host's first."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    if first.startswith(("GPU-", "MIG-")):
        return nvml.nvmlDeviceGetHandleByUUID(first)
    return nvml.nvmlDeviceGetHandleByIndex(int(first) if first.isdecimal() else 0)
