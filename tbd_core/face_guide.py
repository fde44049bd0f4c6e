"""What Hallo's weights want of a face besides the portrait: who it is, where it lies, where its lips are.

face box, lip box ──masks──► AudioMasks, FaceLocator's feature ┐
embedding [512] ──ImageProjection──► face tokens ──────────────┴─► FaceGuide ──hear──► Context

The unguided pass has the tokens of nobody (an embedding of zeros) and no feature, as Hallo's. Not built again: its
mixing of both rows' tokens in ReferenceNet (docs/design.md, "Hallo's bugs, not rebuilt").
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .config import TEXT_STRENGTH, UNetConfig
from .devices import place
from .embedding import EMBEDDING, NUMBERS
from .errors import InputError
from .faces import DEFAULT_MARGIN, Face, Request, find_face
from .masks import audio_masks, locator_mask


if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

    from .crops import Seen
    from .models.attention import AudioMasks

Rect = tuple[float, float, float, float]  # x, y, w, h

PLACE = (0.2, 0.2, 0.6, 0.6)  # of the picture, where a face is taken to be that no detector finds (ours)


@dataclass(frozen=True)
class Boxes:
    """Where the face and its lips lie, in pixels of the drawn picture."""

    face: Rect
    lips: Rect


# eq=False: samplers compare what they carry, and `==` over tensors has no single answer.
@dataclass(frozen=True, eq=False, repr=False)
class FaceGuide:
    """Everything lies where it was made; what a bundle does not want is None."""

    tokens: Tensor | None  # [1, N, D], what attn2 hears
    nobody: Tensor | None  # [1, N, D], the same without a face
    located: Tensor | None  # [1, C, h, w]
    masks: AudioMasks | None
    text_strength: float = TEXT_STRENGTH  # 0-1, of the words heard beside the tokens

    def unguided(self) -> FaceGuide:
        return replace(self, tokens=self.nobody, located=None)

    def hear(self, words: Tensor) -> dict[str, Any]:
        """Context's entries for text states `words` [B, N, D], which lie beside it."""
        if self.tokens is None:
            return {"text": words, "audio_masks": self.masks}
        return {
            "text": self.tokens.expand(len(words), -1, -1),
            "words": words,
            "words_scale": self.text_strength,
            "located": self.located,
            "audio_masks": self.masks,
        }

    def tensors(self) -> list[Tensor]:
        """All that decides what is drawn, beside `text_strength`."""
        parts = [self.tokens, self.nobody, self.located, *(mask for branch in self.masks or () for mask in branch)]
        return [part for part in parts if part is not None]

    def on(self, like: Tensor) -> FaceGuide:
        """Where `like` lies and in its type."""

        def bring(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.to(like.device, like.dtype)

        masks = self.masks and type(self.masks)(*([mask.to(like.device) for mask in branch] for branch in self.masks))
        return replace(
            self, tokens=bring(self.tokens), nobody=bring(self.nobody), located=bring(self.located), masks=masks
        )


def guide_by(
    config: UNetConfig, boxes: Boxes, embedding: Tensor | None, size: tuple[int, int], imageproj: nn.Module | None,
    face_locator: nn.Module | None, text_strength: float = TEXT_STRENGTH,
) -> FaceGuide:  # fmt: skip
    """What a bundle's two small networks make of a face, where they compute. `embedding` [512], None: nobody's; `size`
    W, H pixels that are drawn. InputError for a box that does not meet the picture, and for such a strength."""
    import torch

    if not 0 <= text_strength <= 1:  # NaN is not between either
        raise InputError(f"the text strength is {text_strength}; give a number from 0 to 1")
    masks = audio_masks(boxes.face, boxes.lips, size) if config.audio == "hierarchical" else None
    if imageproj is None or face_locator is None:
        return FaceGuide(None, None, None, masks, text_strength)
    device, dtype = place(imageproj)
    with torch.no_grad():
        zeros = torch.zeros(1, EMBEDDING, device=device, dtype=dtype)
        nobody = imageproj(zeros)
        tokens = nobody if embedding is None else imageproj(embedding.to(zeros).reshape(1, -1))
        located = face_locator(locator_mask(boxes.face, size).to(zeros))
    return FaceGuide(tokens, nobody, located, masks, text_strength)


def place_face(
    picture: Image.Image, seen: Seen | None, detector: Request | None = None, source: str = "the portrait"
) -> tuple[Boxes, tuple[str, ...]]:
    """(boxes in the drawn `picture`, warnings). The face that `seen` chose, else the largest that a detector (`lbp`)
    finds, else PLACE, which is said."""
    if seen is not None and (face := seen.choice.face) is not None:
        boxes = Boxes(seen.crop.into(face.box), seen.crop.into(face.lip_box()))
        return boxes, _small_lips(boxes.lips)
    asked = replace(detector or Request(), which="largest", margin=DEFAULT_MARGIN)
    try:
        face, notes = find_face(picture, asked, source).face, ()
    except InputError as error:
        (x, y, w, h), (width, height) = PLACE, picture.size
        face = Face((round(x * width), round(y * height), round(w * width), round(h * height)))
        notes = (
            f"{error}; without it the masks of the face are laid over the middle {w:.0%} of the picture, and the lips "
            "may move in the wrong place",
        )
    assert face is not None  # which is not "whole"
    boxes = Boxes(face.box, face.lip_box())
    return boxes, (*notes, *_small_lips(boxes.lips))


def _small_lips(lips: Rect) -> tuple[str, ...]:
    """A warning when the lips' mask is empty: its edges lie on whole pixels (masks.rectangle)."""
    x, y, width, height = lips
    if round(x) < round(x + width) and round(y) < round(y + height):
        return ()
    return (
        f"the lips are {width:.2g} x {height:.2g} px of the drawn picture, which is 0 whole pixels, so Hallo's branch "
        "for them moves nothing; draw larger, or cut closer around the face",
    )


def notes_on(config: UNetConfig, embedding: Any, text_scale: float | None) -> tuple[str, ...]:
    """What a user should know of a bundle of Hallo's kinds."""
    said = []
    if config.context != "text" and embedding is None:
        said.append(
            "no face embedding was given, so the face tokens are nobody's and the likeness comes from the portrait "
            f"alone; give {NUMBERS}"
        )
    if config.context == "face":
        said.append(
            "this bundle hears no words (hallo-compat): the prompts and the emotion change nothing; convert hallo-text "
            "for SD 1.5's text beside the face"
        )
        if text_scale is not None:
            said.append(f"text-scale {text_scale:g} changes nothing, and costs a pass")
    return tuple(said)


__all__ = ["Boxes", "FaceGuide", "guide_by", "notes_on", "place_face"]
