"""Think-Before-Draw for ComfyUI: portrait + speech + emotion -> a talking video.

ComfyUI loads this file as a package named by its folder's path; pytest and other tools import it bare, as
`__init__`, where relative imports cannot work. The guard keeps both alive.
"""

__all__: list[str] = []

if __package__:
    from . import nodes  # noqa: F401  the nodes register here once they exist
