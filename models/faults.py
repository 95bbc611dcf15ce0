"""What torch raises when memory runs out or the GPU is lost, told apart in one place."""

from __future__ import annotations

from typing import Literal

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
_LOST = (  # told by libraries on a broken context, before torch itself asks the device
    "CUBLAS_STATUS_EXECUTION_FAILED",
    "CUDNN_STATUS_EXECUTION_FAILED",
    "CUFFT_EXEC_FAILED",
)


def fault_of(error: BaseException) -> Literal["memory", "lost"] | None:
    """What a failure of torch means for the worker.

    Returns:
        `memory`: an allocation failed, and less work may pass. `lost`: the CUDA context is broken for good (an illegal
        address, a device-side assertion, an ECC error), and every later call in this process would fail too. None:
        neither of them.
    """
    import torch  # noqa: PLC0415

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return "memory"
    if isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY):
        return "memory"
    if isinstance(error, RuntimeError) and any(text in str(error) for text in _LOST):
        return "lost"
    return "lost" if isinstance(error, torch.AcceleratorError) else None
