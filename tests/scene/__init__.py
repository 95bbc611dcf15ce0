"""The project's own test photograph: a red coupé in front of a house, drawn wholly by code."""

from tests.scene.render import Scene, encode_jpeg, render_scene

__all__ = ["Scene", "encode_jpeg", "render_scene"]
