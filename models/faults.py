"""What torch and OpenCV raise when memory runs out or the GPU is lost, told apart in one place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import cv2

from pipeline.errors import DeviceLost, OutOfMemory

_NO_MEMORY = (
    "can't allocate memory",  # the CPU allocator's, which has no class of its own
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # what making a handle ends with where there is no room for it
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "ALLOCATION_FAILED",  # cuDNN 9's CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED and its kin
    "unable to find an engine",  # cuDNN: no algorithm's workspace fits
    "CUFFT_ALLOC_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
)
_LOST = (  # told by libraries on a broken context, before torch itself asks the device, or in an error of their own
    "CUBLAS_STATUS_EXECUTION_FAILED",
    "CUDNN_STATUS_EXECUTION_FAILED",
    "CUFFT_EXEC_FAILED",
    "CUSOLVER_STATUS_EXECUTION_FAILED",
    "CUSPARSE_STATUS_EXECUTION_FAILED",
    "an illegal memory access was encountered",
    "an illegal instruction was encountered",
    "misaligned address",
    "unspecified launch failure",
    "device-side assert triggered",
    "uncorrectable ECC error",
)
_REFUSED = (  # a call that the driver did not take: the context lives on
    "invalid argument",
    "invalid configuration argument",
    "invalid device function",
    "invalid device ordinal",
    "invalid resource handle",
    "no kernel image is available",
    "operation not supported",
    "operation not permitted",
    "too many resources requested for launch",
    # a recording that broke off, and with it what was recorded; nothing of it ran
    "operation failed due to a previous error during capture",
    "operation would result in a merge of separate capture sequences",
    "operation would make the legacy stream depend on a capturing blocking stream",
    "capture was not ended in the same stream as it began",
    "capturing stream has unjoined work",
    "dependency created on uncaptured work in another stream",
)


def fault_of(error: BaseException) -> Literal["memory", "lost"] | None:
    """What a failure means for the worker.

    Returns:
        `memory`: an allocation failed, and less work may pass. `lost`: the CUDA context is broken for good (an illegal
        address, a device-side assertion, an ECC error), and every later call in this process would fail too. None:
        neither of them.
    """
    import torch  # noqa: PLC0415

    if isinstance(error, torch.OutOfMemoryError | MemoryError) or is_opencv_out_of_memory(error):
        return "memory"
    if not isinstance(error, RuntimeError):
        return None
    if any(text in str(error) for text in _NO_MEMORY):
        return "memory"
    if any(text in str(error) for text in _LOST):
        return "lost"
    refused = any(f"CUDA error: {text}" in str(error) for text in _REFUSED)
    return "lost" if isinstance(error, torch.AcceleratorError) and not refused else None


def is_opencv_out_of_memory(error: BaseException) -> bool:
    """Whether OpenCV found no memory; it has one class for all of its errors."""
    return isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem


@contextmanager
def typed_faults() -> Iterator[None]:
    """Have what is no defect of ours raised as an error of ours.

    Raises:
        DeviceLost: the GPU is lost.
        OutOfMemory: memory ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError, cv2.error) as error:
        fault = fault_of(error)
        if fault == "lost":
            raise DeviceLost("the GPU failed and stays unusable until the worker restarts") from error
        if fault == "memory":
            raise OutOfMemory("the models do not fit into this worker's memory") from error
        raise
