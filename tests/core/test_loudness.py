"""Loud and quiet parts made alike, pauses silenced, and nothing touched that was not asked for."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from tbd_core import pipeline
from tbd_core.cli import main
from tbd_core.config import GenerateOptions
from tbd_core.errors import InputError
from tbd_core.flow import Speech
from tbd_core.host import SAMPLE
from tbd_core.loudness import gate, level, speech_level, treat
from tbd_core.speech import load_speech


RATE = 16_000


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    """The sample voice four times: 12 s."""
    return np.tile(load_speech(SAMPLE / "speech.wav").waveform.numpy(), 4)


def hiss(seconds: float, decibel: float) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(round(seconds * RATE))
    return (noise * 10 ** (decibel / 20)).astype(np.float32)


def spoken(wave: np.ndarray) -> Speech:
    return Speech(torch.from_numpy(wave), len(wave) * 25 // RATE, len(wave) / RATE, "a.wav")


def decibel(wave: np.ndarray) -> float:
    return 20 * np.log10(np.sqrt(np.mean(np.square(wave, dtype=np.float64))) + 1e-12)


def test_the_level_is_that_of_a_tone_and_pauses_do_not_lower_it():
    tone = (0.1 * np.sqrt(2) * np.sin(2 * np.pi * 440 * np.arange(4 * RATE) / RATE)).astype(np.float32)
    assert speech_level(tone) == pytest.approx(-20, abs=0.01)
    paused = np.concatenate([tone, np.zeros(8 * RATE, np.float32), hiss(4, -45)])
    assert speech_level(paused) == pytest.approx(-20, abs=0.3)
    assert speech_level(hiss(2, -60)) is None and speech_level(np.zeros(99, np.float32)) is None


@pytest.mark.parametrize("quieter", [6, 12])
def test_a_quiet_half_becomes_as_loud_as_the_other(voice, quieter):
    wave = np.concatenate([voice, voice * np.float32(10 ** (-quieter / 20))])
    made = level(wave)
    halves = [decibel(part) for part in (made[: len(voice) - 2 * RATE], made[len(voice) + 2 * RATE :])]
    assert abs(halves[0] - halves[1]) < 1.5 < quieter - 3
    assert made.dtype == np.float32 and np.abs(made).max() <= 1.0


def test_even_speech_keeps_its_shape(voice):
    made = level(voice)
    assert np.corrcoef(made, voice)[0, 1] > 0.97


def test_hiss_in_a_long_pause_is_not_raised_to_a_voice(voice):
    wave = np.concatenate([voice, hiss(8, -60), voice])
    pause = slice(len(voice) + 2 * RATE, len(voice) + 6 * RATE)
    made = level(wave)
    raised = decibel(made[pause]) - decibel(wave[pause])
    assert abs(raised) < 6


@pytest.mark.parametrize("seconds", [0.2, 0.35, 1.0, 3.3])
def test_short_speech_keeps_its_length(voice, seconds):
    wave = voice[RATE // 2 : RATE // 2 + round(seconds * RATE)]
    assert level(wave).shape == gate(wave, 35)[0].shape == wave.shape
    assert np.isfinite(level(wave)).all()


def test_the_gate_silences_pauses_and_leaves_the_speech(voice):
    wave = np.concatenate([voice, hiss(4, -62), voice])
    made, share = gate(wave, 35)
    pause = slice(len(voice) + RATE, len(voice) + 3 * RATE)
    assert not made[pause].any() and wave[pause].any()
    loud = np.abs(wave) > 10 ** ((speech_level(voice) - 20) / 20)
    assert np.array_equal(made[loud], wave[loud])
    assert 4 / 28 * 0.8 < share < 0.6
    assert gate(voice, 60)[1] <= gate(voice, 20)[1]


def test_the_gate_fades_within_its_thirty_milliseconds():
    tone = (0.1 * np.ones(RATE)).astype(np.float32)
    made = gate(np.concatenate([tone, hiss(1, -70)]), 35)[0]
    end = made[RATE:]
    assert np.all(made[: RATE - 800] == tone[: RATE - 800])
    assert end[round(0.1 * RATE) : round(0.12 * RATE)].any() and not end[round(0.35 * RATE) :].any()
    gain = made / np.concatenate([tone, hiss(1, -70)])
    assert np.abs(np.diff(gain)).max() < 0.01  # no click


def test_nothing_is_touched_unless_asked(voice):
    speech = spoken(voice)
    assert treat(speech) is speech


def test_what_lies_above_the_gate_is_warned_of():
    loud = np.concatenate([hiss(0.5, -10), hiss(30, -40)])
    assert treat(spoken(loud), gate_below=10).warnings == (
        "the silence gate of 10 dB silenced 98% of a.wav; give a larger number of dB",
    )
    faint = spoken(hiss(2, -70))
    treated = treat(faint, True, 35)
    assert torch.equal(treated.waveform, faint.waveform)
    assert treated.warnings == ("nothing in a.wav is louder than -55 dB; nothing was levelled or silenced",)


@pytest.mark.parametrize("below", [0, 9, 61, float("nan")])
def test_gates_without_sense_are_refused(voice, below):
    with pytest.raises(
        InputError, match=f"the silence gate is {below:g} dB below the speech; give a number from 10 to 60"
    ):
        treat(spoken(voice), gate_below=below)


def test_the_command_line_refuses_one_before_anything_is_read(tmp_path, capsys):
    given = ["generate", "--portrait", "none.png", "--speech", "none.wav", "--emotion", "sad", "--silence-gate", "5"]
    assert main([*given, "--output", str(tmp_path / "a.mp4")]) == 2
    assert "the silence gate is 5 dB below the speech; give a number from 10 to 60" in capsys.readouterr().err


def test_a_plan_hears_the_treated_speech_and_has_another_key(voice, small_bundle, tmp_path):
    soundfile.write(tmp_path / "s.wav", np.concatenate([voice[:RATE], hiss(1, -62)]), RATE)
    options = GenerateOptions(SAMPLE / "portrait.png", tmp_path / "s.wav", tmp_path / "a.mp4", model=small_bundle)
    plain, gated = (pipeline.plan(replace(options, silence_gate=db, device="cpu")) for db in (None, 35.0))
    assert torch.equal(plain.speech.waveform, load_speech(tmp_path / "s.wav").waveform)
    assert plain.speech.waveform[-RATE // 2 :].any() and not gated.speech.waveform[-RATE // 2 :].any()
    assert pipeline.part_key(plain)["speech"] != pipeline.part_key(gated)["speech"]
