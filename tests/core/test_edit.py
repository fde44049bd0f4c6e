"""Whose words are drawn in each mode, and that a person's words always stay."""

import subprocess
import sys
from dataclasses import replace
from itertools import product

import pytest

from tbd_core.cot_fa.edit import MODES, TEXTS, needed, settle
from tbd_core.cot_fa.think import think
from tbd_core.cot_fa.tokenizer import count_tokens
from tbd_core.errors import InputError
from tbd_core.facs.action_units import make_unit


GENERATED = {"coarse": "A person is speaking.", "fine": "A marked smile.", "negative": "blurred face"}
WRITTEN = {"coarse": "My person.", "fine": "My smile.", "negative": "my fear"}


def texts(settled) -> dict[str, str]:
    return dict(zip(TEXTS, settled.texts, strict=True))


@pytest.mark.parametrize("mode", ["auto", "review"])
@pytest.mark.parametrize(
    "linked", [names for n in range(8) if (names := [t for i, t in enumerate(TEXTS) if n >> i & 1])]
)
def test_what_is_generated_goes_on_and_the_rest_is_the_persons(mode, linked):
    settled = settle(mode, {name: GENERATED[name] for name in linked}, WRITTEN)
    assert texts(settled) == {name: (GENERATED if name in linked else WRITTEN)[name] for name in TEXTS}


@pytest.mark.parametrize("generated", [{}, GENERATED, dict.fromkeys(TEXTS)])
def test_edited_is_the_persons_whatever_is_linked(generated):
    assert texts(settle("edited", generated, WRITTEN)) == WRITTEN


@pytest.mark.parametrize("mode", MODES)
def test_only_review_stops_what_is_below(mode):
    assert settle(mode, GENERATED, WRITTEN).blocked == (mode == "review")


def test_edited_asks_for_nothing_and_the_others_for_all_that_is_not_computed():
    names = ["fine", "thought"]
    assert {mode: needed(mode, names) for mode in MODES} == {"auto": names, "review": names, "edited": []}
    assert needed("auto", []) == []


@pytest.mark.parametrize(("mode", "name"), list(product(["auto", "review"], ["coarse", "fine"])))
def test_a_generated_prompt_without_words_is_refused(mode, name):
    with pytest.raises(InputError, match=rf"mode is {mode} and the {name} prompt is blank \(0 words\): what is linked"):
        settle(mode, GENERATED | {name: " \n"}, WRITTEN)


@pytest.mark.parametrize("name", ["coarse", "fine"])
def test_blank_words_of_a_person_are_refused_where_they_would_be_drawn(name):
    blank = WRITTEN | {name: "  "}
    with pytest.raises(InputError, match=rf"mode is edited and the {name} prompt is blank \(0 words\); .*{name}_text"):
        settle("edited", GENERATED, blank)
    with pytest.raises(InputError, match=f"mode is auto and the {name} .*nothing is linked to {name}"):
        settle("auto", {}, blank)
    assert settle("auto", GENERATED, blank).texts == tuple(GENERATED.values())


@pytest.mark.parametrize("mode", MODES)
def test_a_blank_negative_is_fine(mode):
    assert settle(mode, GENERATED | {"negative": ""}, WRITTEN | {"negative": ""}).texts[2] == ""


def test_a_link_that_brings_no_text_is_refused():
    with pytest.raises(InputError, match="fine is linked, but None arrived"):
        settle("auto", GENERATED | {"fine": None}, WRITTEN)


@pytest.mark.parametrize("ask", [lambda: needed("manual", []), lambda: settle("manual", GENERATED, WRITTEN)])
def test_an_unknown_mode_is_refused(ask):
    with pytest.raises(InputError, match="mode is 'manual'; choose auto, review, edited"):
        ask()


def test_tokens_are_those_of_the_texts_that_go_on():
    assert settle("auto", GENERATED, WRITTEN).tokens == tuple(count_tokens(GENERATED[name]) for name in TEXTS)
    assert settle("edited", GENERATED, WRITTEN).tokens == tuple(count_tokens(WRITTEN[name]) for name in TEXTS)


