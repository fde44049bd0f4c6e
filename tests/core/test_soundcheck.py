"""Music and noise are said, voices are not; every sound is made here but the sample voice."""

import shutil
import subprocess

import numpy as np
import pytest
import soundfile

from tbd_core.host import SAMPLE
from tbd_core.soundcheck import EVEN, STEADY, evenness, steadiness, unlike_voice
from tbd_core.speech import check_speech, load_speech


RATE, SECONDS = 16_000, 6
TIME = np.arange(SECONDS * RATE) / RATE
CHORDS = ((261.6, 329.6, 392.0), (220.0, 261.6, 329.6), (174.6, 220.0, 261.6), (196.0, 246.9, 293.7))
WORDS = {
    "en": "The quick brown fox jumps over the lazy dog while seven wise owls look on, and nobody knows why.",
    "en+f2": "Nobody knew why the river was so quiet that evening, and we waited for a long time.",
    "en+whisper": "The quick brown fox jumps over the lazy dog while seven wise owls look on.",
    "fr+m2": "Le vif renard brun saute par-dessus le chien paresseux. Personne ne savait pourquoi.",
    "cmn": "今天天气很好我们一起去公园散步吧没有人知道为什么那天晚上河流那么安静",
}


def noise(slope: float) -> np.ndarray:
    """Power falls with frequency to the power of `slope`: 0 white, 1 pink, 2 brown."""
    drawn = np.fft.rfft(np.random.default_rng(0).standard_normal(len(TIME)))
    drawn[1:] *= np.arange(1, len(drawn)) ** (-slope / 2)
    made = np.fft.irfft(drawn, len(TIME))
    return 0.1 * made / made.std()


def chords(each: float = 1.0, decay: float = 0.0, vibrato: float = 0.0) -> np.ndarray:
    """A progression, six partials a note."""
    time = np.arange(round(each * RATE)) / RATE
    bent = time + vibrato * np.sin(2 * np.pi * 5 * time) / (2 * np.pi * 5)
    made = [
        sum(np.sin(2 * np.pi * k * note * bent) / k for note in chord for k in range(1, 7)) * np.exp(-decay * time)
        for chord in CHORDS
    ]
    return 0.08 * np.resize(np.concatenate(made), len(TIME))


def drums(bpm: int = 120) -> np.ndarray:
    """Kick, snare and hi-hat."""
    made, beat = np.zeros(len(TIME)), round(RATE * 30 / bpm)
    time, draw = np.arange(beat) / RATE, np.random.default_rng(1)
    for i, start in enumerate(range(0, len(TIME) - beat, beat)):
        hit = 0.08 * draw.standard_normal(beat) * np.exp(-60 * time)
        if i % 4 == 0:
            hit += 0.6 * np.sin(2 * np.pi * (60 + 60 * np.exp(-30 * time)) * time) * np.exp(-12 * time)
        if i % 4 == 2:
            hit += 0.3 * draw.standard_normal(beat) * np.exp(-20 * time)
        made[start : start + beat] += hit
    return made


MUSIC = {
    "chords": chords(),
    "short chords": chords(each=0.5),
    "plucked chords": chords(decay=2.0),
    "trembling chords": chords(vibrato=0.006),
    "chords and drums": chords() + drums(),
    "plucked chords and drums": chords(0.5, 3.0) + drums(140),
    "chords under drums": 0.4 * chords() + drums(),
    "a tone": 0.3 * np.sin(2 * np.pi * 440 * TIME),
}


@pytest.mark.parametrize("name", MUSIC)
@pytest.mark.parametrize("gain", [1.0, 0.01])
def test_music_is_said_however_loud(name, gain):
    found = unlike_voice((gain * MUSIC[name]).astype(np.float32))
    assert found and found.startswith("sounds like music or a tone (its notes stay ")
    assert found.endswith("a voice at most 45%), and the mouth would follow it; give the voice alone")


@pytest.mark.parametrize("slope", [0, 1, 2])
@pytest.mark.parametrize("gain", [1.0, 0.01])
def test_noise_of_any_colour_is_said(slope, gain):
    found = unlike_voice((gain * noise(slope)).astype(np.float32))
    assert found and found.startswith("sounds like steady noise (5") and "give the voice alone, or a recording" in found


def test_a_voice_is_not_and_far_from_the_thresholds():
    sound = check_speech(SAMPLE / "speech.wav").waveform
    assert unlike_voice(sound) is None
    assert steadiness(sound) < STEADY / 2 and evenness(sound)[0] < EVEN / 2


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
@pytest.mark.parametrize("voice", WORDS)
def test_synthetic_voices_are_not(voice, tmp_path):
    for speed, pitch in ((160, 50), (220, 80)):
        file = tmp_path / f"{speed}.wav"
        subprocess.run(
            ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "-w", file, WORDS[voice]], check=True
        )
        assert load_speech(file).warnings == ()


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_a_machine_that_keeps_one_pitch_is_still_a_voice(tmp_path):
    text = f'<speak><prosody range="0%">{WORDS["en"]}</prosody></speak>'
    subprocess.run(["espeak-ng", "-m", "-w", tmp_path / "flat.wav", text], check=True)
    sound = check_speech(tmp_path / "flat.wav").waveform
    assert unlike_voice(sound) is None and steadiness(sound) > 0.4


def test_music_with_rests_is_still_music():
    resting = MUSIC["chords"] * (TIME % 1 < 0.7)
    assert unlike_voice(resting.astype(np.float32))


def test_a_voice_in_quieter_noise_or_music_is_still_a_voice():
    voice = np.tile(check_speech(SAMPLE / "speech.wav").waveform, 2)
    for other in (noise(0), chords()):
        other = other[: len(voice)]
        mixed = voice + other / other.std() * voice.std() * 10 ** (-15 / 20)
        assert unlike_voice(mixed.astype(np.float32)) is None


def test_too_little_to_judge_is_not_judged():
    assert unlike_voice(MUSIC["chords"][: 3 * RATE - 1].astype(np.float32)) is None
    assert unlike_voice(np.zeros(9 * RATE, np.float32)) is None


def test_of_a_long_recording_two_minutes_are_looked_at(monkeypatch):
    from tbd_core import soundcheck

    seen = []
    monkeypatch.setattr(soundcheck, "steadiness", lambda sound: seen.append(len(sound)) or 0.0)
    voice = np.resize(check_speech(SAMPLE / "speech.wav").waveform, 300 * RATE)
    assert unlike_voice(voice) is None and seen == [120 * RATE]


def test_the_speech_carries_the_warning_with_its_name(tmp_path):
    soundfile.write(tmp_path / "song.wav", MUSIC["chords and drums"] / 2, RATE)
    (warning,) = load_speech(tmp_path / "song.wav").warnings
    assert warning.startswith("song.wav sounds like music")
