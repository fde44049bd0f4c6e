"""Recordings of every kind that must work, and everything that must be refused, made on the spot."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from tbd_core.errors import InputError
from tbd_core.files import ffmpeg_command
from tbd_core.speech import check_speech, load_speech, normalise, speech_from_samples, window_frames
from tbd_core.units import num_clips, num_frames


def tone(seconds=1.0, rate=16_000, frequency=440.0, channels=1):
    """A sine of amplitude 0.5, [T] or [T, channels]."""
    wave = 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)
    return wave if channels == 1 else np.stack([wave] * channels, axis=1)


def saved(folder, wave, rate=16_000, name="speech.wav", **options):
    soundfile.write(folder / name, wave, rate, **options)
    return folder / name


def refused(path, message):
    with pytest.raises(InputError, match=message) as caught:
        load_speech(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_rate_becomes_the_same_tone_at_16_khz(tmp_path, rate, channels):
    speech = load_speech(saved(tmp_path, tone(2.0, rate, channels=channels), rate))
    assert speech.waveform.dtype == torch.float32
    assert speech.waveform.shape == (32_000,)
    error = speech.waveform.numpy() - tone(2.0)
    assert np.abs(error[400:-400]).max() < 2e-3  # the resampler rings at the ends
    assert (speech.seconds, speech.source, speech.warnings) == (2.0, "speech.wav", ())


@pytest.mark.parametrize(
    ("samples", "rate"), [(44_100, 44_100), (48_000 * 3 + 961, 48_000), (9_999, 22_050), (5_120, 16_000)]
)
def test_frames_are_counted_on_the_file_before_resampling(tmp_path, samples, rate):
    speech = load_speech(saved(tmp_path, np.zeros(samples), rate))
    assert speech.num_frames == num_frames(samples, rate) == int(25 * samples / rate + 0.5)

    assert speech.seconds == samples / rate


@pytest.mark.parametrize(("frames", "clips"), [(1, 1), (14, 1), (15, 2), (75, 6)])
def test_the_last_clip_may_be_short(frames, clips):
    assert num_clips(frames) == clips


def test_streamed_resampling_equals_resampling_at_once(tmp_path):
    import soxr

    wave = np.random.default_rng(0).uniform(-0.3, 0.3, 200_000).astype(np.float32)
    path = saved(tmp_path, wave, 44_100, subtype="FLOAT")
    expected = soxr.resample(wave, 44_100, 16_000, quality="HQ")
    actual = check_speech(path).waveform
    assert np.abs(actual - expected[: len(actual)]).max() < 1e-5


def test_channels_are_averaged(tmp_path):
    wave = np.stack([np.full(16_000, 0.5), np.full(16_000, -0.1)], axis=1)
    assert torch.allclose(load_speech(saved(tmp_path, wave)).waveform, torch.tensor(0.2), atol=1e-4)


@pytest.mark.parametrize("name", ["speech.flac", "speech.ogg", "speech.mp3", "speech.aiff"])
def test_what_libsndfile_reads_works(tmp_path, name):
    speech = load_speech(saved(tmp_path, tone(1.0, 44_100), 44_100, name))
    assert speech.seconds == pytest.approx(1.0, abs=0.06)
    assert speech.waveform[4000:12_000].abs().max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("name", ["speech.m4a", "speech.mp4", "speech.webm"])
def test_what_only_ffmpeg_reads_works(tmp_path, name):
    wav = saved(tmp_path, tone(1.0, 48_000), 48_000)
    subprocess.run(ffmpeg_command("-i", wav, tmp_path / name), check=True)
    speech = load_speech(tmp_path / name)
    assert speech.seconds == pytest.approx(1.0, abs=0.06)
    assert speech.waveform[4000:12_000].abs().max() == pytest.approx(0.5, abs=0.05)


def test_silent_speech_works_and_is_said(tmp_path):
    speech = load_speech(saved(tmp_path, np.zeros(16_000)))
    assert speech.num_frames == 25
    assert not speech.waveform.any()
    assert "silent" in speech.warnings[0]
    assert not normalise(speech.waveform).any()


def test_clipped_recordings_work(tmp_path):
    speech = load_speech(saved(tmp_path, np.clip(5 * tone(), -1, 1)))
    assert speech.waveform.abs().max() <= 1.0
    assert speech.warnings == ()


def test_floating_point_beyond_full_scale_is_clipped_and_said(tmp_path):
    speech = load_speech(saved(tmp_path, 4 * tone(), subtype="FLOAT"))
    assert speech.waveform.abs().max() == 1.0
    assert "peaks at 2.00" in speech.warnings[0]


def test_what_is_no_readable_file_is_refused(tmp_path):
    refused(tmp_path / "none.wav", "none.wav does not exist")
    refused(tmp_path, "is a folder")
    (tmp_path / "empty.wav").touch()
    refused(tmp_path / "empty.wav", r"empty.wav is empty \(0 bytes\)")


@pytest.mark.parametrize("name", ["text.wav", "text.txt", "text.mp3", "text.raw"])
def test_what_is_not_sound_is_refused(tmp_path, name):
    (tmp_path / name).write_text("this is no recording\n" * 99)
    refused(tmp_path / name, f"{name} is (not a sound recording|damaged)")


def test_pictures_are_refused(tmp_path):
    from PIL import Image

    for name in ("face.png", "face.webp"):
        Image.new("RGB", (64, 64)).save(tmp_path / name)
        refused(tmp_path / name, f"{name} is not a sound recording")


@pytest.mark.parametrize("name", ["speech.wav", "speech.aiff"])
def test_a_cut_recording_is_refused_with_its_bytes(tmp_path, name):
    path = saved(tmp_path, tone(2.0), name=name)
    path.write_bytes(path.read_bytes()[:32_044])
    there, declared = (32_000, 64_000) if name.endswith("wav") else (r"3\d{4}", r"640\d\d")
    refused(path, f"{name} is truncated: {there} of the {declared} bytes")


def test_a_wav_cut_in_its_header_is_refused(tmp_path):
    path = saved(tmp_path, tone())
    path.write_bytes(path.read_bytes()[:30])
    refused(path, "speech.wav is truncated: it ends before its sound begins")


def test_a_wav_of_undeclared_length_works(tmp_path):
    path = saved(tmp_path, tone(1.0))
    data = bytearray(path.read_bytes())
    data[40:44] = b"\xff\xff\xff\xff"  # as programs write into a pipe
    path.write_bytes(data)
    assert load_speech(path).num_frames == 25


@pytest.mark.parametrize("name", ["speech.flac", "speech.ogg", "speech.mp3", "speech.webm", "speech.m4a"])
def test_cut_compressed_recordings_are_refused(tmp_path, name):
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 96_000)
    if name.endswith(("webm", "m4a")):
        wav = saved(tmp_path, noise, 48_000)
        subprocess.run(ffmpeg_command("-i", wav, "-movflags", "+faststart", tmp_path / name), check=True)
        path = tmp_path / name
    else:
        path = saved(tmp_path, noise, 48_000, name)
    load_speech(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    refused(path, f"{name} is (truncated|damaged or truncated)")


def test_less_than_a_fifth_of_a_second_is_refused(tmp_path):
    refused(saved(tmp_path, np.zeros(320)), "speech.wav has 0.02 s of audio; at least 0.2 s are needed")
    refused(saved(tmp_path, np.zeros(0)), "has 0.00 s of audio")
    refused(saved(tmp_path, np.zeros(3_199)), "has 0.19 s of audio")
    assert load_speech(saved(tmp_path, np.zeros(3_200))).num_frames == 5


def test_samples_that_are_no_numbers_are_counted_and_refused(tmp_path):
    wave = tone().astype(np.float32)
    wave[[5, 70, 900]] = np.nan
    wave[1000:1004] = np.inf
    refused(saved(tmp_path, wave, subtype="FLOAT"), "speech.wav has 7 samples that are NaN or infinite")


def test_normalised_speech_has_mean_zero_and_variance_one():
    wave = torch.from_numpy(tone()).float() * 0.1 + 0.3
    result = normalise(wave)
    assert result.mean().abs() < 1e-5
    assert result.std() == pytest.approx(1.0, abs=1e-3)


def test_near_silence_stays_far_quieter_than_speech():
    noise = torch.randn(16_000, generator=torch.Generator().manual_seed(0)) * 1e-5  # -100 dB
    assert normalise(noise).std() < 0.01


def test_each_frame_sees_two_neighbours_each_way_and_the_ends_repeat():
    features = torch.arange(6.0).reshape(6, 1, 1).expand(6, 3, 2)
    windows = window_frames(features)
    assert windows.shape == (6, 5, 3, 2)
    assert windows[:, :, 2, 1].tolist() == [
        [0, 0, 0, 1, 2],
        [0, 0, 1, 2, 3],
        [0, 1, 2, 3, 4],
        [1, 2, 3, 4, 5],
        [2, 3, 4, 5, 5],
        [3, 4, 5, 5, 5],
    ]
    assert window_frames(features[:1], window=3).shape == (1, 3, 3, 2)


# Samples that are there already.


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_in_memory_are_heard_as_their_file_is(tmp_path, rate, channels):
    wave = np.random.default_rng(0).uniform(-0.3, 0.3, (rate * 3, channels)).astype(np.float32)
    loaded = load_speech(saved(tmp_path, wave, rate, subtype="FLOAT"))
    heard = speech_from_samples(wave.T, rate, "speech.wav")
    assert torch.equal(loaded.waveform, heard.waveform)
    assert replace(loaded, waveform=None) == replace(heard, waveform=None)


def test_samples_of_one_channel_need_no_axis_for_it():
    one, other = speech_from_samples(tone(), 16_000, "audio"), speech_from_samples(tone()[None], 16_000, "audio")
    assert torch.equal(one.waveform, other.waveform)


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros((2, 9_000)), 48_000, r"audio has 0\.18 s of audio; at least 0\.2 s are needed"),
        (np.zeros((1, 0)), 48_000, r"audio has 0\.00 s of audio"),
        (np.zeros((0, 48_000)), 48_000, r"audio has 0 channels; give sound with at least 1"),
        (np.where(np.arange(48_000) < 7, np.nan, 0.1), 48_000, "audio has 7 samples that are NaN or infinite"),
        (np.zeros(48_000), 0, "audio has a sample rate of 0 Hz; give sound with its rate, such as 16000"),
    ],
)
def test_samples_that_are_no_speech_are_refused(samples, rate, message):
    with pytest.raises(InputError, match=message):
        speech_from_samples(samples, rate, "audio")


def test_loud_and_silent_samples_are_said():
    assert speech_from_samples(4 * tone(), 16_000, "audio").warnings == (
        "audio peaks at 2.00, beyond full scale 1; clipped",
    )
    assert speech_from_samples(0 * tone(), 16_000, "audio").warnings == ("audio is silent; the mouth will stay shut",)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_without_soxr_scipy_resamples_the_same_tone(monkeypatch, rate):
    monkeypatch.setitem(sys.modules, "soxr", None)
    speech = speech_from_samples(tone(6.0, rate), rate, "audio")
    assert speech.waveform.dtype == torch.float32 and speech.waveform.shape == (96_000,)
    error = speech.waveform.numpy() - tone(6.0)
    assert np.abs(error[400:-400]).max() < 2e-3
    with pytest.raises(InputError, match=r"audio has 0\.00 s of audio"):
        speech_from_samples(np.zeros(0), rate, "audio")
