"""The four steps asked of a thinker: what is asked again, what the rules take over, what is kept."""

import json
import runpy
from collections.abc import Callable
from itertools import product
from operator import itemgetter
from pathlib import Path

import pytest
from PIL import Image

from tbd_core.cot_fa import asking, questions
from tbd_core.cot_fa.answers import MOST_CHARACTERS, parse, read_units
from tbd_core.cot_fa.asking import LONGEST_SIDE, Memory, UnansweredError, ask
from tbd_core.cot_fa.record import steps_as_text, thought_from_dict
from tbd_core.cot_fa.think import think, trace_muscles
from tbd_core.cot_fa.thinkers import ThinkerOptions, check_thinker, thought_of
from tbd_core.errors import InputError
from tbd_core.facs.action_units import make_unit
from tbd_core.facs.emotions import EMOTIONS
from tbd_core.flow import Prompts


GIVEN = runpy.run_path(str(Path(__file__).with_name("given_answers.py")))
FACE, UNITS, MUSCLES, PROMPTS, GOOD, BAD_ANSWERS = itemgetter(
    "FACE", "UNITS", "MUSCLES", "PROMPTS", "GOOD", "BAD_ANSWERS"
)(GIVEN)  # fmt: skip


class Script:
    """A thinker that says what it is told to, step by step; an exception among its lines is raised."""

    identity = ("script",)

    def __init__(self, *lines, name: str = "the oracle"):
        self.lines, self.name, self.asked, self.closed = list(lines), name, [], 0

    def answer(self, messages, picture, check: Callable[[], None]) -> str:
        check()
        self.asked.append((messages[:], picture))
        line = self.lines.pop(0)
        if isinstance(line, BaseException):
            raise line
        return line if isinstance(line, str) else json.dumps(line)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def picture() -> Image.Image:
    return Image.linear_gradient("L").resize((1600, 800))


@pytest.fixture
def talk(picture):
    """`talk(*lines) -> (thought, thinker)`, with a memory of its own."""

    def talk(*lines, **given):
        thinker = Script(*lines)
        defaults = dict(emotion="happy", intensity="Moderate", picture=picture, memory=Memory())
        return ask(thinker, **(defaults | given)), thinker

    return talk


def test_four_good_answers_become_the_thought_and_nothing_is_said(talk):
    thought, thinker = talk(*GOOD)
    assert thought.face.subject == "a woman with short dark hair, round glasses"
    assert (thought.face.given, thought.face.by) == (True, "the oracle")
    assert thought.action_units == (make_unit(1, "B", "left"), make_unit(12, "C"))
    assert [(m.muscle, m.movement, m.units, m.level, m.side) for m in thought.muscle_movements] == [
        ("frontalis (medial part)", "the inner left brow lifted", (1,), "B", "left"),
        ("zygomaticus major", "the mouth corners drawn up", (12,), "C", "both"),
    ]
    assert {name: getattr(thought.prompts, name) for name in PROMPTS} == PROMPTS
    assert thought.warnings == ()
    assert "(as seen by the oracle)" in steps_as_text(thought)[0]
    assert thought_from_dict(json.loads(json.dumps(thought.to_dict()))) == thought


