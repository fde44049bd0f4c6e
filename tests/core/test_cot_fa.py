"""CoT-FA: from emotion and intensity to the prompts, the checks on them, and their record."""

import json
import random
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from tbd_core.cot_fa.prompts import label_prompt, unit_phrase, write_prompts
from tbd_core.cot_fa.record import steps_as_text, thought_from_dict, thought_to_json
from tbd_core.cot_fa.review import missing_units, repeated_words, review, review_plan, review_prompts
from tbd_core.cot_fa.think import describe_face, think, trace_muscles
from tbd_core.cot_fa.tokenizer import count_tokens
from tbd_core.errors import InputError
from tbd_core.facs.action_units import ACTION_UNITS, LEVEL_WORDS, make_unit
from tbd_core.facs.emotions import EMOTIONS, INTENSITIES
from tbd_core.flow import LEVELS, FaceInfo, Prompts, Thought


COMBINATIONS = list(product(EMOTIONS, INTENSITIES))
ROOT = Path(__file__).resolve().parents[2]


def random_plan(rng, size):
    units = []
    for number in rng.sample(sorted(ACTION_UNITS), size):
        sided = ACTION_UNITS[number].one_side is not None
        units.append(make_unit(number, rng.choice(LEVELS), rng.choice(("both", "left", "right")) if sided else "both"))
    return tuple(units)


def write(units, emotion="neutral", intensity="Mild", style="clip", subject="a person"):
    return write_prompts(FaceInfo(subject), emotion, intensity, units, trace_muscles(units), style)


