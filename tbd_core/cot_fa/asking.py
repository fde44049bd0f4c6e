"""The four steps (paper 3.2) asked of any language model that sees, one after another: emotion, portrait → Thought.

    step            asked with                  falls back on
    I   face        the portrait                the user's words, or "a person"
    II  units       emotion, step I             the rules' table
    III muscles     step II                     anatomy
    IV  prompts     steps I, II                 the templates, with the units of step II

An answer that does not hold (cot_fa/answers.py) is met with one further question that quotes the fault. If the second
does not hold either, the rules take that step, and `Thought.warnings` says so. An answer that never comes is not asked
for again; where none can be expected any more (no server, patience at its end) the rules take the rest too. *Ours.*
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..errors import InputError
from ..facs.emotions import parse_emotion, parse_intensity
from ..flow import Thought
from . import questions
from .answers import parse, read_face, read_muscles, read_prompts, read_units
from .knowledge import STYLES
from .prompts import write_prompts
from .review import review_plan
from .think import choose_units, describe_face, trace_muscles


if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")
Check = Callable[[], None]  # asked many times while an answer is awaited; may raise to cancel

STEPS = ("I (face)", "II (action units)", "III (muscles)", "IV (prompts)")
LONGEST_SIDE = 768  # pixels of the picture that is shown: a face is plain, and no model has to swallow a photograph
PATIENCE = 600.0  # seconds for the four steps together; the rules take what is not answered by then
KEPT = 256  # answers that are remembered
REPEATED = 1000  # characters of an answer that the further question shows again


@dataclass(frozen=True)
class Message:
    role: str  # user | assistant
    text: str


class UnansweredError(Exception):
    """No answer came; the message says why. `hopeless`: asking anything further would only cost time."""

    def __init__(self, why: str, hopeless: bool = False) -> None:
        super().__init__(why)
        self.hopeless = hopeless


class Thinker(Protocol):
    """A language model that sees (cot_fa/server.py, cot_fa/vlm.py)."""

    @property
    def name(self) -> str:
        """For people: "qwen2.5vl:7b at 127.0.0.1"."""
        ...

    @property
    def identity(self) -> tuple[str, ...]:
        """All that an answer depends on beside the question."""
        ...

    def answer(self, messages: Sequence[Message], picture: Image.Image | None, check: Check) -> str:
        """The text that follows `messages`; `picture` (RGB) belongs to the first. It may stop behind
        `MOST_CHARACTERS` + 1 characters, calls `check` at least twice a second while it waits, and hands on what that
        raises. Raises UnansweredError."""
        ...

    def close(self) -> None:
        """Free what the model holds."""
        ...


class Memory:
    """Answers that held, by all that they depend on; for one process, the oldest go first."""

    def __init__(self, most: int = KEPT) -> None:
        self.most = most
        self.answers: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self.unanswered = 0  # questions that nobody answered, ever

    def get(self, key: str) -> dict[str, Any] | None:
        if key in self.answers:
            self.answers.move_to_end(key)
        return self.answers.get(key)

    def put(self, key: str, answer: dict[str, Any]) -> None:
        self.answers[key] = answer
        while len(self.answers) > self.most:
            self.answers.popitem(last=False)


MEMORY = Memory()


def ask(
    thinker: Thinker,
    emotion: str,
    intensity: str = "Moderate",
    subject: str | None = None,
    style: str = "clip",
    portrait: str | None = None,
    picture: Image.Image | None = None,
    check: Check = lambda: None,
    patience: float = PATIENCE,
    memory: Memory = MEMORY,
) -> Thought:
    """The whole chain; arguments as `think`'s.

    picture   the portrait, any size and mode; None: step I is not asked
    check     may raise to cancel; that passes through, and the answers so far are remembered
    patience  seconds in all
    InputError: unknown emotion, intensity or style. Nothing that the thinker does raises one.
    """
    emotion, intensity = parse_emotion(emotion), parse_intensity(intensity)
    if style not in STYLES:
        raise InputError(f"unknown prompt style {style!r}; choose {' or '.join(STYLES)}")
    talk = Talk(thinker, check, patience, memory)

    # I. The user's own words on the subject stand above what is seen.
    face, at_rest = describe_face(subject, portrait), ""
    if picture is None:
        if not face.given:
            talk.warnings.append(
                f"there is no portrait for {thinker.name} to look at, so the subject is {face.subject}"
            )
    elif seen := talk.settle(0, questions.look(), read_face, shown(picture)):
        at_rest = seen[1]
        if not face.given:
            face = replace(face, subject=seen[0], given=True, by=thinker.name)
    who = face.subject.rstrip(" .,;:!?")

    # II, III
    units = talk.settle(
        1, questions.choose(emotion, intensity, who, at_rest), lambda answer: read_units(answer, emotion)
    )
    if units is None:
        units = choose_units(emotion, intensity)
    movements = None
    if units:
        movements = talk.settle(2, questions.trace(units), lambda answer: read_muscles(answer, units))
    movements = movements or trace_muscles(units)

    # IV. The templates write what they can of this very plan; the thinker may know better words.
    usual, template_warnings = write_prompts(face, emotion, intensity, units, movements, style)
    prompts = talk.settle(
        3,
        questions.write(emotion, intensity, who, units, usual, style),
        lambda answer: read_prompts(answer, emotion, who, units, style),
    )
    neutral = (f"neutral has no intensities; {intensity} has no effect",) if emotion == "neutral" else ()
    said = template_warnings if prompts is None else ()
    return Thought(
        emotion=emotion,
        intensity=intensity,
        face=face,
        action_units=units,
        muscle_movements=movements,
        prompts=prompts or usual,
        warnings=(*neutral, *talk.warnings, *review_plan(units, emotion), *said),
    )


def shown(picture: Image.Image) -> Image.Image:
    """The picture as a thinker gets it: RGB, at most LONGEST_SIDE pixels a side."""
    small = picture.convert("RGB")  # a copy
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return small


def repeated(answer: str) -> str:
    """A faulty answer as it is shown again: short, and without what a model might take for a mark of its own."""
    return re.sub(r"[<>]", " ", answer.strip()[:REPEATED]) or "(nothing)"


class Talk:
    """One run of questions with one thinker, and what has to be said about it."""

    def __init__(self, thinker: Thinker, check: Check, patience: float, memory: Memory) -> None:
        self.thinker, self.check, self.patience, self.memory = thinker, check, patience, memory
        self.ends = time.monotonic() + patience
        self.warnings: list[str] = []
        self.hopeless = False

    def settle(
        self, step: int, question: str, read: Callable[[Mapping[str, Any]], T], picture: Image.Image | None = None
    ) -> T | None:
        """What `read` makes of the answer to one step; None: the rules have to do it, and `warnings` says why."""
        key = self._key(question, picture)
        if (known := self.memory.get(key)) is not None:
            return read(known)
        if self.hopeless:
            return None
        messages, faults = [Message("user", question)], []
        for _ in range(2):
            try:
                text = self.thinker.answer(messages, picture, self._go_on)
            except UnansweredError as error:
                self.memory.unanswered += 1
                self.hopeless = error.hopeless
                faults.append(str(error))
                break
            try:
                answer = parse(text)
                result = read(answer)
            except InputError as fault:
                faults.append(f"its answer cannot be used: {fault}")
                messages += [Message("assistant", repeated(text)), Message("user", questions.follow_up(str(fault)))]
            else:
                self.memory.put(key, answer)
                return result
        self._say(step, faults)
        return None

    def _say(self, step: int, faults: list[str]) -> None:
        why = "; asked again, ".join(faults)
        rest = " and all that follow" if self.hopeless and step + 1 < len(STEPS) else ""
        self.warnings.append(
            f"step {STEPS[step]} is by the rules{rest}, not by the thinker {self.thinker.name}: {' '.join(why.split())}"
        )

    def _go_on(self) -> None:
        self.check()
        if time.monotonic() > self.ends:
            raise UnansweredError(f"it was not done after {self.patience:g} s, the limit for all steps", hopeless=True)

    def _key(self, question: str, picture: Image.Image | None) -> str:
        about = [questions.PROMPT_VERSION, *self.thinker.identity, question]
        digest = hashlib.sha256(json.dumps(about).encode())
        if picture is not None:
            digest.update(f"{picture.size}".encode())
            digest.update(picture.tobytes())
        return digest.hexdigest()


__all__ = ["MEMORY", "Check", "Memory", "Message", "Thinker", "UnansweredError", "ask"]
