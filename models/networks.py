"""A network of the diffusers library with a row's weights in it: nothing is initialised in vain, nothing is missing."""

# ruff: noqa: PLC0415 - torch is heavy, and only studio workers have it

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from models.device import Device
from models.files import ModelFiles
from pipeline.errors import ModelCorrupt

if TYPE_CHECKING:
    import torch


def load_network(kind: Any, files: ModelFiles, config_name: str, weights_name: str, device: Device) -> Any:
    """A network from its configuration and its one weight file, in `device.half`, ready for inference.

    Args:
        kind: the library's class.
        files: of the row.
        config_name, weights_name: of its files.
        device: where it goes.

    Raises:
        ModelMissing: a file is not there.
        ModelCorrupt: a weight is missing, is not known, or has another shape than the configuration says.
    """
    config = files.json(config_name)
    return fill_network(kind, config, files.tensors(weights_name), files.name, device)


def fill_network(kind: Any, config: dict[str, Any], tensors: dict[str, torch.Tensor], row: str, device: Device) -> Any:
    """As `load_network`, from tensors by name; the mapping is emptied on the way, so that no second copy stays."""
    import torch

    with torch.device("meta"):
        network = kind.from_config(config)
    return place_weights(network, tensors, row, device, device.dtype())


@contextmanager
def timed_moves() -> Iterator[list[float]]:
    """Gives a list that gets the seconds of each tensor's move to a device or into another dtype, whoever moves it.

    A move from the host's ordinary memory has ended when torch returns, so the host's clock is right for a GPU as well.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    seconds: list[float] = []

    class Moves(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            del types
            began_s = time.perf_counter()
            result = func(*args, **({} if kwargs is None else kwargs))
            if func is torch.Tensor.to:
                seconds.append(time.perf_counter() - began_s)
            return result

    with Moves():
        yield seconds


def place_weights(network: Any, tensors: dict[str, torch.Tensor], row: str, device: Device, dtype: torch.dtype) -> Any:
    """Give a network without values its weights, and make it ready for inference.

    Args:
        network: of meta tensors.
        tensors: by the names that the network gives them; emptied on the way, so that no second copy stays.
        row: of the registry, for messages.
        device: where it goes.
        dtype: of what is a floating-point number.

    Raises:
        ModelCorrupt: a weight is missing, is not known, or has another shape than the network's.
    """
    import torch

    wanted = network.state_dict()
    missing, unexpected = wanted.keys() - tensors.keys(), tensors.keys() - wanted.keys()
    unlike = [name for name in wanted.keys() & tensors.keys() if wanted[name].shape != tensors[name].shape]
    if missing or unexpected or unlike:
        raise ModelCorrupt(
            f"the weights of {row} don't fit its configuration: {len(missing)} are missing, "
            f"{len(unexpected)} are unknown, {len(unlike)} have the wrong shape"
        )
    network.requires_grad_(requires_grad=False)
    placed = {}
    for name in wanted:
        tensor = tensors.pop(name)
        placed[name] = tensor.to(device.place(), dtype if tensor.is_floating_point() else tensor.dtype)
    network.load_state_dict(placed, strict=True, assign=True)
    network.to(device.place())
    if device.channels_last:
        network.to(memory_format=torch.channels_last)
    return network.eval()
