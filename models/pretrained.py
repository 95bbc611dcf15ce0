"""A network of the transformers library from one row's weights, or a clear refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.files import ModelFiles
from pipeline.errors import ModelCorrupt

if TYPE_CHECKING:
    import torch


def load_pretrained(kind: Any, config: Any, files: ModelFiles, *weights: str) -> torch.nn.Module:
    """The network with the stored weights in the dtype that they were stored in, on the CPU, ready for inference.

    The library itself maps key layouts of older releases, which published files have, to its own, and fills tied
    weights from whichever of their names was stored.

    Args:
        kind: the library's class.
        config: its configuration, of the library's own class for it.
        files: where the weights lie.
        weights: names of the weight files.

    Raises:
        ModelCorrupt: a weight is missing, is there too many, or has another shape than the configuration says.
        ModelMissing: a file is not there.
    """
    from transformers.utils import logging  # noqa: PLC0415

    silence: Any = logging.disable_progress_bar
    silence()
    tensors = files.tensors(*weights)
    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    if len(dtypes) != 1:
        raise ModelCorrupt(f"the weights of {files.name} are not of one type")
    network, found = kind.from_pretrained(
        None,
        config=config,
        state_dict=tensors,
        dtype=dtypes.pop(),
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # so that they are listed with the others
    )
    faults = {
        "are missing": len(found["missing_keys"]),
        "are unknown": len(found["unexpected_keys"]),
        "have the wrong shape": len(found["mismatched_keys"]) + len(found["error_msgs"]),
    }
    if any(faults.values()):
        told = ", ".join(f"{count} {what}" for what, count in faults.items() if count)
        raise ModelCorrupt(f"the weights of {files.name} don't fit its configuration: {told}")
    network.requires_grad_(requires_grad=False)
    loaded: torch.nn.Module = network.eval()
    return loaded
