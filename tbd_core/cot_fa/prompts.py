"""Step IV: action units and muscles -> coarse, fine and negative prompt (paper section 3.2, Figs. 4 and 6).

Coarse: "{Subject} is speaking with a {emotion} emotion." Fine: "The facial expression shows {units} as the
subject {adverb} {verb} with {Intensity} {Emotion}. The {muscles} are active, with {movement}. {Soft tissue}."
Each unit says its level in words and its side (ours: one word for the whole face could not carry it). In
style `clip` a text that would pass CLIP's 77 tokens loses its least telling clause; a warning says which.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InputError
from ..facs.action_units import LEVEL_WORDS, MIDLINE_MUSCLES, facts, value
from ..facs.emotions import parse_emotion, parse_intensity
from ..flow import ActionUnit, FaceInfo, MuscleMovement, Prompts
from ..units import TEXT_TOKENS
from .knowledge import (
    ARTEFACTS,
    EMOTION_WORDS,
    INTENSITY_SENTENCES,
    NOBODY,
    RELAXED_FINE,
    RELAXED_MUSCLES,
    RELAXED_NATURAL,
    STYLES,
    TISSUE_WORDS,
)
from .tokenizer import count_tokens, cut_to_budget


MUSCLES_NAMED = 2  # in style clip, the strongest units' main muscles; the paper's example names one


def label_prompt(emotion: str, intensity: str) -> str:
    """The bare label, "angry, mild" ("neutral" has no intensity): what the paper's baseline is told."""
    emotion = parse_emotion(emotion)
    return emotion if emotion == "neutral" else f"{emotion}, {parse_intensity(intensity).lower()}"


def unit_phrase(unit: ActionUnit) -> str:
    """ "marked cheek raiser", "severe left dimpler" """
    side = "" if unit.side == "both" else f"{unit.side} "
    return f"{LEVEL_WORDS[unit.level]} {side}{facts(unit.number).name}"


def write_prompts(
    face: FaceInfo,
    emotion: str,
    intensity: str,
    units: Sequence[ActionUnit],
    movements: Sequence[MuscleMovement],
    style: str = "clip",
) -> tuple[Prompts, tuple[str, ...]]:
    """(prompts, warnings) for any plan, an emotion's or not; `movements` are step III's for these units."""
    if style not in STYLES:
        raise InputError(f"unknown prompt style {style!r}; choose {' or '.join(STYLES)}")
    emotion, intensity = parse_emotion(emotion), parse_intensity(intensity)
    if style == "clip":
        coarse, coarse_warnings = _coarse_clip(face, emotion)
        fine, fine_warnings = _fine_clip(emotion, intensity, units, movements)
        negative = _negative_clip(emotion, units)
    else:
        coarse, coarse_warnings = _coarse_natural(face, emotion, intensity), []
        fine, fine_warnings = _fine_natural(emotion, intensity, units, movements), []
        negative = _negative_natural(emotion, units)
    if not units and emotion != "neutral":
        fine_warnings = [
            *fine_warnings,
            "the plan has no action units; the fine prompt only names the emotion",
        ]
    tokens = (count_tokens(coarse), count_tokens(fine), count_tokens(negative))
    return Prompts(coarse, fine, negative, style, tokens), (*coarse_warnings, *fine_warnings)


# ---- coarse


def _subject(face: FaceInfo) -> str:
    words = " ".join(face.subject.split()).rstrip(" .,;:!?") or NOBODY
    return words[0].upper() + words[1:]


def _a(words: str) -> str:
    """ "a happy", "an angry" """
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _speaks(emotion: str, subject: str) -> str:
    adjective = EMOTION_WORDS[emotion].adjective
    comma = "," if "," in subject else ""  # closes "..., with short dark hair, is speaking"
    return f"{subject}{comma} is speaking with {_a(adjective)} emotion."


