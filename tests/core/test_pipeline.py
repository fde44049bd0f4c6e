"""The whole job on a small bundle: what comes out, what a broken run leaves, what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from tbd_core import denoise, pipeline
from tbd_core.checkpoint import store
from tbd_core.config import GenerateOptions
from tbd_core.errors import InputError
from tbd_core.pipeline import generate, plan
from tbd_core.video import probe, read_metadata


pytestmark = pytest.mark.usefixtures("loaded_once")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (96, 96, 3), dtype=np.uint8)).save(folder / "portrait.png")
    soundfile.write(folder / "speech.wav", 0.3 * np.sin(np.arange(19_000) / 20), 16_000)  # 1.1875 s: 30 frames
    return folder


@pytest.fixture
def options(inputs, small_bundle, tmp_path) -> GenerateOptions:
    return GenerateOptions(
        portrait=inputs / "portrait.png", speech=inputs / "speech.wav", output=tmp_path / "out" / "talking.mp4",
        emotion="happy", model=small_bundle, dtype="fp32", device="cpu",
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(inputs, small_bundle, loaded_once, tmp_path_factory):
    """One finished run and its steps."""
    output = tmp_path_factory.mktemp("done") / "talking.mp4"
    steps = []
    result = generate(
        GenerateOptions(inputs / "portrait.png", inputs / "speech.wav", output, "happy", "mild", model=small_bundle,
                        dtype="fp32", device="cpu", seed=7),
        steps.append,
    )  # fmt: skip
    return result, steps


def left(options: GenerateOptions) -> list[str]:
    folder = options.output.parent
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_video_has_the_frames_and_seconds_of_the_speech(done):
    result, steps = done
    video = probe(result.output)
    assert (result.frames, result.fps, result.seconds) == (30, 25, 1.2)
    assert (video["frames"], video["width"], video["height"], video["has_audio"]) == (30, 64, 64, True)
    assert abs(video["audio_seconds"] - 1.2) < 0.04
    assert len(steps) == 3 * 2  # clips of 14 frames, two steps each


def test_metadata_says_how_it_was_made_and_that_it_is_synthetic(done):
    result, _ = done
    said = read_metadata(result.output)
    assert said["synthetic"] is True and said["seed"] == 7 and said["model"] == "small"
    assert said["prompts"]["coarse"] == "A person is speaking with a happy emotion."
    assert said["prompts"]["stages"] == [said["prompts"]["coarse"], said["prompts"]["fine"]]


def test_a_portrait_unlike_the_training_is_said_with_its_name(options, small_bundle, small_config, tmp_path):
    model = tmp_path / "model.safetensors"
    networks, _ = store.load(small_bundle, torch.device("cpu"), torch.float32)
    about = {"name": "picky", "training": {"vae_psnr_least_db": 88.0, "portrait_distance_most": 1.0}}
    known = {"portraits.mean": torch.zeros(64), "portraits.precision": torch.zeros(64, 64)}
    store.save(model, networks, small_config, about, torch.float16, known)
    said = []
    job = plan(replace(options, model=model))
    next(pipeline.draw(job, pipeline.PartStore(model.with_suffix(".mp4"), {}), None, said.append))
    assert len(said) == 1 and "portrait.png looks unlike the drawn faces that picky was trained on" in said[0]


def test_a_square_is_cut_from_other_portraits_and_said(options, tmp_path):
    Image.new("RGB", (90, 120), "gray").save(tmp_path / "tall.png")
    warnings = plan(replace(options, portrait=tmp_path / "tall.png")).warnings
    assert any("90" in text and "120" in text for text in warnings)


def test_any_size_can_be_asked_for(options, tmp_path):
    soundfile.write(tmp_path / "short.wav", 0.3 * np.sin(np.arange(6_400) / 20), 16_000)
    result = generate(replace(options, size=(96, 64), speech=tmp_path / "short.wav"))
    assert (result.width, result.height) == (96, 64)
    assert left(options) == ["talking.mp4"]


class StopError(Exception):
    pass


def test_a_broken_run_goes_on_where_it_was_and_ends_the_same(options, done, monkeypatch):
    options = replace(options, seed=7, intensity="mild")

    def stop(report):
        if report.clip == 2:
            raise StopError

    with pytest.raises(StopError):
        generate(options, stop)
    assert not options.output.exists()
    assert len(left(options)) == 1  # the part store, nothing else

    steps = []
    result = generate(options, steps.append)
    assert {step.clip for step in steps} == {2}
    assert left(options) == ["talking.mp4"]
    whole, _ = done
    assert same_pictures(result.output, whole.output)


def same_pictures(one: str, other: str) -> bool:
    from tbd_core.video import _frames

    shape = (64, 64, set(range(30)))
    return all(np.array_equal(a, b) for a, b in zip(_frames(one, *shape), _frames(other, *shape), strict=True))


def test_another_seed_does_not_take_the_parts_of_this_one(options):
    options = replace(options, guidance=1.0)  # one pass a step

    def stop(report):
        if report.clip == 1:
            raise StopError

    with pytest.raises(StopError):
        generate(options, stop)
    steps = []
    generate(replace(options, seed=1), steps.append)
    assert {step.clip for step in steps} == {0, 1, 2}


def test_a_full_disk_leaves_no_video_and_keeps_what_was_drawn(options, monkeypatch):
    from tbd_core import parts

    options = replace(options, guidance=1.0)  # one pass a step
    saved = []
    save = parts.np.savez_compressed

    def full(*args, **kwargs):
        if len(saved) == 2:
            raise OSError(28, "No space left on device")
        saved.append(args)
        return save(*args, **kwargs)

    monkeypatch.setattr(parts.np, "savez_compressed", full)
    with pytest.raises(InputError, match="No space left on device.*free some space"):
        generate(options)
    monkeypatch.undo()
    steps = []
    generate(options, steps.append)
    assert {step.clip for step in steps} == {2}


def test_memory_holds_one_clip_however_long_the_speech(options, monkeypatch, tmp_path):
    """Frames are given out clip by clip; the generator never holds two."""
    drawn = []
    monkeypatch.setattr(denoise, "draw_clip", lambda job, *rest: drawn.append(1) or torch.zeros(14, 4, 8, 8))
    soundfile.write(tmp_path / "long.wav", np.zeros(16_000 * 6), 16_000)
    job = plan(replace(options, speech=tmp_path / "long.wav"))
    clips = pipeline.draw(job, pipeline.PartStore(options.output, {}), None)
    next(clips)
    assert len(drawn) == 1 and job.num_clips == 11


def test_own_prompts_replace_the_thinkers_stage_by_stage(options):
    made = plan(replace(options, prompts=("a person", "smiling", "broadly"), steps=3))
    assert made.stages == ("a person", "smiling", "broadly") and made.schedule.stages == 3
    made = plan(replace(options, fine="a wide smile"))
    assert made.stages[1] == "a wide smile" and made.stages[0].startswith("A person")
    assert any("AU12" in text for text in made.warnings)  # planned, but the words do not say it
    assert plan(replace(options, negative="")).negative == ""


def test_a_negative_prompt_that_no_pass_hears_is_said(options):
    def said(**more) -> bool:
        return any("guidance is 1" in text for text in plan(replace(options, negative="a frown", **more)).warnings)

    assert said(guidance=1.0)
    assert not said(guidance=1.5) and not said(guidance=1.0, text_scale=2.0)
    assert not any("guidance is 1" in text for text in plan(replace(options, guidance=1.0)).warnings)


def test_own_words_over_budget_are_quoted(options):
    warnings = plan(replace(options, fine="very " * 90 + "happy")).warnings
    assert any("93 tokens" in text and "happy" in text for text in warnings)


def test_silence_is_spoken_with_a_warning(options, tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(8_000), 16_000)
    result = generate(replace(options, speech=tmp_path / "silence.wav"))
    assert result.frames == 13 and any("silent" in text for text in result.warnings)


REFUSED = [
    (dict(emotion="hapy"), r"'hapy'.*did you mean happy"),
    (dict(intensity="huge"), r"'huge'.*Mild, Moderate, Intense"),
    (dict(steps=0), r"steps is 0; at least 1 is needed"),
    (dict(steps=1), r"2 stages do not fit into 1 steps"),
    (dict(split=(1.0,)), r"split 1 contains 1; each boundary lies between 0 and 1"),
    (dict(split=(0.0,)), r"split 0 contains 0; each boundary lies between 0 and 1"),
    (dict(split=(0.6, 0.3), prompts=("a", "b", "c"), steps=4), r"0\.6.*0\.3"),
    (dict(split=(0.2, 0.4)), r"split 0\.2,\s?0\.4 has 2 boundaries"),
    (dict(blend="soft"), r"'soft'.*hard"),
    (dict(coarse="  "), r"coarse prompt is blank"),
    (dict(fine=""), r"fine prompt is blank"),
    (dict(prompts=("a", " ")), r"stage 2 prompt is blank"),
    (dict(prompts=("a", "b"), coarse="c"), r"2 --prompt and also"),
    (dict(guidance=float("nan")), r"--guidance is nan; give a number from 0 to 30"),
    (dict(guidance=-1.0), r"--guidance is -1"),
    (dict(text_scale=99.0), r"--text-scale is 99"),
    (dict(audio_scale=-0.5), r"--audio-scale is -0.5"),
    (dict(seed=-1), r"--seed is -1"),
    (dict(device="tpu"), r"unknown device 'tpu'.*cuda"),
    (dict(dtype="int8"), r"'int8'.*bf16"),
    (dict(size=(100, 64)), r"100.*multiple"),
    (dict(steps=1001), r"steps is 1001; at most 1000"),
    (dict(device="cpu:3"), r"'cpu:3'"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[next(iter(change)) for change, _ in REFUSED])
def test_what_cannot_be_used_is_refused_before_a_network_is_loaded(options, change, message, monkeypatch):
    monkeypatch.setattr(pipeline.store, "load", lambda *_: pytest.fail("a network was loaded"))
    with pytest.raises(InputError, match=message) as caught:
        generate(replace(options, **change))
    assert "\n" not in str(caught.value) and left(options) == []


def test_output_that_is_an_input_is_refused(options, inputs):
    for what in ("portrait", "speech"):
        target = inputs / f"{what}.mp4"
        target.write_bytes(getattr(options, what).read_bytes())
        with pytest.raises(InputError, match=f"is also the {what}"):
            plan(replace(options, output=target, **{what: target}))


def test_a_device_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match="'cuda:1' is not available here; this machine has cpu"):
        pipeline.pick_device("cuda:1")
    assert pipeline.pick_device("auto").type == "cpu"


def test_result_is_plain_data(done, result_keys):
    from dataclasses import asdict

    result, _ = done
    values = json.loads(json.dumps(asdict(result)))
    assert list(values) == result_keys
    assert values["peak_mb"] > 50 and values["wall_seconds"] > 0
