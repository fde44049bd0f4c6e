"""Words that the prompts are made of, as data.

The sentence forms are the paper's (section 3.2, Figs. 4 and 6), the wording is ours.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EmotionWords:
    """How one emotion is spoken of."""

    adjective: str  # "a person is speaking with a(n) ... emotion"
    noun: str
    adverb: str
    verb: str
    mood: str  # one sentence, style natural
    opposite: str  # "a ... look", first words of the negative prompt
    avoid: tuple[tuple[str, frozenset[int]], ...]  # also negative, unless the plan has one of these units


def _avoid(**phrases: tuple[int, ...]) -> tuple[tuple[str, frozenset[int]], ...]:
    return tuple((words.replace("_", " "), frozenset(numbers)) for words, numbers in phrases.items())


EMOTION_WORDS: dict[str, EmotionWords] = {
    "happy": EmotionWords(
        "happy", "Happiness", "joyfully", "beams", "The mood is warm, bright and friendly.", "sad or angry",
        _avoid(drooping_mouth_corners=(15,), lowered_brows=(4,), hard_stare=(5, 7)),
    ),
    "sad": EmotionWords(
        "sad", "Sadness", "sorrowfully", "frowns", "The mood is heavy, quiet and downcast.", "cheerful",
        _avoid(broad_smile=(12, 13), laughing_eyes=(6,), wide_staring_eyes=(5,)),
    ),
    "angry": EmotionWords(
        "angry", "Anger", "sternly", "glares", "The mood is tense, hard and hostile.", "friendly",
        _avoid(broad_smile=(12, 13), raised_inner_brows=(1,), soft_sleepy_eyes=(43,)),
    ),
    "surprised": EmotionWords(
        "surprised", "Surprise", "suddenly", "stares", "The mood is startled, open and alert.", "bored",
        _avoid(lowered_brows=(4,), half_closed_eyes=(7, 43), tightly_pressed_lips=(23, 24)),
    ),
    "fear": EmotionWords(
        "fearful", "Fear", "anxiously", "tenses", "The mood is uneasy, alarmed and on guard.", "confident",
        _avoid(broad_smile=(12, 13), relaxed_brows=(), sleepy_eyes=(43,)),
    ),
    "disgusted": EmotionWords(
        "disgusted", "Disgust", "sourly", "grimaces", "The mood is repelled and unwilling.", "delighted",
        _avoid(broad_smile=(12, 13), relaxed_nose=(), wide_bright_eyes=(5,)),
    ),
    "contempt": EmotionWords(
        "contemptuous", "Contempt", "coldly", "sneers", "The mood is cold, proud and dismissive.", "admiring",
        _avoid(broad_even_smile=(12, 13), raised_inner_brows=(1,), wide_startled_eyes=(5,)),
    ),
    "neutral": EmotionWords(
        "neutral", "Neutral", "calmly", "speaks", "The mood is calm, plain and even.", "strongly emotional",
        _avoid(broad_smile=(12, 13), frown=(4, 15), raised_brows=(1, 2), wrinkled_nose=(9,)),
    ),
}  # fmt: skip

ARTEFACTS = ("blurred face", "distorted mouth", "deformed eyes", "flicker", "watermark")

# style natural: how far the emotion goes
INTENSITY_SENTENCES: dict[str, str] = {
    "Mild": "The {noun} is mild: it is hinted at and leaves most of the face at ease.",
    "Moderate": "The {noun} is moderate: it is plain to see, yet held in measure.",
    "Intense": "The {noun} is intense: it fills the whole face.",
}

# how strong a soft-tissue change is, by the level of the unit behind it
TISSUE_WORDS = {"A": "faint", "B": "light", "C": "clear", "D": "strong", "E": "extreme"}

RELAXED_FINE = "The facial expression shows a relaxed, even face as the subject calmly speaks."
RELAXED_MUSCLES = "The facial muscles are at rest, with level brows, soft eyelids and even mouth corners."
RELAXED_NATURAL = (
    "The skin lies smooth on the forehead, around the eyes and on the cheeks, "
    "and the mouth moves only to form the words."
)

STYLES = ("clip", "natural")
NOBODY = "a person"  # who is seen when nobody said (never guessed from the picture)
