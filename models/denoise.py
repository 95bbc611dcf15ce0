"""The denoising loop over diffusers' networks and schedulers, in free functions.

A ControlNet whose guidance has ended is not computed; diffusers' own pipelines compute it and multiply it by 0.
"""

# ruff: noqa: PLC0415 - torch and diffusers are heavy, and only studio workers have them

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from models.compiled import Regions
from models.graphs import Function, Graphs
from models.prompt import Words
from models.requests import Check, Tell, untold
from pipeline.errors import InternalError
from pipeline.types import U8

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Seen:
    """What all networks of a step see: B is 2 with guidance (first unwanted, then wanted), else 1 (wanted).

    Attributes:
        noisy: [B, 4, h, w], scaled for the timestep, in the networks' dtype.
        timestep: a scalar on the device.
        states: [B, 77, 2048] of the prompts.
        pooled: [B, 1280] of the prompts.
        sizes: [B, 6], which SDXL calls `time_ids`.
    """

    noisy: torch.Tensor
    timestep: torch.Tensor
    states: torch.Tensor
    pooled: torch.Tensor
    sizes: torch.Tensor

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All of them, in order."""
        return self.noisy, self.timestep, self.states, self.pooled, self.sizes

    def named(self) -> dict[str, Any]:
        """What diffusers' networks call the prompts."""
        return {
            "encoder_hidden_states": self.states,
            "added_cond_kwargs": {"text_embeds": self.pooled, "time_ids": self.sizes},
            "return_dict": False,
        }


@dataclass(frozen=True, slots=True)
class Guidance:
    """Classifier-free guidance (Ho and Salimans 2022).

    Attributes:
        unwanted: the negative prompt.
        scale: how far the prediction moves away from it; more than 1.
        until: share of the steps after which there is none.
    """

    unwanted: Words
    scale: float
    until: float


@dataclass(frozen=True, slots=True)
class Residuals:
    """What a ControlNet adds to the UNet's skip connections and to its middle."""

    down: Sequence[torch.Tensor]
    middle: torch.Tensor

    def plus(self, other: Residuals) -> Residuals:
        """Both together."""
        down = [mine + theirs for mine, theirs in zip(self.down, other.down, strict=True)]
        return Residuals(down, self.middle + other.middle)


class ControlNetwork(Protocol):
    """A ControlNet of either kind. It lives as long as recordings of its steps do, which read its tensors."""

    def __call__(self, seen: Seen, pictures: Sequence[torch.Tensor], weights: Sequence[torch.Tensor]) -> Residuals:
        """What it adds, from pictures [B, 3, H, W] of its conditions and their weights, scalars on the device."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A picture that a ControlNet holds the painting to.

    Attributes:
        picture: [2, 3, H, W] in 0 to 1, from `condition`.
        weight: of what it adds.
        until: share of the steps after which it is let go.
    """

    picture: torch.Tensor
    weight: float
    until: float

    def weights(self, steps: int) -> list[float]:
        """At each step."""
        return [self.weight if is_active(index, steps, self.until) else 0.0 for index in range(steps)]


@dataclass(frozen=True, slots=True)
class Held:
    """A ControlNet and its conditions. It has no part in a step where all of them weigh nothing."""

    network: ControlNetwork
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Launch:
    """How the networks of a step are launched: recorded or not, compiled or not."""

    graphs: Graphs
    regions: Regions

    def run(self, name: Hashable, function: Function, *inputs: torch.Tensor) -> torch.Tensor:
        """As `Graphs.run`; the first input is what the network is asked to take noise from."""
        with self.regions.at(tuple(inputs[0].shape)):
            return self.graphs.run(name, function, *inputs)


