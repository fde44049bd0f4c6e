"""Think-Before-Draw: portrait + speech + emotion → talking video. Importing this is silent and cheap."""

__version__ = "0.1.0"