def test_the_portrait_is_seen_in_step_one_alone_and_small(talk, picture):
    _, thinker = talk(*GOOD)
    seen = [shown and (shown.mode, shown.size) for _, shown in thinker.asked]
    assert seen == [("RGB", (LONGEST_SIDE, LONGEST_SIDE // 2)), None, None, None]
    assert picture.size == (1600, 800)


def test_each_question_quotes_what_the_steps_before_settled(talk):
    _, thinker = talk(*GOOD)
    units, muscles, prompts = (messages[0].text for messages, _ in thinker.asked[1:])
    assert "a woman with short dark hair" in units and "level brows, lips parted" in units
    assert "AU1 slight left inner brow raiser: frontalis (medial part)" in muscles and "AU12" in muscles
    assert '"slight left inner brow raiser", "marked lip corner puller"' in prompts


def test_the_users_own_subject_stands_above_what_is_seen(talk):
    own = PROMPTS | {"coarse": "An old man (smiling:1.2) is happy."}
    thought, _ = talk(FACE, UNITS, MUSCLES, own, subject="an old man (smiling:1.2)")
    assert thought.face.subject == "an old man (smiling:1.2)" and thought.face.by is None
    assert thought.prompts.coarse == own["coarse"] and thought.warnings == ()


def test_without_a_portrait_step_one_is_not_asked_and_said(talk):
    own = PROMPTS | {"coarse": "A person is happy."}
    thought, thinker = talk(UNITS, MUSCLES, own, picture=None)
    assert len(thinker.asked) == 3 and thought.face.subject == "a person"
    assert thought.warnings == ("there is no portrait for the oracle to look at, so the subject is a person",)


@pytest.mark.parametrize(("emotion", "intensity", "style"), [*product(EMOTIONS, ["Intense"], ["clip", "natural"])])
def test_the_examples_in_the_questions_are_themselves_accepted(talk, emotion, intensity, style):
    """A model that only copies the usual plan and texts gets through, for every emotion."""

    class Copy(Script):
        def answer(self, messages, picture, check):
            self.asked.append((messages, picture))
            text = messages[0].text
            if "Step 2" in text:
                usual = text[text.index("The usual plan is ") + 18 :]
                return json.dumps({"units": json.JSONDecoder().raw_decode(usual)[0]})
            if "Step 3" in text:
                units = think(emotion, intensity).action_units
                rows = [{"muscle": m.muscle, "units": m.units, "movement": m.movement} for m in trace_muscles(units)]
                return json.dumps({"muscles": rows})
            return text[text.index("and nothing else:\n") + 18 :]

    thinker = Copy()
    thought = ask(thinker, emotion, intensity, None, style, picture=Image.new("L", (80, 80)), memory=Memory())
    rules = think(emotion, intensity, "a person with short dark hair and round glasses", style)
    assert thought.warnings == tuple(text for text in rules.warnings if "kept within 77 tokens" not in text)
    assert (thought.action_units, thought.prompts) == (rules.action_units, rules.prompts)
    assert len(thinker.asked) == (4 if rules.action_units else 3)


@pytest.mark.parametrize(
    "bad", [answer for answer, _ in BAD_ANSWERS[:8]] + ['{"units": [{"number": 99, "level": "C"}]}']
)
def test_a_fault_is_met_with_one_question_that_quotes_it_and_a_good_answer_then_counts(talk, bad):
    thought, thinker = talk(FACE, bad, UNITS, MUSCLES, PROMPTS)
    assert thought.warnings == () and thought.action_units == read_units(UNITS, "happy")
    first, again = thinker.asked[1][0], thinker.asked[2][0]
    assert [m.role for m in again] == ["user", "assistant", "user"] and again[0] == first[0]
    with pytest.raises(InputError) as fault:
        read_units(parse(bad), "happy")
    assert str(fault.value) in again[2].text
    assert len(again[1].text) <= 1000 and not set("<>") & set(again[1].text)


@pytest.mark.parametrize("step", range(4))
def test_two_faulty_answers_give_that_step_to_the_rules_and_no_other(talk, step):
    lines = [*GOOD[:step], "I would rather not.", '{"units": 7}', *GOOD[step + 1 :]]
    if step == 0:
        lines[-1] = PROMPTS | {"coarse": "A person is happy."}
    if step == 1:  # what follows has to fit the rules' plan
        plan = think("happy", "Moderate")
        rows = [{"muscle": m.muscle, "units": m.units, "movement": m.movement} for m in plan.muscle_movements]
        lines[-2:] = [{"muscles": rows}, PROMPTS | {"fine": plan.prompts.fine}]
    thought, thinker = talk(*lines)
    assert thinker.lines == [] and len(thinker.asked) == 5
    assert len(thought.warnings) == 1
    said = thought.warnings[0]
    assert said.startswith(
        f"step {asking.STEPS[step]} is by the rules, not by the thinker the oracle: its answer cannot"
    )
    assert "begins 'I would rather not.'; asked again, its answer cannot be used: " in said
    assert thought.face.subject == ("a person" if step == 0 else "a woman with short dark hair, round glasses")
    assert (thought.action_units == think("happy").action_units) == (step == 1)
    assert (thought.muscle_movements == trace_muscles(thought.action_units)) == (step in (1, 2))
    assert (thought.prompts.fine == lines[-1].get("fine")) == (step != 3) if isinstance(lines[-1], dict) else step == 3


def test_templates_write_the_thinkers_units_when_its_prompts_fail(talk):
    thought, _ = talk(FACE, UNITS, MUSCLES, "no", "no")
    assert "slight left inner brow raiser" in thought.prompts.fine and thought.prompts.fine != PROMPTS["fine"]
    assert "the mouth corners drawn up" in thought.prompts.fine


def test_an_answer_that_breaks_off_costs_its_step_alone_and_is_not_asked_again(talk):
    thought, thinker = talk(FACE, UNITS, UnansweredError("it broke off"), PROMPTS)
    assert len(thinker.asked) == 4 and thought.prompts.fine == PROMPTS["fine"]
    assert thought.warnings == ("step III (muscles) is by the rules, not by the thinker the oracle: it broke off",)


def test_where_no_answer_can_be_expected_the_rules_take_the_rest_and_say_it_once(talk):
    thought, thinker = talk(UnansweredError("it cannot be reached", hopeless=True))
    assert len(thinker.asked) == 1
    rules = think("happy", "Moderate")
    assert (thought.action_units, thought.prompts) == (rules.action_units, rules.prompts)
    assert thought.warnings == (
        "step I (face) is by the rules and all that follow, not by the thinker the oracle: it cannot be reached",
    )


def test_patience_ends_for_the_four_steps_together(talk, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(asking.time, "monotonic", lambda: now[0])

    class Slow(Script):
        def answer(self, messages, picture, check):
            now[0] += 25
            return super().answer(messages, picture, check)

    thinker = Slow(*GOOD)
    picture = Image.new("RGB", (80, 80))
    thought = ask(thinker, "happy", picture=picture, patience=60, memory=Memory())
    assert len(thinker.asked) == 2 and thought.action_units == read_units(UNITS, "happy")
    assert "step III (muscles) is by the rules and all that follow" in thought.warnings[0]
    assert "it was not done after 60 s, the limit for all steps" in thought.warnings[0]


def test_a_cancel_passes_through_and_what_was_answered_by_then_is_not_asked_again(picture):
    class CancelledError(Exception):
        pass

    memory, left = Memory(), [2]

    def check():
        left[0] -= 1
        if left[0] < 0:
            raise CancelledError

    with pytest.raises(CancelledError):
        ask(Script(*GOOD), "happy", picture=picture, check=check, memory=memory)
    thinker = Script(MUSCLES, PROMPTS)
    assert ask(thinker, "happy", picture=picture, memory=memory).warnings == ()
    assert len(thinker.asked) == 2


@pytest.mark.parametrize(
    ("changed", "asked"),
    [
        ({}, 0),
        ({"style": "natural"}, 1),
        ({"intensity": "Mild"}, 2),
        ({"picture": Image.new("L", (90, 90), 9)}, 1),
    ],
)
def test_what_was_answered_once_is_asked_again_only_where_the_question_differs(picture, changed, asked):
    memory, given = Memory(), dict(emotion="happy", intensity="Moderate", picture=picture)
    first = ask(Script(*GOOD), **given, memory=memory)
    lines = {0: [], 1: [FACE] if "picture" in changed else [PROMPTS], 2: [UNITS, PROMPTS]}[asked]
    thinker = Script(*lines)
    again = ask(thinker, **(given | changed), memory=memory)
    assert len(thinker.asked) == asked and again.action_units == first.action_units


@pytest.mark.parametrize("field", ["identity", "version"])
def test_another_model_or_another_wording_is_asked_anew(picture, field, monkeypatch):
    memory = Memory()
    ask(Script(*GOOD), "happy", picture=picture, memory=memory)
    thinker = Script(*GOOD)
    if field == "identity":
        thinker.identity = ("script", "2")
    else:
        monkeypatch.setattr(questions, "PROMPT_VERSION", questions.PROMPT_VERSION + 1)
    ask(thinker, "happy", picture=picture, memory=memory)
    assert len(thinker.asked) == 4


def test_answers_that_did_not_hold_are_not_remembered_and_the_memory_is_bounded(picture):
    memory = Memory(most=2)
    ask(Script(FACE, UNITS, "no", "no", "no", "no"), "happy", picture=picture, memory=memory)
    assert len(memory.answers) == 2 and memory.unanswered == 0
    ask(Script(MUSCLES, UnansweredError("gone")), "happy", picture=picture, memory=memory)
    assert len(memory.answers) == 2 and memory.unanswered == 1


def test_wrong_choices_are_refused_before_anything_is_asked(talk):
    for given, message in (({"emotion": "hapy"}, "unknown emotion 'hapy'"), ({"style": "haiku"}, "'haiku'")):
        with pytest.raises(InputError, match=message):
            talk(**given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ThinkerOptions("oracle"), "thinker is 'oracle'; choose rules, server, vlm"),
        (ThinkerOptions("rules", url="http://x"), "thinker-url is given, but the thinker is rules"),
        (ThinkerOptions("vlm", url="http://x"), "thinker-url is given, but the thinker is vlm"),
        (ThinkerOptions("rules", model="x"), "thinker-model is given, but the thinker is rules"),
        (ThinkerOptions("server"), r"thinker-model is blank \(0 characters\)"),
    ],
)
def test_options_of_another_thinker_are_refused_and_nothing_is_asked(options, message):
    with pytest.raises(InputError, match=message):
        check_thinker(options)


def test_the_rules_never_look_at_the_picture():
    def look():
        raise AssertionError("the picture was opened")

    assert thought_of(ThinkerOptions(), "happy", picture=look) == think("happy")


def test_the_limit_of_an_answer_leaves_room_for_all_that_holds(talk):
    assert max(len(json.dumps(answer)) for answer in GOOD) * 10 < MOST_CHARACTERS
    assert isinstance(talk(*GOOD)[0].prompts, Prompts)