def test_thinking_never_imports_torch():
    code = (
        "import sys; from tbd_core.cot_fa import prompts, record, review, think, tokenizer; "
        "think.think('happy'); print([m for m in ('torch', 'transformers', 'diffusers') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(("emotion", "intensity"), COMBINATIONS)
def test_prompts_take_the_papers_form_and_fit_the_budget(emotion, intensity):
    thought = think(emotion, intensity)
    prompts = thought.prompts
    assert prompts.coarse.startswith("A person is speaking with a")
    assert prompts.coarse.endswith(" emotion.")
    assert prompts.fine.startswith("The facial expression shows ")
    assert " as the subject " in prompts.fine
    assert prompts.tokens == tuple(map(count_tokens, (prompts.coarse, prompts.fine, prompts.negative)))
    assert max(prompts.tokens) <= 77
    assert review(thought) == ()
    if emotion != "neutral":
        assert f" with {intensity} " in prompts.fine


@pytest.mark.parametrize("style", ["clip", "natural"])
@pytest.mark.parametrize(("emotion", "intensity"), COMBINATIONS)
def test_every_units_level_word_and_side_stand_in_the_fine_prompt(emotion, intensity, style):
    thought = think(emotion, intensity, style=style)
    for unit in thought.action_units:
        side = "" if unit.side == "both" else f"{unit.side} "
        assert f"{LEVEL_WORDS[unit.level]} {side}{unit.name}" in thought.prompts.fine
    assert review_prompts(thought.prompts, thought.action_units) == ()


def test_all_emotions_and_intensities_have_fine_prompts_of_their_own():
    assert len({think(e, i).prompts.fine for e, i in COMBINATIONS}) == 7 * 3 + 1


def test_random_plans_keep_every_unit_or_say_which_do_not_fit():
    rng = random.Random(0)
    whole = part = 0
    for _ in range(150):
        units = random_plan(rng, rng.randint(1, 14))
        prompts, warnings = write(units, rng.choice(EMOTIONS), rng.choice(INTENSITIES))
        assert max(prompts.tokens) <= 77
        lost = missing_units(units, prompts.fine)
        said = " ".join(warnings)
        assert all(f"AU{u.number} {unit_phrase(u)}" in said for u in lost)
        assert bool(lost) == ("left out of it" in said)
        whole, part = whole + (not lost), part + bool(lost)
    assert whole > 50
    assert part > 10


def test_a_plan_beyond_the_budget_keeps_its_strongest_units():
    numbers = [1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]
    units = [make_unit(n, "E" if n in (16, 18) else "B") for n in numbers]
    prompts, warnings = write(units)
    assert "maximal lower lip depressor" in prompts.fine
    assert "maximal lip pucker" in prompts.fine
    assert any("the plan alone needs" in w and "holds 77" in w for w in warnings)
    assert not missing_units(units, write(units, style="natural")[0].fine)


def test_what_the_budget_cost_is_said():
    full, silent = write([make_unit(12)], "happy")
    assert silent == ()
    assert "zygomaticus major muscles are active" in full.fine
    units = [make_unit(n, "B", "left") for n in (1, 2, 4, 5, 7, 10, 15, 16)]
    tight, said = write(units, "happy")
    assert "muscle" not in tight.fine
    assert len(said) == 1
    assert "within 77 tokens without" in said[0]
    assert "muscles" in said[0]


def test_the_article_follows_the_emotion():
    assert think("angry").prompts.coarse == "A person is speaking with an angry emotion."
    assert think("fear").prompts.coarse == "A person is speaking with a fearful emotion."


@pytest.mark.parametrize("blank", [None, "", "  \n"])
def test_without_words_the_subject_is_a_person(blank):
    assert describe_face(blank) == FaceInfo("a person", given=False, portrait=None)


def test_the_users_words_name_the_subject():
    thought = think("happy", subject=" a woman  in her 40s, with red hair. ", portrait="/pictures/anna.png")
    assert thought.face == FaceInfo("a woman in her 40s, with red hair.", given=True, portrait="anna.png")
    assert thought.prompts.coarse == "A woman in her 40s, with red hair, is speaking with a happy emotion."


def test_a_long_subject_gives_way_to_the_emotion_and_is_quoted():
    thought = think("sad", subject="a man " + "with a very long beard " * 30 + "and a hat")
    assert thought.prompts.coarse.endswith(" is speaking with a sad emotion.")
    assert 70 <= thought.prompts.tokens[0] <= 77
    assert any("within 77 tokens" in w and "and a hat" in w for w in thought.warnings)
    natural = think("sad", subject="a man " + "with a very long beard " * 30 + "and a hat", style="natural")
    assert "and a hat is speaking" in natural.prompts.coarse


@pytest.mark.parametrize("intensity", INTENSITIES)
def test_neutral_has_words_but_no_units_and_says_that_intensity_has_no_effect(intensity):
    thought = think("neutral", intensity)
    assert thought.action_units == thought.muscle_movements == ()
    assert thought.prompts == think("neutral", "Mild").prompts
    assert thought.prompts.fine.strip()
    assert thought.warnings == (f"neutral has no intensities; {intensity} has no effect",)


def test_negative_prompts_never_name_what_the_plan_wants():
    assert "drooping mouth corners" in think("happy").prompts.negative
    assert "drooping mouth corners" not in write([make_unit(15)], "happy")[0].negative
    assert "distorted mouth" in think("happy").prompts.negative


def test_the_natural_style_says_more():
    for emotion, intensity in COMBINATIONS:
        clip, natural = (think(emotion, intensity, style=s).prompts for s in ("clip", "natural"))
        assert len(natural.fine) > len(clip.fine) or not think(emotion, intensity).action_units
        assert len(natural.coarse) > len(clip.coarse)


def test_muscles_stand_once_with_all_that_they_do():
    units = [make_unit(23, "B"), make_unit(24, "D"), make_unit(14, "A", "left")]
    lips, cheek = trace_muscles(units)
    assert (lips.muscle, lips.units, lips.level, lips.side) == ("orbicularis oris", (23, 24), "D", "both")
    assert lips.movement == "the lips tightened and narrowed, and the lips pressed together"
    assert (cheek.muscle, cheek.side) == ("buccinator", "left")
    assert "The orbicularis oris muscle is active" in write([make_unit(24)])[0].fine
    assert "The left buccinator muscle is active" in write([make_unit(14, "A", "left")])[0].fine


def test_own_units_replace_the_emotions():
    thought = think("happy", "Mild", units=[make_unit(12, "D"), make_unit(6, "C")])
    assert [u.number for u in thought.action_units] == [12, 6]
    assert "severe lip corner puller and marked cheek raiser" in thought.prompts.fine


def test_an_empty_plan_is_said():
    thought = think("happy", "Mild", units=[])
    assert any("no action units" in w for w in thought.warnings)
    assert "Mild Happiness" in thought.prompts.fine


def test_soft_conflicts_and_missing_company_are_warned_of_and_kept():
    thought = think("angry", units=[make_unit(12, "D"), make_unit(15)])
    assert [u.number for u in thought.action_units] == [12, 15]
    assert any("AU12 (lip corner puller) works against AU15" in w for w in thought.warnings)
    assert any("AU12 (lip corner puller) usually comes with AU6" in w for w in thought.warnings)


def test_a_plan_no_face_can_show_is_refused():
    with pytest.raises(InputError, match=r"AU24 \(lip pressor\) and AU25 \(lips part\) exclude.*remove one"):
        think("happy", units=[make_unit(25), make_unit(24)])
    with pytest.raises(InputError, match="action unit 12 has level 'Z'"):
        review_plan([replace(make_unit(12), level="Z")])


def test_an_unknown_style_is_refused():
    with pytest.raises(InputError, match="unknown prompt style 'haiku'; choose clip or natural"):
        think("happy", style="haiku")


def test_thinking_is_deterministic():
    for (emotion, intensity), style in product(COMBINATIONS, ("clip", "natural")):
        assert think(emotion, intensity, style=style) == think(emotion, intensity, style=style)


def test_labels_are_bare():
    assert label_prompt("ANG", "level_1") == "angry, mild"
    assert label_prompt("neutral", "Intense") == "neutral"


def test_units_missing_from_an_edited_text_are_named():
    thought = think("contempt", "Intense")
    edited = replace(thought, prompts=replace(thought.prompts, fine="maximal left dimpler"))
    assert [w for w in review(edited) if "AU14" in w and "'maximal right dimpler'" in w]
    assert [w for w in review(edited) if "AU10" in w]
    assert not missing_units([make_unit(14, "E", "left")], "A  Maximal\nleft dimpler.")


def test_redundancy_is_warned_of():
    assert repeated_words("the brows go up and then the brows go up again") == "the brows go up"
    assert repeated_words("the brows go up and the eyes open") == ""
    (warning,) = review_prompts(Prompts("a b c d, a b c d", "fine", ""))
    assert warning == "the coarse prompt says 'a b c d' twice"


def test_a_prompt_over_budget_quotes_the_words_that_would_be_cut():
    text = " ".join(f"word{'abcdefghij'[i % 10]}{'klmnop'[i // 10]}" for i in range(60)) + " last words"
    (warning,) = review_prompts(Prompts("coarse", text, ""))
    assert f"the fine prompt has {count_tokens(text)} tokens, CLIP reads 77" in warning
    assert "last words" in warning
    assert review_prompts(Prompts("coarse", text, "", style="natural")) == ()


@pytest.mark.parametrize("name", ["coarse", "fine"])
def test_a_blank_prompt_is_refused_but_a_blank_negative_is_not(name):
    prompts = Prompts("coarse words", "fine words", "")
    assert review_prompts(prompts) == ()
    with pytest.raises(InputError, match=rf"the {name} prompt is blank \(0 words\); give it at least 1"):
        review_prompts(replace(prompts, **{name: " \n"}))


def test_a_thought_survives_json():
    for emotion in EMOTIONS:
        thought = think(emotion, "Intense", subject="a man", portrait="man.png")
        assert thought_from_dict(thought.to_dict()) == thought
        assert thought_from_dict(json.loads(json.dumps(thought.to_dict()))) == thought
    assert isinstance(thought, Thought)


def test_a_damaged_record_is_refused():
    values = think("happy").to_dict()
    with pytest.raises(InputError, match="Thought lacks prompts; its fields are emotion, intensity"):
        thought_from_dict({k: v for k, v in values.items() if k != "prompts"})
    with pytest.raises(InputError, match="FaceInfo adds age; its fields"):
        thought_from_dict({**values, "face": {**values["face"], "age": 3}})
    with pytest.raises(InputError, match="ActionUnit lacks level, muscles, name, number, side"):
        thought_from_dict({**values, "action_units": ["12"]})


def test_the_json_of_a_thought_has_exactly_the_promised_fields():
    out = thought_to_json(think("contempt", "Mild"))
    names = "emotion intensity face action_units coarse fine negative tokens steps warnings"
    assert list(out) == names.split()
    (unit,) = out["action_units"]
    assert unit == {"number": 14, "name": "dimpler", "level": "B", "side": "right", "muscles": ["buccinator"]}
    assert list(out["tokens"]) == ["coarse", "fine", "negative"]
    assert json.loads(json.dumps(out)) == out


def test_the_four_steps_are_readable():
    thought = think("contempt", "Intense", portrait="x.png")
    face, units, muscles, prompts = steps_as_text(thought)
    assert face.startswith("I. Face: a person")
    assert "x.png" in face
    assert "R14E" in units
    assert "dimpler, maximal (E), right" in units
    assert "buccinator: the right mouth corner tightened inward (AU14, maximal, right)" in muscles
    assert thought.prompts.fine in prompts
    assert all(step.strip() for step in steps_as_text(think("neutral")))
