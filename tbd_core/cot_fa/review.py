"""Checks on a plan and on prompts, the user's own included. They raise or warn and change nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import InputError
from ..facs.action_units import make_unit
from ..facs.rules import hard_conflicts, missing_implications, soft_conflicts
from ..flow import ActionUnit, Prompts, Thought
from ..units import TEXT_TOKENS
from .prompts import unit_phrase
from .tokenizer import count_tokens, cut_to_budget


REPEAT = 4  # words in a row that stand twice make a text redundant (paper Fig. 8: what CoT-FA avoids)


def review_plan(units: Sequence[ActionUnit], emotion: str | None = None) -> tuple[str, ...]:
    """Warnings on a plan; InputError for units that do not exist or that no face can show at once."""
    for unit in units:
        make_unit(unit.number, unit.level, unit.side)
    hard = hard_conflicts(units)
    if hard:
        raise InputError("; ".join(finding.text for finding in hard))
    return tuple(f.text for f in (*soft_conflicts(units, emotion), *missing_implications(units)))


def require_words(name: str, text: str) -> str:
    """`text`; InputError if a prompt was given but says nothing."""
    if not text.strip():
        raise InputError(f"the {name} prompt is blank (0 words); give it at least 1 word, or leave it out")
    return text


def missing_units(units: Sequence[ActionUnit], text: str) -> tuple[ActionUnit, ...]:
    """Units of the plan that `text` does not name with their level and side."""
    words = " ".join(text.lower().split())
    return tuple(u for u in units if not re.search(rf"\b{re.escape(unit_phrase(u))}\b", words))


def repeated_words(text: str, length: int = REPEAT) -> str:
    """The first run of `length` or more words that stands twice in `text`, as long as it goes; or ""."""
    words = re.findall(r"[\w'-]+", text.lower())
    seen: dict[tuple[str, ...], int] = {}
    for i in range(len(words) - length + 1):
        gram = tuple(words[i : i + length])
        first = seen.setdefault(gram, i)
        if first + length <= i:
            n = length
            while i + n < len(words) and first + n < i and words[first + n] == words[i + n]:
                n += 1
            return " ".join(words[i : i + n])
    return ""


def over_budget(name: str, text: str, budget: int = TEXT_TOKENS) -> tuple[str, ...]:
    """A warning that quotes the words CLIP would not read, or nothing."""
    count = count_tokens(text)
    if count <= budget:
        return ()
    cut = cut_to_budget(text, budget)[1]
    return (f"the {name} prompt has {count} tokens, CLIP reads {budget}; these words are cut: {cut!r}",)


def review_prompts(prompts: Prompts, units: Sequence[ActionUnit] = ()) -> tuple[str, ...]:
    """Warnings on prompts, written or edited; InputError for a blank one (a blank negative is fine)."""
    warnings: list[str] = []
    for name, text in (("coarse", prompts.coarse), ("fine", prompts.fine), ("negative", prompts.negative)):
        if name != "negative":
            require_words(name, text)
        if prompts.style == "clip":
            warnings += over_budget(name, text)
        repeated = repeated_words(text)
        if repeated:
            warnings.append(f"the {name} prompt says {repeated!r} twice")
    for unit in missing_units(units, prompts.fine):
        phrase = unit_phrase(unit)
        warnings.append(f"AU{unit.number} is in the plan, but the fine prompt does not say {phrase!r}")
    return tuple(warnings)


def review(thought: Thought) -> tuple[str, ...]:
    """All checks on a thought, for example after its prompts were edited."""
    return (
        *review_plan(thought.action_units, thought.emotion),
        *review_prompts(thought.prompts, thought.action_units),
    )
