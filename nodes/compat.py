"""Differences between ComfyUI 0.8.0 and newer ones, in one place."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from comfy_api.latest import io


Vae = getattr(io, "VAE", None) or io.Vae


def has(field: str) -> bool:
    """Whether this ComfyUI's node schema has such a field."""
    return any(known.name == field for known in fields(io.Schema))


def extra(**wanted: Any) -> dict[str, Any]:
    """The fields this ComfyUI knows: `io.Schema(node_id="…", …, **extra(search_aliases=[…]))`.

    Not a wrapper around Schema: ComfyUI-Manager finds nodes by the literal call in the source.
    """
    return {field: value for field, value in wanted.items() if has(field)}
