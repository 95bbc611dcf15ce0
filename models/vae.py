"""SDXL's decoder: from latents to a picture."""

# ruff: noqa: PLC0415 - torch and diffusers are heavy, and only studio workers have them

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.device import Device
from models.files import ModelFiles
from models.graphs import Graphs, graphs_for
from models.networks import fill_network
from pipeline.errors import InternalError
from pipeline.types import U8

if TYPE_CHECKING:
    import torch

VAE_FILES = ("config.json", "diffusion_pytorch_model.safetensors")
"""Of the row sdxl-vae-fp16-fix."""

_NEW_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""What diffusers called the attention's layers before version 0.15, and what it calls them now."""


class Vae:
    """The decoder half. Use `load_vae`.

    Attributes:
        networks: the one network, without its encoder.
        graphs: recordings of it.
        native_px: side of the square that the diffusion model was trained on, in pixels.
    """

    def __init__(self, network: Any, native_px: int, graphs: Graphs) -> None:
        self.networks: tuple[torch.nn.Module, ...] = (network,)
        self.graphs = graphs
        self.native_px = native_px
        self._network = network

    def decode(self, latents: torch.Tensor, *, tiled: bool = False) -> U8:
        """The picture of some latents.

        Args:
            latents: [1, 4, H / 8, W / 8], as a painter gives them.
            tiled: in overlapping tiles that are blended, for where memory is short; not the same pixels, and not
                recorded: a recording holds memory.

        Returns:
            uint8 [H, W, 3], sRGB.

        Raises:
            InternalError: the latents, or the picture, hold a value that is no number.
        """
        import torch

        network = self._network
        network.use_tiling = tiled
        with torch.inference_mode():
            scaled = (latents / network.config.scaling_factor).to(next(network.parameters()).dtype)
            found = (self._found(scaled) if tiled else self.graphs.run("decoder", self._found, scaled))[0].float()
            if not bool(torch.isfinite(found).all()):
                raise InternalError
            levels = ((found / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
            return levels.permute(1, 2, 0).contiguous().cpu().numpy()

    def _found(self, scaled: torch.Tensor) -> torch.Tensor:
        """[1, 3, H, W], about −1 to 1."""
        found: torch.Tensor = self._network.decode(scaled, return_dict=False)[0]
        return found


def load_vae(vae: ModelFiles, base: ModelFiles, device: Device) -> Vae:
    """The decoder of sdxl-vae-fp16-fix, in `device.half`, for the UNet of sdxl-base.

    Raises:
        ModelMissing, ModelCorrupt: a file is not there, or is damaged, or doesn't fit.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    config_name, weights_name = VAE_FILES
    tensors = {_renamed(name): tensor for name, tensor in vae.tensors(weights_name).items()}
    network = fill_network(AutoencoderKL, vae.json(config_name), tensors, vae.name, device)
    network.encoder = network.quant_conv = None
    latent_px = 1 << (len(network.config.block_out_channels) - 1)
    return Vae(network, base.json("unet/config.json")["sample_size"] * latent_px, graphs_for(device))


def _renamed(name: str) -> str:
    *start, layer, kind = name.split(".")
    return ".".join((*start, _NEW_NAMES.get(layer, layer), kind)) if "attentions" in start else name
