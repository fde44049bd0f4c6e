"""The eight emotions of MEAD, their spellings, and the action units of each at three intensities.

The units follow EMFACS, FACS 1978 (table 11-1) and Du et al. 2014; where these differ the choice is ours, as
are the levels (on the core units Mild is A-B, Moderate B-C, Intense C-E; their company stays lower).
They are prototypes, not laws: faces differ with person and culture (Barrett et al. 2019, Jack et al. 2012).
Speech owns jaw and lips, so 26 and 27 are left out, 25 stays slight, 20 and 23 stay below the rest (*ours*).
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache

from ..errors import InputError
from ..flow import ActionUnit
from .action_units import make_unit


EMOTIONS = ("happy", "sad", "angry", "surprised", "fear", "disgusted", "contempt", "neutral")
INTENSITIES = ("Mild", "Moderate", "Intense")

# MEAD's folder names and three-letter codes, nouns and adjectives
SPELLINGS: dict[str, tuple[str, ...]] = {
    "happy": ("happy", "hap", "happiness", "happily", "joy", "joyful"),
    "sad": ("sad", "sadness", "sadly", "sorrow", "sorrowful"),
    "angry": ("angry", "ang", "anger", "angrily"),
    "surprised": ("surprised", "sur", "surprise", "surprisedly", "astonished"),
    "fear": ("fear", "fea", "fearful", "fearfully", "afraid", "scared"),
    "disgusted": ("disgusted", "dis", "disgust"),
    "contempt": ("contempt", "con", "contemptuous", "contemptuously", "scorn"),
    "neutral": ("neutral", "neu", "neutrality"),
}
INTENSITY_SPELLINGS: dict[str, tuple[str, ...]] = {
    "Mild": ("mild", "level_1", "1"),
    "Moderate": ("moderate", "level_2", "2"),
    "Intense": ("intense", "level_3", "3"),
}

# (unit, level at Mild, Moderate, Intense); "-" absent; a leading R or L is the side
PLANS: dict[str, tuple[tuple[str, str], ...]] = {
    "happy": (("6", "ACD"), ("12", "BCE"), ("25", "--B")),
    "sad": (("1", "BCE"), ("4", "ABC"), ("15", "BCE"), ("17", "-BC")),
    "angry": (("4", "BCE"), ("5", "-BC"), ("7", "BCD"), ("10", "--B"), ("23", "ABC")),
    "surprised": (("1", "BCE"), ("2", "BCE"), ("5", "BCD"), ("25", "-AB")),
    "fear": (("1", "BCD"), ("2", "ABC"), ("4", "BCD"), ("5", "BCE"), ("20", "ABC")),
    "disgusted": (("4", "-BC"), ("9", "BCE"), ("15", "--B"), ("17", "ABC")),
    "contempt": (("R10", "-AB"), ("R14", "BCE")),
    "neutral": (),
}


def _key(text: str) -> str:
    return " ".join(str(text).lower().replace("_", " ").replace("-", " ").split())


_EMOTION_OF = {spelling: emotion for emotion, names in SPELLINGS.items() for spelling in names}
_INTENSITY_OF = {_key(s): name for name, names in INTENSITY_SPELLINGS.items() for s in names} | {
    f"level{n}": name for n, name in enumerate(INTENSITIES, start=1)
}


def parse_emotion(text: str) -> str:
    """Canonical name of an emotion in any case and spelling; InputError offers the nearest names."""
    key = _key(text)
    if key in _EMOTION_OF:
        return _EMOTION_OF[key]
    if not key:
        raise InputError(f"the emotion is blank; choose one of {', '.join(EMOTIONS)}")
    near = dict.fromkeys(_EMOTION_OF[k] for k in get_close_matches(key, _EMOTION_OF, n=3, cutoff=0.6))
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise InputError(f"unknown emotion {text!r}; {hint}choose one of {', '.join(EMOTIONS)}")


def parse_intensity(text: str) -> str:
    """Mild, Moderate or Intense, from any case or MEAD's level_1 .. level_3 (also "level 1", "1")."""
    key = _key(text)
    if key in _INTENSITY_OF:
        return _INTENSITY_OF[key]
    near = dict.fromkeys(_INTENSITY_OF[k] for k in get_close_matches(key, _INTENSITY_OF, n=2, cutoff=0.6))
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    allowed = f"{', '.join(INTENSITIES)} (or level_1, level_2, level_3)"
    raise InputError(f"unknown intensity {text!r}; {hint}choose one of {allowed}")


@cache
def _units_for(emotion: str, intensity: str) -> tuple[ActionUnit, ...]:
    column = INTENSITIES.index(intensity)
    sides = {"R": "right", "L": "left"}
    return tuple(
        make_unit(int(code.lstrip("RL")), levels[column], sides.get(code[0], "both"))
        for code, levels in PLANS[emotion]
        if levels[column] != "-"
    )


def units_for(emotion: str, intensity: str) -> tuple[ActionUnit, ...]:
    """Action units of an emotion at an intensity, ordered by number; () for neutral."""
    return _units_for(parse_emotion(emotion), parse_intensity(intensity))
