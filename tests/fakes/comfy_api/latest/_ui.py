"""What a node may show below itself."""

from __future__ import annotations

from ._io import FolderType


__all__ = ["PreviewText", "PreviewVideo", "SavedResult"]


class SavedResult(dict):
    def __init__(self, filename: str, subfolder: str, type: FolderType):
        super().__init__(filename=filename, subfolder=subfolder, type=type.value)


class PreviewText:
    def __init__(self, value: str):
        self.value = value

    def as_dict(self) -> dict:
        return {"text": (self.value,)}


class PreviewVideo:
    def __init__(self, values: list[SavedResult]):
        self.values = values

    def as_dict(self) -> dict:
        return {"images": self.values, "animated": (True,)}
