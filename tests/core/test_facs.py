"""FACS as data: action units, the plans of the emotions, the rules between units."""

import pytest

from tbd_core.errors import InputError
from tbd_core.facs.action_units import (
    ACTION_UNITS,
    LEVEL_VALUES,
    LEVEL_WORDS,
    describe_all,
    make_unit,
    movement,
    value,
)
from tbd_core.facs.emotions import EMOTIONS, INTENSITIES, parse_emotion, parse_intensity, units_for
from tbd_core.facs.rules import (
    HARD_EXCLUSIONS,
    IMPLICATIONS,
    SOFT_CONFLICTS,
    hard_conflicts,
    missing_implications,
    soft_conflicts,
)
from tbd_core.flow import LEVELS, SIDES


# every set needs one member of each group
LEAST_UNITS = {
    "happy": ({12},),
    "sad": ({1}, {4}, {15}),
    "angry": ({4}, {7}, {5, 23, 24}),
    "surprised": ({1}, {2}, {5, 25, 26, 27}),
    "fear": ({1}, {4}, {5, 20}),
    "disgusted": ({9, 10},),
    "contempt": ({14},),
    "neutral": (),
}
CORE = {
    "happy": {6, 12},
    "sad": {1, 4, 15},
    "angry": {4, 7, 23},
    "surprised": {1, 2, 5},
    "fear": {1, 4, 5, 20},
    "disgusted": {9},
    "contempt": {14},
    "neutral": set(),
}


def levels(emotion, intensity):
    return {u.number: value(u) for u in units_for(emotion, intensity)}


@pytest.mark.parametrize("intensity", INTENSITIES)
@pytest.mark.parametrize("emotion", EMOTIONS)
def test_every_intensity_keeps_the_emotions_least_units(emotion, intensity):
    numbers = {u.number for u in units_for(emotion, intensity)}
    assert all(numbers & group for group in LEAST_UNITS[emotion])


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_levels_rise_with_intensity(emotion):
    mild, moderate, intense = (levels(emotion, i) for i in INTENSITIES)
    assert set(mild) <= set(moderate) <= set(intense)
    assert all(mild.get(n, 0) <= moderate.get(n, 0) <= intense[n] for n in intense)
    assert CORE[emotion] <= set(mild)
    assert all(mild[n] < intense[n] for n in CORE[emotion])


@pytest.mark.parametrize("intensity", INTENSITIES)
def test_the_emotions_plans_differ_from_one_another(intensity):
    assert len({frozenset(levels(e, intensity)) for e in EMOTIONS}) == len(EMOTIONS)


@pytest.mark.parametrize("intensity", INTENSITIES)
@pytest.mark.parametrize("emotion", EMOTIONS)
def test_the_emotions_plans_break_no_rule_and_leave_the_jaw_to_speech(emotion, intensity):
    units = units_for(emotion, intensity)
    assert hard_conflicts(units) == soft_conflicts(units, emotion) == missing_implications(units) == ()
    assert not {u.number for u in units} & {26, 27}
    assert levels(emotion, intensity).get(25, 0) <= LEVEL_VALUES["B"]


def test_neutral_has_no_units():
    assert units_for("neutral", "Intense") == ()


def test_only_contempt_is_one_sided():
    for emotion in EMOTIONS:
        for intensity in INTENSITIES:
            sides = {u.side for u in units_for(emotion, intensity)}
            assert sides == ({"right"} if emotion == "contempt" else {"both"} if sides else set())


@pytest.mark.parametrize(
    ("emotion", "spellings"),
    [
        ("happy", "happy hap HAPPY Happiness joy"),
        ("sad", "sad SAD sadness"),
        ("angry", "angry ang Anger"),
        ("surprised", "surprised sur surprise"),
        ("fear", "fear fea fearful afraid"),
        ("disgusted", "disgusted dis disgust"),
        ("contempt", "contempt con contemptuous"),
        ("neutral", "neutral neu Neutral"),
    ],
)
def test_every_spelling_is_understood(emotion, spellings):
    assert {parse_emotion(f" {s} ") for s in spellings.split()} == {emotion}


@pytest.mark.parametrize(
    ("intensity", "spellings"),
    [
        ("Mild", ("mild", "MILD", "level_1", "level 1", "Level1", "1")),
        ("Moderate", ("Moderate", "moderate", "level_2", "2")),
        ("Intense", ("intense", " Intense ", "LEVEL_3", "level-3", "3")),
    ],
)
def test_every_spelling_of_an_intensity_is_understood(intensity, spellings):
    assert {parse_intensity(s) for s in spellings} == {intensity}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hapy", r"unknown emotion 'hapy'; did you mean happy\? choose one of happy, sad"),
        ("angryy", r"'angryy'; did you mean angry"),
        ("qqq", r"'qqq'; choose one of happy, .*neutral"),
        ("  ", "emotion is blank; choose one of happy"),
    ],
)
def test_an_unknown_emotion_is_refused_with_the_nearest_names(text, message):
    with pytest.raises(InputError, match=message):
        parse_emotion(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("moderat", r"'moderat'; did you mean Moderate\?"),
        ("level_4", r"unknown intensity 'level_4'"),
        ("", "choose one of Mild, Moderate, Intense"),
    ],
)
def test_an_unknown_intensity_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_intensity(text)


