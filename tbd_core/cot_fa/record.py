"""A thought as text and as JSON, and back."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from ..errors import InputError
from ..facs.action_units import LEVEL_WORDS, describe, describe_all
from ..flow import ActionUnit, FaceInfo, MuscleMovement, Prompts, Thought


def steps_as_text(thought: Thought) -> list[str]:
    """The four steps, one readable string each."""
    face = thought.face
    source = "as given" if face.given else "nobody described the subject, and nothing is guessed from the picture"
    if face.by:
        source = f"as seen by {face.by}"
    portrait = f"; portrait: {face.portrait}" if face.portrait else ""
    units = "; ".join(map(describe, thought.action_units)) or "none, the face is at rest"
    muscles = "; ".join(map(_muscle, thought.muscle_movements)) or "at rest"
    prompts = thought.prompts
    return [
        f"I. Face: {face.subject} ({source}){portrait}",
        f"II. Action units: {describe_all(thought.action_units)} ({units})",
        f"III. Muscles: {muscles}",
        f"IV. Prompts: coarse: {prompts.coarse} Fine: {prompts.fine} Negative: {prompts.negative}",
    ]


def _muscle(movement: MuscleMovement) -> str:
    units = ", ".join(f"AU{number}" for number in movement.units)
    side = "" if movement.side == "both" else f", {movement.side}"
    return f"{movement.muscle}: {movement.movement} ({units}, {LEVEL_WORDS[movement.level]}{side})"


def thought_to_json(thought: Thought) -> dict[str, Any]:
    """What `prompts --json` prints; `thought.to_dict()` holds the same and more, in flow's own form."""
    prompts = thought.prompts
    return {
        "emotion": thought.emotion,
        "intensity": thought.intensity,
        "face": asdict(thought.face),
        "action_units": [{**asdict(unit), "muscles": list(unit.muscles)} for unit in thought.action_units],
        "coarse": prompts.coarse,
        "fine": prompts.fine,
        "negative": prompts.negative,
        "tokens": dict(zip(("coarse", "fine", "negative"), prompts.tokens, strict=True)),
        "steps": steps_as_text(thought),
        "warnings": list(thought.warnings),
    }


def thought_from_dict(values: dict[str, Any]) -> Thought:
    """The inverse of `thought.to_dict()`, also after a trip through JSON; InputError says what is missing."""
    top = _fields(Thought, values)
    return Thought(
        **{
            **top,
            "face": FaceInfo(**_fields(FaceInfo, top["face"])),
            "action_units": tuple(ActionUnit(**_fields(ActionUnit, u)) for u in top["action_units"]),
            "muscle_movements": tuple(MuscleMovement(**_fields(MuscleMovement, m)) for m in top["muscle_movements"]),
            "prompts": Prompts(**_fields(Prompts, top["prompts"])),
        }
    )


def _fields(kind: type, values: Any) -> dict[str, Any]:
    names = [f.name for f in fields(kind)]
    given = set(values) if isinstance(values, dict) else set()
    if given != set(names):
        missing, unknown = sorted(set(names) - given), sorted(map(str, given - set(names)))
        wrong = [f"{what} {', '.join(which)}" for what, which in (("lacks", missing), ("adds", unknown)) if which]
        raise InputError(f"{kind.__name__} {' and '.join(wrong)}; its fields are {', '.join(names)}")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
