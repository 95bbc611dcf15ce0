"""What the device at hand can do at most, measured: the floor that the studio engine's times are compared with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from models.device import Device

_RUNS = 10
_GPU_SIDE, _CPU_SIDE = 8192, 1024
_GPU_MB, _CPU_MB = 1024, 64


@dataclass(frozen=True, slots=True)
class Floor:
    """Best of several runs.

    Attributes:
        tflops: of a product of two square matrices, in bfloat16 on a GPU and float32 on a CPU.
        copy_gb_s: bytes read and written per second by a copy within the device's memory, in 10^9.
    """

    tflops: float
    copy_gb_s: float


def measure_floor(device: Device) -> Floor:
    """Measure `device`. Takes a second or two."""
    import torch  # noqa: PLC0415

    on_gpu = device.kind == "cuda"
    side, mb = (_GPU_SIDE, _GPU_MB) if on_gpu else (_CPU_SIDE, _CPU_MB)
    dtype = torch.bfloat16 if on_gpu else torch.float32
    left = torch.randn(side, side, device=device.place()).to(dtype)
    right, product = torch.randn_like(left), torch.empty_like(left)
    source = torch.empty(mb << 20, dtype=torch.uint8, device=device.place()).random_()
    target = torch.empty_like(source)
    return Floor(
        tflops=2 * side**3 / _best_s(device, lambda: torch.mm(left, right, out=product)) / 1e12,
        copy_gb_s=2 * source.numel() / _best_s(device, lambda: target.copy_(source)) / 1e9,
    )


def _best_s(device: Device, work: Callable[[], object]) -> float:
    import torch  # noqa: PLC0415

    best_s = float("inf")
    for _ in range(_RUNS + 1):
        began_s = time.perf_counter()
        work()
        if device.kind == "cuda":
            torch.cuda.synchronize()
        best_s = min(best_s, time.perf_counter() - began_s)
    return best_s


def device_facts(device: Device) -> dict[str, str | bool | None]:
    """What a row has to say of the device and of torch, for others to compare it."""
    import torch  # noqa: PLC0415

    return {
        "device": device.name,
        "dtype": device.half,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "fp16_accumulation": getattr(torch.backends.cuda.matmul, "allow_fp16_accumulation", None),
    }
