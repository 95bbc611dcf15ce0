"""The device that the studio engine runs on: found by itself, checked once, one clear sentence where it can't serve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.errors import ModelMissing

if TYPE_CHECKING:
    import torch

_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class Device:
    """Where models live and in which numbers they count.

    Attributes:
        kind: `cuda` or `cpu`.
        name: the GPU's, or `cpu`.
        half: the dtype of the large networks: float16 on a GPU, float32 on a CPU.
        memory_mb: of the GPU, in MiB; None on a CPU.
    """

    kind: Literal["cuda", "cpu"]
    name: str
    half: Literal["float16", "bfloat16", "float32"]
    memory_mb: int | None = None

    @property
    def channels_last(self) -> bool:
        """Whether convolutions take their input with the channels last in memory, as tensor cores want them."""
        return self.kind == "cuda"

    def place(self) -> torch.device:
        """The same as torch's own."""
        import torch  # noqa: PLC0415

        return torch.device(self.kind)

    def dtype(self) -> torch.dtype:
        """`half` as torch's own."""
        import torch  # noqa: PLC0415

        kind: torch.dtype = getattr(torch, self.half)
        return kind


CPU = Device("cpu", "cpu", "float32")


def find_device() -> Device:
    """The GPU where there is one that this build of PyTorch can use, else the CPU.

    Raises:
        ModelMissing: there is a GPU, but it can't be used: its driver is too old, or PyTorch was built for others.
            It is no silent CPU: a studio job there would take an hour.
    """
    import torch  # noqa: PLC0415

    if not torch.cuda.is_available():
        if _DRIVER.exists():
            built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no GPU"
            raise ModelMissing(
                f"there is an NVIDIA GPU, but PyTorch {torch.__version__}, built for {built}, can't use it: "
                "its driver is too old for that build, or the container was started without access to the GPU"
            )
        return CPU
    return unfit_or(
        Device("cuda", torch.cuda.get_device_name(), "float16", torch.cuda.get_device_properties(0).total_memory >> 20),
        torch.cuda.get_device_capability(),
        torch.cuda.get_arch_list(),
    )


def try_device(device: Device) -> None:
    """Have the device compute something small, and wait for it.

    Raises:
        RuntimeError: it doesn't, or computes something else.
    """
    import torch  # noqa: PLC0415

    ones = torch.ones(64, dtype=device.dtype(), device=device.place())
    if float((ones + ones).sum()) != 128.0:
        raise RuntimeError("one and one did not make two")


def free_memory_mb() -> int:
    """Memory of the GPU that no process holds, in MiB. For where there is one.

    Raises:
        RuntimeError: it does not tell.
    """
    import torch  # noqa: PLC0415

    free_bytes, _ = torch.cuda.mem_get_info()
    return int(free_bytes) >> 20


def unfit_or(device: Device, capability: tuple[int, int], built_for: list[str]) -> Device:
    """`device`, known to be among those that this build of PyTorch has code for.

    Args:
        device: a CUDA device.
        capability: its compute capability, such as (12, 0).
        built_for: `sm_120` for machine code, `compute_90` for code that newer devices can translate.

    Raises:
        ModelMissing: the build has nothing for it.
    """
    number = capability[0] * 10 + capability[1]
    for arch in built_for:
        kind, _, digits = arch.partition("_")
        built = int("".join(filter(str.isdigit, digits)))
        same_major = built // 10 == capability[0] and built <= number  # machine code runs on later minor versions
        if (kind == "sm" and same_major) or (kind == "compute" and built <= number):
            return device
    raise ModelMissing(
        f"the GPU ({device.name}, sm_{number}) is not among those that this build of PyTorch was made for "
        f"({', '.join(built_for)})"
    )
