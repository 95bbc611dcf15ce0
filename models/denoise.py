"""The denoising loop over diffusers' networks and schedulers, in free functions.

A ControlNet whose guidance has ended is not computed; diffusers' own pipelines compute it and multiply it by 0.
"""

# ruff: noqa: PLC0415 - torch and diffusers are heavy, and only studio workers have them

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.prompt import Words
from models.requests import Check, Tell, untold
from pipeline.errors import InternalError
from pipeline.types import U8

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Step:
    """One call of the networks: B is 2 with guidance (first unwanted, then wanted), else 1 (wanted).

    Attributes:
        index, of: number of the step from 0, and how many there are.
        noisy: [B, 4, h, w], scaled for the timestep, in the networks' dtype.
        timestep: a scalar on the device.
        states: [B, 77, 2048] of the prompts.
        added: `text_embeds` [B, 1280] and `time_ids` [B, 6].
    """

    index: int
    of: int
    noisy: torch.Tensor
    timestep: torch.Tensor
    states: torch.Tensor
    added: dict[str, torch.Tensor]


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


Control = Callable[[Step], Residuals | None]
"""A ControlNet with its picture and weight; None for a step in which it has no part."""


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
    controls: Sequence[Control],
    wanted: Words,
    guidance: Guidance | None,
    noise: torch.Tensor,
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
        check: called before each network of each step; what it raises ends the work.
        tell: told of each step as it begins.

    Returns:
        float32 [1, 4, h, w], on the networks' device.

    Raises:
        InternalError: they hold a value that is no number.
    """
    weight = next(unet.parameters())
    latents: torch.Tensor = noise.to(weight.device) * scheduler.init_noise_sigma
    both = (wanted,) if guidance is None else (guidance.unwanted, wanted)
    states, added = _prompts(both, noise)
    scheduler.set_begin_index(0)  # or it looks the first timestep up, which waits for the device
    steps = scheduler.timesteps
    for index, timestep in enumerate(steps):
        check()
        tell(f"step {index + 1} of {len(steps)}", index / len(steps))
        guided = guidance is not None and is_active(index, len(steps), guidance.until)
        if not guided:
            states, added = states[-1:], {name: tensor[-1:] for name, tensor in added.items()}
        noisy = scheduler.scale_model_input(latents, timestep).to(weight.dtype).expand(len(states), -1, -1, -1)
        step = Step(index, len(steps), noisy.contiguous(), timestep, states, added)
        residuals = _sum(controls, step, check)
        predicted = _predict(unet, step, residuals).float()
        if guidance is not None and guided:
            away, towards = predicted.chunk(2)
            predicted = away + guidance.scale * (towards - away)
        latents = scheduler.step(predicted, timestep, latents, return_dict=False)[0]
    check()
    if not bool(latents.isfinite().all()):
        raise InternalError
    return latents


def _prompts(both: Sequence[Words], noise: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    import torch

    states = torch.cat([words.states for words in both])
    pooled = torch.cat([words.pooled for words in both])
    height_px, width_px = 8 * noise.shape[2], 8 * noise.shape[3]
    # SDXL is told the size of the picture it was cut from, where the cut begins, and the size that is asked for.
    sizes = [height_px, width_px, 0, 0, height_px, width_px]
    ids = torch.tensor([sizes] * len(both), dtype=torch.float32, device=states.device)
    return states, {"text_embeds": pooled, "time_ids": ids}


def _sum(controls: Sequence[Control], step: Step, check: Check) -> Residuals | None:
    total = None
    for control in controls:
        found = control(step)
        if found is not None:
            total = found if total is None else total.plus(found)
            check()
    return total


def _predict(unet: Any, step: Step, residuals: Residuals | None) -> torch.Tensor:
    found: torch.Tensor = unet(
        step.noisy,
        step.timestep,
        encoder_hidden_states=step.states,
        down_block_additional_residuals=None if residuals is None else residuals.down,
        mid_block_additional_residual=None if residuals is None else residuals.middle,
        added_cond_kwargs=step.added,
        return_dict=False,
    )[0]
    return found
