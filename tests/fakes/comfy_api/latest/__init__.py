"""What the pack takes from the node API: `from comfy_api.latest import ComfyExtension, InputImpl, io, ui`."""

from __future__ import annotations

from . import _io as io
from . import _ui as ui


__all__ = ["ComfyExtension", "InputImpl", "io", "ui"]


class ComfyExtension:
    async def on_load(self) -> None:
        """0.8.0 never calls it."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        raise TypeError(f"{type(self).__name__} lists no nodes")


class _VideoFromFile:
    def __init__(self, file):
        self.file = file

    def get_stream_source(self):
        return self.file


class InputImpl:
    VideoFromFile = _VideoFromFile
