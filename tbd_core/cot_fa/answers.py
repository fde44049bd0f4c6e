"""What a language model answered → one step's data, checked against the FACS tables; else an InputError.

An answer is data: only the fields asked for are read, each must have its form, and text may hold nothing but plain
words, so that no path, no markup and no prompt syntax ("(word:1.2)", "embedding:x", "{a|b}") gets through. *Ours.*
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InputError
from ..facs.action_units import make_unit, value
from ..flow import LEVELS, SIDES, ActionUnit, MuscleMovement, Prompts
from ..units import TEXT_TOKENS
from .knowledge import EMOTION_WORDS
from .prompts import unit_phrase
from .questions import (
    MOST_FACE_WORDS,
    MOST_MOVEMENT_WORDS,
    MOST_NATURAL_WORDS,
    MOST_SUBJECT_WORDS,
    MOST_UNITS,
)
from .review import missing_units, repeated_words, review_plan
from .tokenizer import count_tokens


MOST_CHARACTERS = 16_000  # of one answer, a model's thinking aloud included; ours has under 1000
MOST_LETTERS = 30  # of one word
SHOWN = 60  # characters of an answer that a fault quotes
WORDS = re.compile(r"[^\W\d_]+(?:(?:, |[ '’-])[^\W\d_]+)*")
SENTENCES = {  # the style's punctuation; brackets around a part of a muscle, as the templates have it
    "clip": re.compile(r"(?:[^\W_]|[ .,;'’-])+"),
    "natural": re.compile(r"(?:[^\W_]|[ .,;'’()-]|:(?= [^\W\d_]))+"),  # no number behind a colon: "(word: 1.2)"
}
THINKING_ALOUD = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
UNIT_NUMBER = re.compile(r"(?:AU ?)?(\d{1,3})", re.IGNORECASE)


def parse(text: str) -> dict[str, Any]:
    """The JSON object of an answer, in a fence or between other words too, as models like to give it."""
    if len(text) > MOST_CHARACTERS:
        raise InputError(f"the answer has more than {MOST_CHARACTERS} characters; one short JSON object was asked for")
    said = THINKING_ALOUD.sub("", text).strip()
    if not said:
        raise InputError(f"the answer is empty ({len(text)} characters, no JSON); one JSON object was asked for")
    begin = said.find("{")
    if begin < 0:
        raise InputError(f"there is no JSON object in the answer, which begins {quote(said)}")
    try:
        found, _ = json.JSONDecoder().raw_decode(said[begin:])
    except json.JSONDecodeError as error:
        raise InputError(
            f"the JSON is not valid: {error.msg} at character {error.pos} of {quote(said[begin:])}"
        ) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets in brackets without end
        raise InputError(f"the JSON cannot be read ({type(error).__name__}): {quote(said[begin:])}") from None
    return found


def quote(value: Any, most: int = SHOWN) -> str:
    """An answer's value for a message: on one line, short, and without the brackets of a model's own marks."""
    shown = repr(value)
    return re.sub(r"[<>]", " ", shown if len(shown) <= most else f"{shown[:most]}…")


def plain_words(name: str, given: Any, most_words: int) -> str:
    """Words with commas, hyphens and apostrophes between them, on one line."""
    if not isinstance(given, str):
        raise InputError(f"{name} is {quote(given)}; a text was asked for")
    text = " ".join(given.split()).rstrip(" .,;!")
    if not text:
        raise InputError(f"{name} is blank (0 words); at least 1 was asked for")
    _check_length(name, text, most_words)
    if not WORDS.fullmatch(text):
        raise InputError(f"{name} is {quote(text)}; only letters, commas, hyphens and apostrophes are allowed")
    return text


def _check_length(name: str, text: str, most_words: int) -> None:
    words = text.split()
    if len(words) > most_words:
        raise InputError(f"{name} has {len(words)} words; at most {most_words} are allowed")
    if longest := max((word for word in words if len(word) > MOST_LETTERS), key=len, default=""):
        raise InputError(f"{name} has a word of {len(longest)} letters, {quote(longest)}; at most {MOST_LETTERS}")


def read_face(answer: Mapping[str, Any]) -> tuple[str, str]:
    """Step I: (who is seen, how the face is at rest; "" where the answer does not say)."""
    subject = plain_words("subject", answer.get("subject"), MOST_SUBJECT_WORDS)
    if not re.match(r"(?:a|an) ", subject, re.IGNORECASE):
        raise InputError(f'subject is {quote(subject)}; it must begin with "a" or "an", as in "a person"')
    face = answer.get("face") or ""
    return subject[0].lower() + subject[1:], plain_words("face", face, MOST_FACE_WORDS) if face else ""


def read_units(answer: Mapping[str, Any], emotion: str) -> tuple[ActionUnit, ...]:
    """Step II: units of the table, ordered by number, that one face can show at once; () only for neutral."""
    given = _rows("units", answer.get("units"))
    if not given and emotion != "neutral":
        raise InputError(f"units is empty (0 units); {emotion} needs at least 1")
    if len(given) > MOST_UNITS:
        raise InputError(f"units has {len(given)} units; at most {MOST_UNITS} are allowed")
    units = tuple(sorted(map(_unit, given), key=lambda u: (u.number, u.side)))
    review_plan(units, emotion)
    return units


def _unit(row: Mapping[str, Any]) -> ActionUnit:
    level, side = row.get("level"), row.get("side", "both")
    if not isinstance(level, str) or level.upper() not in LEVELS:
        raise InputError(f"a unit has the level {quote(level)}; choose one of {', '.join(LEVELS)}")
    if not isinstance(side, str) or side.lower() not in SIDES:
        raise InputError(f"a unit has the side {quote(side)}; choose one of {', '.join(SIDES)}")
    unit = make_unit(_number(row.get("number")), level.upper(), side.lower())
    name = row.get("name")
    if name is not None and name != unit.name:
        raise InputError(f"unit {unit.number} is called {quote(name)}; AU{unit.number} is the {unit.name}")
    return unit


def _number(given: Any) -> int:
    """12, "12" and "AU12" are 12."""
    if isinstance(given, str) and (found := UNIT_NUMBER.fullmatch(given.strip())):
        return int(found[1])
    if not isinstance(given, int) or isinstance(given, bool):
        raise InputError(f"a unit has the number {quote(given)}; give a whole number of the list")
    return given if abs(given) < 10**6 else 10**6  # no row either way, and the message stays short


def _rows(name: str, given: Any) -> list[Mapping[str, Any]]:
    if not isinstance(given, list) or not all(isinstance(row, dict) for row in given):
        raise InputError(f"{name} is {quote(given)}; a list of objects was asked for")
    return given


def read_muscles(answer: Mapping[str, Any], units: Sequence[ActionUnit]) -> tuple[MuscleMovement, ...]:
    """Step III: muscles of these units alone, each once, in the units' order, and none of the units without one.

    Level and side follow from the units: a muscle's level is that of its strongest unit.
    """
    by_number: dict[int, list[ActionUnit]] = {}  # a left and a right one may share it
    for unit in units:
        by_number.setdefault(unit.number, []).append(unit)
    order = list(dict.fromkeys(muscle for unit in units for muscle in unit.muscles))
    found: dict[str, MuscleMovement] = {}
    for row in _rows("muscles", answer.get("muscles")):
        muscle = row.get("muscle")
        if not isinstance(muscle, str) or muscle not in order:
            raise InputError(f"there is no muscle {quote(muscle)} in this plan; choose among {', '.join(order)}")
        if muscle in found:
            raise InputError(f"{muscle} stands twice; name every muscle once")
        numbers = row.get("units")
        if not isinstance(numbers, list) or not numbers:
            raise InputError(f"{muscle} has the units {quote(numbers)}; a list of at least 1 number was asked for")
        asked = [unit for number in map(_number, numbers) for unit in by_number.get(number) or _no_unit(number, muscle)]
        if idle := [unit for unit in asked if muscle not in unit.muscles]:
            unit = idle[0]
            raise InputError(f"{muscle} does not move AU{unit.number} ({unit.name}), but {', '.join(unit.muscles)}")
        found[muscle] = MuscleMovement(
            muscle=muscle,
            movement=plain_words(f"the movement of {muscle}", row.get("movement"), MOST_MOVEMENT_WORDS),
            units=tuple(dict.fromkeys(u.number for u in asked)),
            level=max(asked, key=value).level,
            side=asked[0].side if len({u.side for u in asked}) == 1 else "both",
        )
    served = {number for movement in found.values() for number in movement.units}
    if without := [unit for unit in units if unit.number not in served]:
        raise InputError(f"no muscle serves AU{without[0].number} ({without[0].name}); name one of its muscles")
    return tuple(found[muscle] for muscle in order if muscle in found)


def _no_unit(number: int, muscle: str) -> list[ActionUnit]:
    raise InputError(f"{muscle} is said to move AU{number}, which is not in this plan")


def read_prompts(
    answer: Mapping[str, Any], emotion: str, subject: str, units: Sequence[ActionUnit], style: str
) -> Prompts:
    """Step IV: three plain texts; coarse names subject and emotion, fine every unit with its level and side."""
    texts = {name: _text(name, answer.get(name), style, subject) for name in ("coarse", "fine", "negative")}
    coarse = texts["coarse"].casefold()
    for wanted in (subject, EMOTION_WORDS[emotion].adjective):
        if wanted.casefold() not in coarse:
            raise InputError(f"coarse does not hold {quote(wanted)}; put it in")
    if lost := missing_units(units, texts["fine"]):
        phrases = ", ".join(repr(unit_phrase(unit)) for unit in lost)
        raise InputError(f"fine lacks {len(lost)} of {len(units)} phrases: {phrases}; put them in letter by letter")
    tokens = (count_tokens(texts["coarse"]), count_tokens(texts["fine"]), count_tokens(texts["negative"]))
    return Prompts(**texts, style=style, tokens=tokens)


def _text(name: str, given: Any, style: str, subject: str) -> str:
    if not isinstance(given, str) or not given.strip():
        raise InputError(f"{name} is {quote(given)}; a text of at least 1 word was asked for")
    text = " ".join(given.split())
    _check_length(name, text, MOST_NATURAL_WORDS)
    # The subject may be the user's own words, who may write what they like.
    foreign = re.sub(re.escape(subject), "subject", text, flags=re.IGNORECASE)
    if not SENTENCES[style].fullmatch(foreign):
        odd = "".join(dict.fromkeys(SENTENCES[style].sub("", foreign)))
        raise InputError(f"{name} has the characters {quote(odd)}; only letters, digits and . , ; - ' are allowed")
    if style == "clip" and (count := count_tokens(text)) > TEXT_TOKENS:
        raise InputError(f"{name} has {count} tokens; CLIP reads {TEXT_TOKENS}: say it in fewer words")
    if repeated := repeated_words(text):
        raise InputError(f"{name} says {quote(repeated)} twice; say it once")
    return text