def _coarse_clip(face: FaceInfo, emotion: str) -> tuple[str, list[str]]:
    subject = _subject(face)
    text = _speaks(emotion, subject)
    if count_tokens(text) <= TEXT_TOKENS:
        return text, []
    # the emotion stands at the end and must stay, so the subject gives way; 2: its own begin and end token
    room = TEXT_TOKENS - count_tokens(_speaks(emotion, ",")) + 2
    cut = cut_to_budget(subject, room)[1]
    kept = subject[: len(subject) - len(cut)].rstrip(" .,;:!?") or NOBODY.capitalize()
    warning = f"the coarse prompt is kept within {TEXT_TOKENS} tokens without the subject's last words: {cut!r}"
    return _speaks(emotion, kept), [warning]


def _coarse_natural(face: FaceInfo, emotion: str, intensity: str) -> str:
    words = EMOTION_WORDS[emotion]
    sentences = [_speaks(emotion, _subject(face)), words.mood]
    if emotion != "neutral":
        sentences.append(INTENSITY_SENTENCES[intensity].format(noun=words.noun.lower()))
    return " ".join(sentences)


# ---- fine


def join_phrases(phrases: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"; "a and b, and c" where a phrase has an "and" of its own."""
    last = ", and " if any(" and " in phrase for phrase in phrases) else " and "
    return last.join(filter(None, (", ".join(phrases[:-1]), *phrases[-1:])))


def _as_the_subject(emotion: str, intensity: str) -> str:
    words = EMOTION_WORDS[emotion]
    feeling = "" if emotion == "neutral" else f" with {intensity} {words.noun}"
    return f" as the subject {words.adverb} {words.verb}{feeling}"


def _shows(units: Sequence[ActionUnit], clause: str) -> str:
    return f"The facial expression shows {join_phrases([unit_phrase(u) for u in units])}{clause}."


def _without_units(emotion: str, intensity: str) -> str:
    words = EMOTION_WORDS[emotion]
    if emotion == "neutral":
        return f"{RELAXED_FINE} {RELAXED_MUSCLES}"
    return f"The facial expression shows {intensity} {words.noun} as the subject {words.adverb} {words.verb}."


def _strongest_first(units: Sequence[ActionUnit]) -> list[ActionUnit]:
    return sorted(units, key=lambda u: -value(u))  # stable: equal levels keep the plan's order


def _muscles_sentence(units: Sequence[ActionUnit], movements: Sequence[MuscleMovement], most: int) -> str:
    """ "The zygomaticus major muscles are active, with ...": main muscles of the strongest units."""
    chosen: list[MuscleMovement] = []
    for unit in _strongest_first(units):
        main = next((m for m in movements if unit.number in m.units), None)
        if main and main not in chosen and not main.muscle.endswith("(relaxed)"):
            chosen.append(main)
    chosen = chosen[:most]
    if not chosen:
        return ""
    names = list(dict.fromkeys(_sided_name(m) for m in chosen))
    one = len(names) == 1 and (chosen[0].muscle in MIDLINE_MUSCLES or chosen[0].side != "both")
    verb = "muscle is" if one else "muscles are"
    return f" The {join_phrases(names)} {verb} active, with {join_phrases([m.movement for m in chosen])}."


def _sided_name(movement: MuscleMovement) -> str:
    name = movement.muscle.split(" (")[0].removesuffix(" muscle")
    sided = movement.side != "both" and movement.muscle not in MIDLINE_MUSCLES
    return f"{movement.side} {name}" if sided else name


def _tissue_sentence(units: Sequence[ActionUnit]) -> str:
    for unit in _strongest_first(units):
        tissue = facts(unit.number).tissue
        if tissue:
            return f" {_tissue(unit, tissue).capitalize()}."
    return ""


def _tissue(unit: ActionUnit, tissue: str) -> str:
    side = "" if unit.side == "both" else f" on the {unit.side}"
    return f"{TISSUE_WORDS[unit.level]} {tissue}{side}"


def _fine_clip(
    emotion: str, intensity: str, units: Sequence[ActionUnit], movements: Sequence[MuscleMovement]
) -> tuple[str, list[str]]:
    if not units:
        return _without_units(emotion, intensity), []
    clause = _as_the_subject(emotion, intensity)
    plan = _shows(units, clause)
    muscles, main_muscle = (_muscles_sentence(units, movements, n) for n in (MUSCLES_NAMED, 1))
    tissue = _tissue_sentence(units)
    steps = (  # from the fullest text down; the second entry is what this step leaves out
        (plan + muscles + tissue, ""),
        (plan + muscles, "the soft-tissue sentence"),
        (plan + main_muscle + tissue, "the second muscle"),
        (plan + main_muscle, "the soft-tissue sentence and the second muscle"),
        (plan, "the muscles and the soft-tissue sentence"),
        (_shows(units, ""), "the emotion, the muscles and the soft-tissue sentence"),
    )
    for text, dropped in steps:
        if count_tokens(text) <= TEXT_TOKENS:
            return text, [f"the fine prompt is kept within {TEXT_TOKENS} tokens without {dropped}"] if dropped else []
    return _part_of_plan(units)


def _part_of_plan(units: Sequence[ActionUnit]) -> tuple[str, list[str]]:
    """As many units as fit, the strongest first, in the plan's order."""
    kept = list(units)
    out: list[ActionUnit] = []
    for unit in reversed(_strongest_first(units)):
        if count_tokens(_shows(kept, "")) <= TEXT_TOKENS:
            break
        kept.remove(unit)
        out.append(unit)
    names = ", ".join(f"AU{u.number} {unit_phrase(u)}" for u in sorted(out, key=lambda u: u.number))
    needed = count_tokens(_shows(units, ""))
    warning = (
        f"the plan alone needs {needed} tokens, the fine prompt holds {TEXT_TOKENS}; left out of it: {names} "
        "(use fewer units or the natural style)"
    )
    return _shows(kept, ""), [warning]


def _fine_natural(
    emotion: str, intensity: str, units: Sequence[ActionUnit], movements: Sequence[MuscleMovement]
) -> str:
    if not units:
        text = _without_units(emotion, intensity)
        return f"{text} {RELAXED_NATURAL}" if emotion == "neutral" else text
    groups: dict[str, list[str]] = {}  # muscles that do one thing together
    for m in movements:
        side = "" if m.side == "both" or m.muscle in MIDLINE_MUSCLES else f"{m.side} "
        groups.setdefault(m.movement, []).append(side + m.muscle)
    at_work = "; ".join(f"the {join_phrases(names)}, with {does}" for does, names in groups.items())
    tissues = [_tissue(u, facts(u.number).tissue) for u in units if facts(u.number).tissue]
    text = _shows(units, _as_the_subject(emotion, intensity))
    if at_work:
        text += f" This is the work of {at_work}."
    if tissues:
        text += f" The skin follows with {join_phrases(tissues)}."
    return text


# ---- negative


def _unwanted(emotion: str, units: Sequence[ActionUnit]) -> list[str]:
    planned = {u.number for u in units}
    return [phrase for phrase, numbers in EMOTION_WORDS[emotion].avoid if not numbers & planned]


def _negative_clip(emotion: str, units: Sequence[ActionUnit]) -> str:
    opposite = f"{EMOTION_WORDS[emotion].opposite} look"
    return ", ".join((opposite, *_unwanted(emotion, units), *ARTEFACTS))


def _negative_natural(emotion: str, units: Sequence[ActionUnit]) -> str:
    unwanted = _unwanted(emotion, units)
    face = f" with {join_phrases(unwanted)}" if unwanted else ""
    opposite = _a(f"{EMOTION_WORDS[emotion].opposite} face").capitalize()
    return f"{opposite}{face}. A picture with {join_phrases(ARTEFACTS)}."
