"""Whether a network computes what it should before its time is believed: its size, its weights, each layer's numbers.

The models' own checks look at what leaves a network. A layer in which all went wrong can stay behind that: its output
may be masked, clamped or left unused. So every layer is looked at here, in a pass that is not timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from benchmarks.studio.least import PARAMETERS_M, PARAMETERS_WITHIN

MASKED = frozenset({"GroundingDinoContrastiveEmbedding"})
"""Layers that set what does not count to minus infinity; there NaN alone is a fault."""


class UnsoundError(Exception):
    """A network is not what is to be timed."""


def check_networks(unit: str, networks: Sequence[Any], *, full_size: bool) -> float:
    """Refuse networks of another size than the published ones, or with a matrix or kernel of nothing but zeros.

    Args:
        unit: name of the unit that they belong to.
        networks: modules of torch.
        full_size: whether they should have the published sizes.

    Returns:
        Their parameters, in millions.

    Raises:
        UnsoundError: they are so.
    """
    counts: list[float] = [sum(weight.numel() for weight in network.parameters()) / 1e6 for network in networks]
    expected = PARAMETERS_M[unit]
    within = all(abs(count / wanted - 1) <= PARAMETERS_WITHIN for count, wanted in zip(counts, expected, strict=True))
    if full_size and not within:
        raise UnsoundError(f"the {unit} has {counts} million parameters, not {list(expected)}")
    for network in networks:
        for name, weight in network.named_parameters():
            if weight.dim() >= 2 and not bool(weight.any()):
                raise UnsoundError(f"in the {unit}, {name} is all zeros")
    return round(sum(counts), 1)


@contextmanager
def watched(unit: str, networks: Sequence[Any]) -> Iterator[None]:
    """While it is open, every layer's output must be finite.

    Raises:
        UnsoundError: from within the forward pass, naming the first layer whose output is not; or at the end, where no
            layer ran.
    """
    seen = [0]

    def look(name: str) -> Callable[[Any, Any, Any], None]:
        def hook(layer: Any, _: Any, output: Any) -> None:
            seen[0] += 1
            masked = type(layer).__name__ in MASKED
            for tensor in tensors_in(output):
                if bool(tensor.isnan().any()) or not (masked or bool(tensor.isfinite().all())):
                    raise UnsoundError(f"in the {unit}, {name} gives numbers that are none")

        return hook

    with ExitStack() as hooks:
        for network in networks:
            for name, layer in network.named_modules():
                if next(layer.children(), None) is None:
                    hooks.callback(layer.register_forward_hook(look(name)).remove)
        yield
    if not seen[0]:
        raise UnsoundError(f"nothing of the {unit} ran")


def tensors_in(value: Any) -> Iterator[Any]:
    """The floating-point tensors that a layer takes or gives, however they are wrapped."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        for part in value:
            yield from tensors_in(part)
    elif hasattr(value, "is_floating_point") and value.is_floating_point():
        yield value