LONG = "word " * 75 + "these are cut"


def test_words_beyond_clips_budget_are_quoted_and_called_cut_only_where_clip_is_known_to_read_them():
    perhaps = "the fine prompt has 80 tokens; a CLIP encoder reads 77 and would cut 'these are cut', others read all"
    for mode in MODES:
        assert perhaps in settle(mode, GENERATED | {"fine": LONG}, WRITTEN | {"fine": LONG}).warnings
    warnings = settle("auto", GENERATED | {"fine": LONG}, WRITTEN, think("happy", style="clip")).warnings
    assert "the fine prompt has 80 tokens, CLIP reads 77; these words are cut: 'these are cut'" in warnings
    assert not [text for text in warnings if "would cut" in text]


def test_a_long_prompt_in_whole_sentences_is_never_told_that_it_is_cut():
    thought = think("happy", "Intense", style="natural")
    words = dict(zip(TEXTS, (LONG, thought.prompts.fine, ""), strict=True))
    for mode in ("auto", "review"):
        assert not [text for text in settle(mode, words, WRITTEN, thought).warnings if "tokens" in text]
    edited = [text for text in settle("edited", words, words, thought).warnings if "tokens" in text]
    assert [text.split(" has ")[0] for text in edited] == ["the coarse prompt", "the fine prompt"]
    assert all("a CLIP encoder reads 77 and would cut" in text for text in edited)


IMPOSSIBLE = (make_unit(24, "B"), make_unit(26, "C"))


@pytest.mark.parametrize("mode", ["auto", "review"])
def test_a_plan_that_no_face_can_show_is_refused_before_anything_is_drawn(mode):
    thought = replace(think("happy"), action_units=IMPOSSIBLE)
    with pytest.raises(InputError, match=r"AU24 .* and AU26 .* exclude each other: .*; remove one"):
        settle(mode, GENERATED, WRITTEN, thought)
    assert settle("edited", GENERATED, WRITTEN, thought).texts == tuple(WRITTEN.values())


def test_units_that_work_against_each_other_are_a_warning():
    plan = replace(think("happy"), action_units=(make_unit(12, "D"), make_unit(15, "B")))
    warnings = settle("auto", GENERATED, WRITTEN, plan).warnings
    assert [text for text in warnings if "AU15" in text and "AU15 will show less than it says" in text]


def test_the_plan_is_held_against_generated_words_and_its_style_counts():
    thought = think("happy", "Intense", style="natural")
    prompts = thought.prompts
    words = dict(zip(TEXTS, (prompts.coarse, prompts.fine, prompts.negative), strict=True))
    assert count_tokens(prompts.fine) > 77
    assert settle("auto", words, WRITTEN, thought).warnings == ()
    assert len(settle("review", GENERATED, WRITTEN, thought).warnings) == len(thought.action_units)
    assert settle("edited", words, WRITTEN, thought).warnings == ()  # a person need not follow the plan


def test_the_digest_changes_with_the_texts_alone():
    one = settle("auto", GENERATED, WRITTEN).digest
    assert one == settle("review", GENERATED, {}).digest == settle("edited", {}, GENERATED).digest
    assert len({one, *(settle("auto", GENERATED | {name: "other"}, WRITTEN).digest for name in TEXTS)}) == 4
    assert settle("edited", {}, {"coarse": "a b", "fine": "c", "negative": ""}).digest != (
        settle("edited", {}, {"coarse": "a", "fine": "b c", "negative": ""}).digest
    )


def test_what_the_page_gets_is_lists():
    shown = settle("review", GENERATED, WRITTEN).ui()
    assert list(shown) == [*TEXTS, "tokens", "warnings", "digest", "state"]
    assert all(isinstance(value, list) for value in shown.values())
    assert shown["fine"] == ["A marked smile."] and shown["state"] == ["review"] and len(shown["tokens"]) == 3


def test_editing_never_imports_torch():
    code = "import sys, tbd_core.cot_fa.edit; sys.exit('torch' in sys.modules or 'tokenizers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
