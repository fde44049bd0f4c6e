"""Think-Before-Draw for ComfyUI: portrait + speech + emotion -> a talking video.

ComfyUI loads this file as a package named by its folder's path; pytest and other tools import it bare, as
`__init__`, where relative imports cannot work. The guard keeps both alive. There is no NODE_CLASS_MAPPINGS on
purpose: with one, even an empty one, ComfyUI would never call `comfy_entrypoint`.
"""

import logging
import sys


__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]

WEB_DIRECTORY = "./web"

if __package__:
    try:
        from . import nodes  # noqa: F401  here, so that a host without the node API says so at start
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "comfy_api":
            raise
        found = getattr(sys.modules.get("comfyui_version"), "__version__", "an older one")
        message = f"Think-Before-Draw found ComfyUI {found}; its nodes need 0.8.0 or newer: update ComfyUI"
        logging.getLogger("tbd").error(message)
        raise ImportError(message, name=error.name) from error


async def comfy_entrypoint():
    """What ComfyUI asks for the nodes."""
    from .nodes import Pack

    return Pack()