def first_noise(height_px: int, width_px: int, seed: int) -> torch.Tensor:
    """float32 [1, 4, H / 8, W / 8] of unit variance, drawn on the CPU: the same on every device."""
    import torch

    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn((1, 4, height_px // 8, width_px // 8), generator=generator)


def is_active(index: int, of: int, until: float) -> bool:
    """Whether step `index` of `of` ends within the share `until` of all steps."""
    return not (index + 1) / of > until


def condition(picture: U8, like: torch.nn.Module) -> torch.Tensor:
    """[2, 3, H, W] in 0 to 1, in the dtype and on the device of a network, from uint8 [H, W]: twice the same."""
    import torch

    weight = next(like.parameters())
    grey = torch.from_numpy(picture).to(weight.device, torch.float32) / 255
    return grey.to(weight.dtype).expand(2, 3, *picture.shape).contiguous()


def denoise(
    unet: Any,
    scheduler: Any,
    controls: Sequence[Held],
    wanted: Words,
    guidance: Guidance | None,
    noise: torch.Tensor,
    launch: Launch,
    check: Check,
    tell: Tell = untold,
) -> torch.Tensor:
    """The latents of a picture.

    Args:
        unet: a `UNet2DConditionModel`.
        scheduler: with its timesteps set.
        controls: what bends the UNet.
        wanted: the prompt.
        guidance: away from another one; None: none.
        noise: from `first_noise`.
        launch: of the steps of these networks.
        check: called before each step, and between the networks of one that isn't replayed; what it raises ends the
            work.
        tell: told of each step as it begins.

    Returns:
        float32 [1, 4, h, w], on the networks' device.

    Raises:
        InternalError: they hold a value that is no number.
    """
    weight = next(unet.parameters())
    latents: torch.Tensor = noise.to(weight.device) * scheduler.init_noise_sigma
    both = (wanted,) if guidance is None else (guidance.unwanted, wanted)
    prompts = _prompts(both, noise)
    scheduler.set_begin_index(0)  # or it looks the first timestep up, which waits for the device
    steps = scheduler.timesteps
    bent = _bent(controls, len(steps), weight.device)
    for index, timestep in enumerate(steps):
        check()
        tell(f"step {index + 1} of {len(steps)}", index / len(steps))
        guided = guidance is not None and is_active(index, len(steps), guidance.until)
        if not guided:
            prompts = [tensor[-1:] for tensor in prompts]
        noisy = scheduler.scale_model_input(latents, timestep).to(weight.dtype).expand(len(prompts[0]), -1, -1, -1)
        seen = Seen(noisy.contiguous(), timestep, *prompts)
        predicted = _predict(unet, seen, bent[index], launch, check).float()
        if guidance is not None and guided:
            away, towards = predicted.chunk(2)
            predicted = away + guidance.scale * (towards - away)
        latents = scheduler.step(predicted, timestep, latents, return_dict=False)[0]
    check()
    if not bool(latents.isfinite().all()):
        raise InternalError
    return latents


def _prompts(both: Sequence[Words], noise: torch.Tensor) -> list[torch.Tensor]:
    """States, pooled embeddings and sizes, as `Seen` has them."""
    import torch

    states = torch.cat([words.states for words in both])
    pooled = torch.cat([words.pooled for words in both])
    height_px, width_px = 8 * noise.shape[2], 8 * noise.shape[3]
    # SDXL is told the size of the picture it was cut from, where the cut begins, and the size that is asked for.
    sizes = [height_px, width_px, 0, 0, height_px, width_px]
    return [states, pooled, torch.tensor([sizes] * len(both), dtype=torch.float32, device=states.device)]


@dataclass(frozen=True, slots=True)
class _Bend:
    """One ControlNet's part in one step: `weights` [conditions], on the device."""

    place: int
    held: Held
    weights: torch.Tensor


def _bent(controls: Sequence[Held], steps: int, device: torch.device) -> list[list[_Bend]]:
    """At each step, those that have a part in it."""
    import torch

    bent: list[list[_Bend]] = [[] for _ in range(steps)]
    for place, held in enumerate(controls):
        table = list(zip(*(one.weights(steps) for one in held.conditions), strict=True))
        weights = torch.tensor(table, dtype=torch.float32, device=device)
        for index in range(steps):
            if any(table[index]):
                bent[index].append(_Bend(place, held, weights[index]))
    return bent


def _predict(unet: Any, seen: Seen, bends: Sequence[_Bend], launch: Launch, check: Check) -> torch.Tensor:
    """What the networks predict of the noise: all of a step as one function of tensors."""
    batch = len(seen.noisy)
    inputs = [*seen.tensors()]
    for bend in bends:
        inputs += [one.picture[:batch] for one in bend.held.conditions]
        inputs.append(bend.weights)
    name = tuple(bend.place for bend in bends)
    return launch.run(name, partial(_computed, unet, [bend.held for bend in bends], check), *inputs)


def _computed(unet: Any, controls: Sequence[Held], check: Check, *inputs: torch.Tensor) -> torch.Tensor:
    seen, rest = Seen(*inputs[:5]), list(inputs[5:])
    total: Residuals | None = None
    for held in controls:
        pictures = [rest.pop(0) for _ in held.conditions]
        found = held.network(seen, pictures, rest.pop(0).unbind())
        total = found if total is None else total.plus(found)
        check()
    predicted: torch.Tensor = unet(
        seen.noisy,
        seen.timestep,
        down_block_additional_residuals=None if total is None else total.down,
        mid_block_additional_residual=None if total is None else total.middle,
        **seen.named(),
    )[0]
    return predicted
