"""What is drawn to be judged, how it is judged, and a whole evaluation with toy networks."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from tbd_core.checkpoint import store
from tbd_core.cli import main
from tbd_core.data.plans import unit_levels
from tbd_core.data.recordings import HELD_OUT
from tbd_core.errors import InputError
from tbd_core.evaluation import comparisons, draw, judge
from tbd_core.evaluation.cases import ASSETS, VOICES, CaseSizes, make_case, silent_cases, spread, unit_samples
from tbd_core.evaluation.command import retold, show
from tbd_core.evaluation.evaluate import SCORES, EvaluateOptions, evaluate, prepare
from tbd_core.evaluation.pictures import curves, grid
from tbd_core.evaluation.proof import ProofOptions, prove
from tbd_core.evaluation.proof_text import GOALS, Goal, percent, verdict, write_text
from tbd_core.evaluation.readers import (
    ExpressionReader,
    IdentityReader,
    Readers,
    Readings,
    load_readers,
    save_readers,
)
from tbd_core.facs.action_units import make_unit
from tbd_core.facs.emotions import EMOTIONS
from tbd_core.synthetic.face import AU_NUMBERS, IDENTITY, NUM_IDENTITY, SIDED_UNITS


MIDDLE = next(number for number in AU_NUMBERS if number not in SIDED_UNITS)
SPEECH = ASSETS / "sample" / "speech.wav"
TOY = CaseSizes(people=1, units=(12, MIDDLE), emotions=("happy", "contempt"), voices=(SPEECH,), seconds=2.8)
CLIPS = 1 + 4 + 6 + 5  # rest, samples of two units, two emotions at three intensities, the recording
pytestmark = pytest.mark.usefixtures("loaded_once")


@pytest.fixture(scope="module")
def reader_file(tmp_path_factory, fill):
    errors = {
        "people": 3, "pictures": 6, "au_rms": {str(n): 0.5 for n in AU_NUMBERS}, "au_rms_mean": 0.5,
        "mouth_rms": [0.1, 0.1, 0.1], "closed_rms": 0.1, "emotion_accuracy": 0.9, "side_accuracy": None,
        "identity_r2": {name: 0.9 - 0.02 * i for i, name in enumerate(IDENTITY)},
    }  # fmt: skip
    path = tmp_path_factory.mktemp("reader") / "reader.safetensors"
    save_readers(path, Readers(fill(ExpressionReader(), 1), fill(IdentityReader(), 2), {"errors": errors}))
    return path


@pytest.fixture(scope="module")
def bundle(small_bundle, tmp_path_factory):
    """The small bundle, drawn in one pass a step: how it is guided is not judged here."""
    networks, config = store.load(small_bundle)
    unguided = replace(config, defaults=replace(config.defaults, guidance=1.0))
    path = tmp_path_factory.mktemp("unguided") / small_bundle.name
    about = {"name": "small", "training": {"command": "none", "preliminary": True}}
    store.save(path, networks, unguided, about, torch.float16)
    return path


@pytest.fixture(scope="module")
def made(bundle, reader_file, loaded_once):
    seen = []
    options = EvaluateOptions(bundle, device="cpu", dtype="fp32")
    evaluation = evaluate(prepare(options, TOY, reader_file), lambda done, total: seen.append((done, total)))
    return evaluation, seen


# ---- cases


def test_every_unit_is_asked_for_at_spread_levels_on_different_people_and_on_each_side():
    sizes = CaseSizes()
    cases = silent_cases(sizes)
    for number in AU_NUMBERS:
        samples = [case for case in cases if case.kind == "unit" and case.unit.number == number]
        assert len(samples) == sizes.people == len({case.person for case in samples})
        levels = {(case.unit.side, case.unit.level) for case in samples}
        assert len({level for _, level in levels}) == 3 and ("both", "E") in levels
        sides = [case.unit.side for case in samples if case.unit.side != "both"]
        assert sorted(sides) == (["left", "right"] if number in SIDED_UNITS else [])
    assert spread(5) == list("ABCDE") and spread(1) == ["E"] and len(unit_samples(12, 2)) == 2
    one, other = ({side: level for level, side in unit_samples(number, 3)} for number in SIDED_UNITS[:2])
    assert one["left"] == other["right"] == "D" and one["right"] == other["left"] == "B"


def test_a_case_is_told_as_the_thinker_tells_it():
    case = make_case("unit", 0, units=(make_unit(12, "D", "left"),))
    assert "severe left lip corner puller" in case.plan.fine and "neutral" in case.plan.coarse
    assert unit_levels([case.plan])[0, AU_NUMBERS.index(12)].tolist() == pytest.approx([0.8, 0])


def test_more_people_mean_proportionally_more_cases():
    few, many = (len(silent_cases(CaseSizes(people=n))) for n in (4, 8))
    assert many == 2 * few


def test_the_voices_that_are_spoken_are_held_out():
    """As the table beside the recordings names them."""
    table = (ASSETS / "evaluation" / "README.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+\.wav)` \| (\S+) \|", table, re.MULTILINE))
    assert rows.keys() == {path.name for path in VOICES} and len(rows) >= 4
    for voice in rows.values():
        base, _, variant = voice.partition("+")
        assert base in HELD_OUT.english + HELD_OUT.foreign and variant in HELD_OUT.variants


def test_every_voice_has_seams_enough_to_be_judged_and_fits():
    for path in VOICES:
        sound, rate = soundfile.read(path)
        assert rate == 16_000 and 5 * 0.56 <= len(sound) / rate <= CaseSizes().seconds


# ---- judging


def readings(cases) -> Readings:
    """What a perfect reader reads of a perfect model."""
    emotions = torch.zeros(len(cases), len(EMOTIONS))
    for row, case in zip(emotions, cases, strict=True):
        row[EMOTIONS.index(case.plan.emotion)] = 1
    units = unit_levels([case.plan for case in cases])
    return Readings(units, torch.zeros(len(cases), 3), torch.zeros(len(cases)), emotions)


def test_a_perfect_model_scores_one_and_a_frozen_one_nothing():
    cases = silent_cases(CaseSizes(people=2))
    found = judge.expressions(cases, readings(cases)).values
    assert set(found.values()) == {1.0}
    frozen = judge.expressions(cases, readings([make_case("rest", 0)] * len(cases))).values
    assert frozen["au_response_mean"] == frozen["side_accuracy"] == frozen["intensity_monotone"] == 0
    assert frozen["emotion_accuracy"] == pytest.approx(2 / 16)  # only those at rest


def test_swapped_sides_are_counted_as_wrong():
    cases = silent_cases(CaseSizes(people=2))
    read = readings(cases)
    swapped = replace(read, units=read.units.flip(-1))
    assert judge.side_scores(cases, swapped).values["side_accuracy"] == 0
    assert judge.unit_scores(cases, swapped).values["au_response_worst"] < 0.5


def test_lips_that_follow_late_are_found_out():
    sound = np.random.default_rng(2).random(60)
    late = judge.Spoken("late", sound.tolist(), np.roll(sound, 3).tolist(), [], [])
    found = judge.lip_scores([late], []).values
    assert found["lip_lag_frames"] == 3 and found["lip_r_unseen"] < 0.5 and found["lip_r_real"] is None


def test_recordings_of_one_name_are_two_recordings():
    sound = np.random.default_rng(2).random(60).tolist()
    one, other = judge.Spoken("a.wav", sound, sound, [], []), judge.Spoken("a.wav", sound, sound[::-1], [], [])
    made = judge.lip_scores([], [one, other])
    assert made.cases["lip_r_real"] == 2 == len(made.detail["lips_real"]) and made.values["lip_r_real"] < 0.9


def test_short_recordings_have_no_say_about_seams():
    four, five = ([0.01] * (14 * clips - 1) for clips in (4, 5))
    short = judge.Spoken("short", [], None, four, [13, 27, 41])
    whole = judge.Spoken("whole", [], None, five, [13, 27, 41, 55])
    assert judge.seam_scores([short]).values["seam_ratio"] is None
    made = judge.seam_scores([short, whole])
    assert made.values["seam_ratio"] == 1 and made.cases["seam_ratio"] == 4


def test_changes_at_seams_are_held_against_those_within_clips_over_all_recordings():
    def speaking(clips: int, change: float) -> judge.Spoken:
        seams = list(range(13, 14 * clips - 1, 14))
        changes = [2 * change if i in seams else change for i in range(14 * clips - 1)]
        return judge.Spoken(str(clips), [], None, changes, seams)

    made = judge.seam_scores([speaking(5, 0.01), speaking(6, 0.01)])
    assert made.values["seam_ratio"] == pytest.approx(2.0) and made.cases["seam_ratio"] == 4 + 5


def test_identity_ratio_is_the_mean_of_both_errors_over_the_autoencoders(reader_file):
    readers = load_readers(reader_file)
    truth, identity = 0.2 + 0.4 * torch.rand(3, 3, 64, 64), torch.rand(3, NUM_IDENTITY)
    values = judge.identity_scores(readers, identity, truth, truth + 0.12, truth - 0.04).values
    assert values["colour_error"] == pytest.approx(0.12) and values["colour_error_vae"] == pytest.approx(0.04)
    judged = [i for i in range(NUM_IDENTITY) if 0.9 - 0.02 * i >= 0.5]
    who = (readers.who(truth + 0.12) - identity)[:, judged].square().mean().sqrt()
    assert values["identity_error"] == pytest.approx(float(who), abs=1e-4)
    ratios = [values[name] / values[f"{name}_vae"] for name in ("identity_error", "colour_error")]
    assert values["identity_ratio"] == pytest.approx(sum(ratios) / 2, rel=1e-3)


def test_the_autoencoders_own_pictures_have_an_identity_ratio_of_one(reader_file):
    readers = load_readers(reader_file)
    truth, other = torch.rand(3, 3, 64, 64), torch.rand(3, 3, 64, 64)
    same = judge.identity_scores(readers, torch.rand(3, NUM_IDENTITY), truth, other, other)
    assert same.values["identity_ratio"] == 1
    assert same.detail["identity_numbers"] == [n for i, n in enumerate(IDENTITY) if 0.9 - 0.02 * i >= 0.5]


# ---- the whole of it, with toy networks


def test_an_evaluation_is_flat_numbers_with_true_counts(made):
    result, seen = made[0].result, made[1]
    assert json.loads(json.dumps(result)) == result
    assert set(SCORES) <= result.keys() and set(result["cases"]) == set(SCORES)
    nested = {key for key, value in result.items() if isinstance(value, (dict, list))}
    assert nested == {"cases", "notes"}
    assert [name for name in SCORES if result[name] is None] == ["lip_r_real"]
    assert seen == [(i + 1, CLIPS) for i in range(CLIPS)]
    counts = {name: result["cases"][name] for name in ("vae_psnr", "au_response_mean", "side_accuracy", "seam_ratio")}
    assert counts == {"vae_psnr": 11, "au_response_mean": 5, "side_accuracy": 2, "seam_ratio": 4}
    assert (result["cases"]["emotion_accuracy"], result["cases"]["intensity_monotone"]) == (5, 2)
    assert (result["cases"]["lip_r_unseen"], result["cases"]["lip_r_real"]) == (1, 0)
    assert result["au_reader_error"] == 0.5 and result["cases"]["au_reader_error"] == 6


def test_real_recordings_are_judged_besides_and_cut(made, bundle, reader_file, tmp_path):
    sound, rate = soundfile.read(SPEECH)
    soundfile.write(tmp_path / "real.wav", np.concatenate([sound, sound]), rate)
    sizes = replace(TOY, units=(), emotions=(), voices=(), seconds=1.12)
    options = EvaluateOptions(bundle, (tmp_path / "real.wav",), device="cpu", dtype="fp32")
    setup = prepare(options, sizes, reader_file)
    assert setup.notes[0] == "real.wav lasts 6.0 s; its first 1.12 s are judged" and setup.clips == 3  # one at rest
    result = evaluate(setup).result
    assert result["cases"]["lip_r_real"] == 1 and result["seam_ratio"] is None and result["lip_r_unseen"] is None


def test_a_recording_that_moves_no_mouth_is_named_and_not_judged(bundle, reader_file, tmp_path):
    soundfile.write(tmp_path / "quiet.wav", np.zeros(16_000), 16_000)
    options = EvaluateOptions(bundle, (tmp_path / "quiet.wav", SPEECH), device="cpu", dtype="fp32")
    notes = prepare(options, TOY, reader_file).notes
    assert "quiet.wav is silent; the mouth will stay shut" in notes  # what generate says
    assert "quiet.wav moves no mouth: lip_r_real does not count it" in notes
    assert not any("speech.wav moves" in note for note in notes)


def test_a_studio_draws_what_generate_draws(small_bundle, tmp_path):
    from tbd_core.config import GenerateOptions
    from tbd_core.pipeline import draw as draw_clips
    from tbd_core.pipeline import plan

    Image.new("RGB", (64, 64), "tan").save(tmp_path / "portrait.png")
    soundfile.write(tmp_path / "speech.wav", 0.1 * np.sin(np.arange(12_800)), 16_000)
    options = GenerateOptions(
        tmp_path / "portrait.png", tmp_path / "speech.wav", tmp_path / "out.mp4", "happy", "Mild",
        model=small_bundle, seed=3, device="cpu", dtype="fp32",
    )  # fmt: skip
    job_plan = plan(options)

    class NoParts:
        load = staticmethod(lambda index: None)
        save = staticmethod(lambda *part: None)

    wanted = np.concatenate(list(draw_clips(job_plan, NoParts(), None)))[:20]
    studio = draw.Studio.open(small_bundle, "cpu", "fp32")
    sitter = studio.seat((job_plan.portrait.pixels[0] + 1) / 2)
    case = make_case("speech", 0, "happy", "Mild")
    drawn = torch.cat(list(studio.talk(sitter, case, job_plan.speech.waveform, 20, 3)))
    assert np.array_equal(drawn.permute(0, 2, 3, 1).numpy(), wanted)


def test_without_readers_only_what_needs_none_is_said(bundle, tmp_path):
    options = EvaluateOptions(bundle, device="cpu", dtype="fp32")
    setup = prepare(options, replace(TOY, voices=()), tmp_path / "none.safetensors")
    assert setup.clips == 0 and "none.safetensors does not exist" in setup.notes[0]
    result = evaluate(setup).result
    assert {name for name in SCORES if result[name] is not None} == {"vae_psnr"}


def test_without_readers_one_voice_is_still_judged_by_its_seams(bundle, tmp_path):
    options = EvaluateOptions(bundle, (SPEECH,), device="cpu", dtype="fp32")
    setup = prepare(options, replace(TOY, voices=(SPEECH, SPEECH)), tmp_path / "none.safetensors")
    assert not any("are judged" in note for note in setup.notes)  # nor is the end of a recording that is not judged cut
    assert setup.clips == 5 and "seam_ratio, for which 5 clips of one voice are drawn" in " ".join(setup.notes)
    result = evaluate(setup).result
    assert {name for name in SCORES if result[name] is not None} == {"vae_psnr", "seam_ratio"}


def test_a_foreign_bundle_is_told_apart_by_its_header(small_config, reader_file):
    from tbd_core.evaluation.evaluate import choose_readers

    readers, why = choose_readers({"name": "other"}, small_config, reader_file, reader_file)
    assert readers is None and "(preset small, 64 pixels) was not trained by `tbd train`" in why


def test_the_readers_trained_with_a_bundle_come_before_those_that_ship(small_config, reader_file, tmp_path, fill):
    from tbd_core.evaluation.evaluate import choose_readers

    shipped = load_readers(reader_file)
    save_readers(tmp_path / "reader.safetensors", replace(shipped, about={**shipped.about, "mine": True}))
    for model, mine in ((tmp_path / "bundle.safetensors", True), (tmp_path / "far" / "bundle.safetensors", None)):
        readers, _ = choose_readers({"training": {}}, small_config, model, reader_file)
        assert readers.about.get("mine") is mine


def test_a_damaged_or_outdated_reader_file_is_named(reader_file, tmp_path, monkeypatch):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(reader_file.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"damaged\.safetensors \(1000 bytes\) is no file of face readers"):
        load_readers(damaged)
    monkeypatch.setattr("tbd_core.evaluation.readers.AU_NUMBERS", (1, 2))
    with pytest.raises(InputError, match=r"trained on other drawings \(units differ\)"):
        load_readers(reader_file)


# ---- the proof


def test_the_proof_says_what_was_measured(made, tmp_path, monkeypatch):
    Image.new("RGB", (96, 96), "tan").save(tmp_path / "somebody.png")
    evaluation, seen = made
    asked = []
    monkeypatch.setattr("tbd_core.evaluation.proof.evaluate", lambda *given: asked.append(given) or evaluation)
    before, ways = len(seen), len(comparisons.ways("hard"))
    account = evaluation.setup.options.model.with_name("TINY.md")
    account.write_text("# Of its training\n\n## Scores\nNot measured yet.\n")
    options = ProofOptions(tmp_path / "docs", "tbd evaluate --proof docs", (tmp_path / "somebody.png",))
    result = prove(evaluation.setup, options)
    extra = 2 * ways + 3  # emotions in other ways, three faces of the portrait
    assert ways == 5 and asked == [(evaluation.setup, None, extra)] and len(seen) - before == extra
    details = json.loads((tmp_path / "docs" / "proof.json").read_text())
    assert details["comparisons"]["thinking"]["label only"]["cases"] == 2
    text = (tmp_path / "docs" / "proof.md").read_text()
    assert text.count("| *true renders* | ") == len(comparisons.TABLES)  # the readers' own error beside every other
    given = [write_text(details, [], f"tbd evaluate{files}") for files in (" --speech a.wav", " --portraits b.png", "")]
    assert ["give your own" in words for words in given] == [True, True, False]
    assert f"| {result['vae_psnr']:.1f} | **missed** | 11 |" in text and "not measured" in text
    for name in ("units.jpg", "emotions.jpg", "lips.png", "seam.jpg", "blends.jpg", "portraits.jpg"):
        assert f"proof/{name}" in text and Image.open(tmp_path / "docs" / "proof" / name).width > 100
    assert result["proof"] == str(tmp_path / "docs" / "proof.md")
    # The bundle's account of itself tells the same scores.
    words = account.read_text()
    assert words.startswith("# Of its training\n\n## Scores\nMeasured by `tbd evaluate --proof docs`:")
    assert f"| {result['vae_psnr']:.1f} | **missed** | 11 |" in words and account.with_name("emotions.jpg").is_file()
    account.unlink()


def test_true_renders_are_read_through_the_autoencoder_and_not_from_what_was_drawn(made):
    evaluation = made[0]
    truth = comparisons.truth(evaluation)
    assert truth == comparisons.truth(replace(evaluation, drawn=torch.zeros_like(evaluation.drawn), read=None))
    rows = comparisons.compared(evaluation.cases)
    errors = []
    for i in rows:
        picture = evaluation.studio.round_trip(evaluation.truth[i].float() / 255).float() / 255
        portrait = evaluation.portraits[[evaluation.cases[i].person]]
        units = evaluation.setup.readers.read(picture.unsqueeze(0), portrait).units[0]
        errors.append(judge.unit_error(evaluation.cases[i], units))
    assert truth["cases"] == len(rows) == 2 and truth["au_error"] == pytest.approx(sum(errors) / len(errors), rel=1e-4)


def test_what_cannot_be_proved_is_refused_before_anything_is_drawn(small_bundle, reader_file, tmp_path):
    options = EvaluateOptions(small_bundle, device="cpu")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be proved: no readers: .*none\.safetensors does not exist"):
        prove(prepare(options, TOY, tmp_path / "none.safetensors"), ProofOptions(tmp_path / "docs", ""))
    with pytest.raises(InputError, match="cannot be written"):
        prove(prepare(options, TOY, reader_file), ProofOptions(tmp_path / "file" / "docs", ""))
    with pytest.raises(InputError, match=r"none\.png does not exist"):
        prove(prepare(options, TOY, reader_file), ProofOptions(tmp_path / "docs", "", (tmp_path / "none.png",)))
    assert not (tmp_path / "docs").exists()


def test_a_difference_is_only_claimed_when_its_interval_excludes_zero():
    row = {"au_error_difference": 0.2, "au_error_difference_interval": (0.1, 0.3)}
    assert verdict("label", "CoT-FA", row).startswith("label errs more than CoT-FA")
    row = {"au_error_difference": -0.2, "au_error_difference_interval": (-0.3, -0.1)}
    assert verdict("label", "CoT-FA", row).startswith("label errs less than CoT-FA")
    row = {"au_error_difference": 0.2, "au_error_difference_interval": (-0.1, 0.3)}
    assert "cannot be told apart" in verdict("label", "CoT-FA", row)


def test_goals_are_met_on_their_own_side():
    assert Goal("x", "", least=0.5).met(0.5) and not Goal("x", "", least=0.5).met(0.49)
    assert Goal("x", "", most=1, magnitude=True).met(-1) and not Goal("x", "", most=1, magnitude=True).met(-2)
    assert {goal.score for goal in GOALS} <= set(SCORES)


def test_a_missed_goal_never_looks_met():
    goal = Goal("x", "", least=0.85)
    assert goal.shown(0.8479) == "0.848" and goal.shown(0.8551) == "0.86" and goal.shown(0.7) == "0.70"
    assert Goal("x", "", most=1, form=".0f", magnitude=True).shown(-1.0) == "-1" and percent(None) == "(not measured)"


def test_the_command_is_quoted_without_folders():
    from tbd_core.cli import parser

    words = [
        "evaluate",
        "--proof",
        "some/docs",
        "--speech",
        "/a/b.wav",
        "--speech",
        "c.wav",
        "d.wav",
        "--seed",
        "3",
        "--portraits",
        "/x/y.png",
    ]
    assert retold(parser().parse_args(words)) == (
        "tbd evaluate --proof docs --speech b.wav c.wav d.wav --portraits y.png --seed 3"
    )


def test_pictures_hold_all_cells_and_all_lines():
    face = torch.zeros(3, 32, 32, dtype=torch.uint8)
    sheet = grid([[face, face]] * 3, ["a", "b", "c"], ["x", "y"], 40, blocks=2)
    assert sheet.height == 18 + 2 * 40 and sheet.width >= 2 * 80
    assert curves([("a", [0, 1], [1, 0]), ("b", [0, 1], [1, 0])]).height == 260


# ---- the command


def refused(capsys, *words) -> str:
    code = main(["evaluate", *map(str, words)])
    out, err = capsys.readouterr()
    assert code == 2 and out == "" and err.count("\n") == 1
    return err


def test_wrong_words_are_refused_before_anything_is_drawn(capsys, small_bundle, tmp_path):
    soundfile.write(tmp_path / "short.wav", np.zeros(320), 16_000)
    assert "none.safetensors does not exist" in refused(capsys, tmp_path / "none.safetensors")
    assert "0.02 s of audio; at least 0.2 s" in refused(capsys, small_bundle, "--speech", tmp_path / "short.wav")
    assert "--cases is 0; give a number of people from 1 to 100" in refused(capsys, small_bundle, "--cases", 0)
    assert "1 --portraits were given without --proof" in refused(capsys, small_bundle, "--portraits", "a.png")
    assert "'tpu'" in refused(capsys, small_bundle, "--device", "tpu")


def test_the_command_prints_one_object_that_the_same_seed_gives_again(capsys, monkeypatch, bundle, reader_file):
    def toy(options):
        return prepare(options, replace(TOY, units=(12,), emotions=(), voices=()), reader_file)

    setup = toy(EvaluateOptions(bundle, device="cpu", dtype="fp32"))
    once = evaluate(setup).result
    monkeypatch.setattr("tbd_core.evaluation.evaluate.prepare", toy)
    assert main(["evaluate", str(bundle), "--json", "--device", "cpu", "--dtype", "fp32"]) == 0
    out, err = capsys.readouterr()
    assert {**json.loads(out), "wall_seconds": 0} == {**once, "wall_seconds": 0}
    assert once["cases"]["au_response_mean"] == setup.clips > 1
    assert out.count("\n") == 1 and f"{setup.clips}/{setup.clips}" in err


def test_people_see_a_table(made):
    text = show(made[0].result)
    assert "au_response_mean" in text and "(11 cases)" in text and "note: lip_r_real is null" in text


def test_an_interrupted_evaluation_says_that_nothing_is_kept(capsys, monkeypatch, small_bundle):
    def interrupted(_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("tbd_core.evaluation.evaluate.prepare", interrupted)
    assert main(["evaluate", str(small_bundle)]) == 130
    assert capsys.readouterr().err == "tbd: interrupted; nothing was written, the same command begins anew\n"