def test_every_unit_can_be_made_at_every_level_with_its_muscles():
    for number, row in ACTION_UNITS.items():
        for level in LEVELS:
            unit = make_unit(number, level)
            assert (unit.number, unit.name, unit.level, unit.side) == (number, row.name, level, "both")
            assert unit.muscles == row.muscles
            assert all(unit.muscles)


def test_one_sided_units_say_their_side():
    for number, row in ACTION_UNITS.items():
        for side in ("left", "right"):
            if row.one_side is None:
                with pytest.raises(InputError, match=f"action unit {number} .* has no {side} side"):
                    make_unit(number, "C", side)
            else:
                assert side in movement(make_unit(number, "C", side)).split()


def test_level_words_cover_the_levels_in_order():
    assert tuple(LEVEL_WORDS) == LEVELS
    assert list(LEVEL_VALUES.values()) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3,), "no action unit 3; choose one of 1, 2, 4"),
        ((12, "F"), r"action unit 12 has level 'F'; choose one of A \(trace\), B \(slight\)"),
        ((12, "C", "up"), f"action unit 12 has side 'up'; choose one of {', '.join(SIDES)}"),
    ],
)
def test_an_impossible_unit_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        make_unit(*arguments)


def test_known_errors_of_public_tables_are_not_repeated():
    assert ACTION_UNITS[10].name == "upper lip raiser"
    assert [ACTION_UNITS[n].name for n in (5, 7, 17)] == ["upper lid raiser", "lid tightener", "chin raiser"]
    assert ACTION_UNITS[13].name == "sharp lip puller"
    assert 3 not in ACTION_UNITS


def test_a_plan_is_written_as_coders_write_it():
    assert describe_all([make_unit(6), make_unit(14, "E", "right")]) == "6C + R14E"
    assert describe_all([]) == "0"


@pytest.mark.parametrize("pair", HARD_EXCLUSIONS)
def test_excluded_pairs_are_found_in_either_order(pair):
    units = [make_unit(n) for n in pair if n != 46] + [make_unit(46, "C", "left")] * (46 in pair)
    for plan in (units, units[::-1]):
        assert [f.units for f in hard_conflicts(plan)] == [pair]


def test_opposites_on_different_sides_do_not_conflict():
    assert hard_conflicts([make_unit(5, "C", "left"), make_unit(43, "C", "right")]) == ()
    assert soft_conflicts([make_unit(12, "C", "left"), make_unit(14, "C", "right")]) == ()
    assert hard_conflicts([make_unit(12, "A", "left"), make_unit(12, "C", "right")]) == ()


def test_a_unit_twice_on_one_side_conflicts():
    (found,) = hard_conflicts([make_unit(12, "A"), make_unit(12, "C", "right")])
    assert found.units == (12, 12)
    assert "AU12 stands twice, at A and C" in found.text


def test_a_wink_is_one_eye_only():
    assert "AU46 (wink) has side both" in hard_conflicts([make_unit(46)])[0].text
    assert hard_conflicts([make_unit(46, "C", "right")]) == ()


@pytest.mark.parametrize("pair", SOFT_CONFLICTS)
def test_soft_conflicts_name_the_lesser_unit(pair):
    strong, weak = make_unit(pair[0], "D"), make_unit(pair[1], "B")
    (found,) = soft_conflicts([weak, strong])
    assert found.units == pair
    assert f"AU{weak.number} will show less" in found.text


def test_what_is_unusual_with_an_emotion_is_said_there_only():
    brow = [make_unit(1)]
    assert soft_conflicts(brow) == soft_conflicts(brow, "sad") == ()
    assert "unusual with angry" in soft_conflicts(brow, "angry")[0].text


@pytest.mark.parametrize("rule", IMPLICATIONS)
def test_missing_company_is_found_until_it_is_there(rule):
    number, least, wanted, _, _ = rule
    unit = make_unit(number, LEVELS[least - 1])
    assert [f.units for f in missing_implications([unit])] == [(number, *wanted)]
    assert missing_implications([make_unit(wanted[0]), unit]) == ()
    if least > 1:
        assert missing_implications([make_unit(number, LEVELS[least - 2])]) == ()
