"""CoT-FA by rules: emotion and intensity -> face, action units, muscles, prompts (paper section 3.2, Fig. 3).

Each of the four steps is one function from data to data; `think` runs them in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..facs.action_units import movement, value
from ..facs.emotions import parse_emotion, parse_intensity, units_for
from ..flow import ActionUnit, FaceInfo, MuscleMovement, Thought
from .knowledge import NOBODY
from .prompts import join_phrases, write_prompts
from .review import review_plan


def describe_face(subject: str | None = None, portrait: str | Path | None = None) -> FaceInfo:
    """Step I. Without words (None or blank) it is "a person"; age, gender and ethnicity are never guessed."""
    words = " ".join((subject or "").split())
    name = Path(portrait).name if portrait else None
    return FaceInfo(subject=words or NOBODY, given=bool(words), portrait=name)


def choose_units(emotion: str, intensity: str) -> tuple[ActionUnit, ...]:
    """Step II. The emotion's action units at this intensity; () for neutral."""
    return units_for(emotion, intensity)


def trace_muscles(units: Sequence[ActionUnit]) -> tuple[MuscleMovement, ...]:
    """Step III. Every muscle once, with all that it does; its level is that of its strongest unit."""
    asked: dict[str, list[ActionUnit]] = {}
    for unit in units:
        for muscle in unit.muscles:
            asked.setdefault(muscle, []).append(unit)
    return tuple(
        MuscleMovement(
            muscle=muscle,
            movement=join_phrases(list(dict.fromkeys(movement(u) for u in by))),
            units=tuple(dict.fromkeys(u.number for u in by)),
            level=max(by, key=value).level,
            side=by[0].side if len({u.side for u in by}) == 1 else "both",
        )
        for muscle, by in asked.items()
    )


def think(
    emotion: str,
    intensity: str = "Moderate",
    subject: str | None = None,
    style: str = "clip",
    portrait: str | Path | None = None,
    units: Sequence[ActionUnit] | None = None,
) -> Thought:
    """The whole chain; `units` replaces step II's choice. It takes under 5 ms once the tokenizer is loaded.

    InputError: unknown emotion, intensity or style, or units that no face can show at once.
    """
    emotion, intensity = parse_emotion(emotion), parse_intensity(intensity)
    face = describe_face(subject, portrait)
    plan = choose_units(emotion, intensity) if units is None else tuple(units)
    plan_warnings = review_plan(plan, emotion)
    movements = trace_muscles(plan)
    prompts, prompt_warnings = write_prompts(face, emotion, intensity, plan, movements, style)
    neutral = (f"neutral has no intensities; {intensity} has no effect",) if emotion == "neutral" else ()
    return Thought(
        emotion=emotion,
        intensity=intensity,
        face=face,
        action_units=plan,
        muscle_movements=movements,
        prompts=prompts,
        warnings=(*neutral, *plan_warnings, *prompt_warnings),
    )
