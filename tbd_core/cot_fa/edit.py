"""Whose words are drawn: the generated prompts, or those that a person wrote over them. *Ours.*

    mode    generated prompts     what goes on
    auto    asked for             they do; a prompt that nothing generates is the person's
    review  asked for             nothing: they are shown and wait
    edited  not even asked for    the person's

A person's words are only read here, never written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..flow import Prompts, Thought
from ..units import TEXT_TOKENS
from .review import review_plan, review_prompts
from .tokenizer import count_tokens, cut_to_budget


MODES = ("auto", "review", "edited")
TEXTS = ("coarse", "fine", "negative")


@dataclass(frozen=True)
class Settled:
    """The three texts and what there is to say about them."""

    texts: tuple[str, str, str]  # as TEXTS
    tokens: tuple[int, int, int]  # CLIP's, begin and end included
    warnings: tuple[str, ...]
    mode: str
    digest: str  # of the texts alone

    @property
    def blocked(self) -> bool:
        """Whether the texts wait for a person before anything is drawn from them."""
        return self.mode == "review"

    def ui(self) -> dict[str, list[Any]]:
        """What the page shows; ComfyUI wants every value as a list."""
        shown: dict[str, list[Any]] = {name: [text] for name, text in zip(TEXTS, self.texts, strict=True)}
        return shown | {
            "tokens": list(self.tokens),
            "warnings": list(self.warnings),
            "digest": [self.digest],
            "state": [self.mode],
        }


def needed(mode: str, waiting: Collection[str]) -> list[str]:
    """Of the linked inputs that are not computed yet, those to compute: all of them, or none of them if edited."""
    return [] if _known(mode) == "edited" else list(waiting)


def settle(
    mode: str, generated: Mapping[str, str | None], written: Mapping[str, str], thought: Thought | None = None
) -> Settled:
    """The texts of `mode` with their review.

    generated  by name of TEXTS; one that nothing is linked to is absent
    written    by name of TEXTS, all three: a person's
    thought    the plan that the fine prompt should name, and the style; it is not used for a person's texts
    Raises InputError for an unknown mode, for a coarse or fine prompt without words, and for a plan that no face can
    show.
    """
    linked = {} if _known(mode) == "edited" else generated
    texts = [linked[name] if name in linked else written[name] for name in TEXTS]
    for name, text in zip(TEXTS, texts, strict=True):
        if not isinstance(text, str):
            raise InputError(f"{name} is linked, but {text!r} arrived; link a text, or set mode to edited")
        if name != "negative" and not text.strip():
            raise InputError(_blank(mode, name, name in linked))
    coarse, fine, negative = map(str, texts)
    tokens = (count_tokens(coarse), count_tokens(fine), count_tokens(negative))
    plan = thought if mode != "edited" else None
    if plan is None:
        # Which encoder follows is not known here, and umT5 and the like read every word.
        prompts = Prompts(coarse, fine, negative, "natural", tokens)
        warnings = (*_only_for_clip((coarse, fine, negative), tokens), *review_prompts(prompts))
    else:
        prompts = Prompts(coarse, fine, negative, plan.prompts.style, tokens)
        warnings = review_plan(plan.action_units, plan.emotion) + review_prompts(prompts, plan.action_units)
    digest = hashlib.sha256(json.dumps([coarse, fine, negative]).encode()).hexdigest()[:16]
    return Settled((coarse, fine, negative), tokens, warnings, mode, digest)


def _only_for_clip(texts: Sequence[str], tokens: Sequence[int]) -> list[str]:
    """A warning for each text that is too long for CLIP, if it is CLIP that reads it."""
    return [
        f"the {name} prompt has {count} tokens; a CLIP encoder reads {TEXT_TOKENS} and would cut "
        f"{cut_to_budget(text)[1]!r}, others read all"
        for name, text, count in zip(TEXTS, texts, tokens, strict=True)
        if count > TEXT_TOKENS
    ]


def _known(mode: str) -> str:
    if mode not in MODES:
        raise InputError(f"mode is {mode!r}; choose {', '.join(MODES)}")
    return mode


def _blank(mode: str, name: str, linked: bool) -> str:
    blank = f"mode is {mode} and the {name} prompt is blank (0 words)"
    if mode == "edited":
        return f"{blank}; write at least 1 word into {name}_text, or set mode to auto"
    where = f"what is linked to {name} gave no words" if linked else f"nothing is linked to {name}"
    return f"{blank}: {where}; link a prompt there, or write one into {name}_text" + (
        " and set mode to edited" if linked else ""
    )
