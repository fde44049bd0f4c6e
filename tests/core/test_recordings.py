"""Speech for training: who is held out, what is drawn, and what rooms and microphones may not change."""

import errno
import os
import stat
import sys

import pytest
import torch

from tbd_core.data import recordings
from tbd_core.data.recordings import HELD_OUT, TRAIN, recording, roughen, speak
from tbd_core.errors import InputError
from tbd_core.synthetic.clip import mouth_from_sound
from tbd_core.synthetic.speech import babble
from tbd_core.units import SAMPLE_RATE, SAMPLES_PER_FRAME


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def spoken(monkeypatch) -> list[tuple]:
    """Babble instead of espeak-ng; what was asked for."""
    asked = []

    def pretend(sentence: str, voice: str, rate: int, pitch: int) -> torch.Tensor:
        asked.append((sentence, voice, rate, pitch))
        return babble(random(len(asked)), 0.5)

    monkeypatch.setattr(recordings, "speak", pretend)
    monkeypatch.setattr("tbd_core.data.corpus.check_voices", lambda: None)
    return asked


def pretend_program(folder, monkeypatch, script: str) -> None:
    """An executable named espeak-ng, alone in PATH."""
    program = folder / "espeak-ng"
    program.write_text(f"#!{sys.executable}\nimport io, struct, sys, wave\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder))


posix = pytest.mark.skipif(os.name != "posix", reason="the pretended program is a script with a first line")


# Who is held out.


def test_no_held_out_voice_variant_or_sentence_is_trained_with():
    for trained, held in (
        ({*TRAIN.english, *TRAIN.foreign}, {*HELD_OUT.english, *HELD_OUT.foreign}),
        (set(TRAIN.variants), set(HELD_OUT.variants)),
        ({s for all_ in TRAIN.sentences.values() for s in all_}, {s for a in HELD_OUT.sentences.values() for s in a}),
    ):
        assert trained and held and not trained & held
    assert not {v.lower() for v in TRAIN.variants} & {v.lower() for v in HELD_OUT.variants}
    assert not any("whisper" in variant for variant in TRAIN.variants + HELD_OUT.variants)


def test_every_voice_has_sentences_and_none_is_written_twice():
    for cast in (TRAIN, HELD_OUT):
        assert {voice[:2] for voice in cast.english + cast.foreign} == set(cast.sentences)
        for lines in cast.sentences.values():
            assert len(set(lines)) == len(lines) >= 4
        assert len(set(cast.variants)) == len(cast.variants)
    assert len(TRAIN.sentences["en"]) + len(HELD_OUT.sentences["en"]) >= 120


@pytest.mark.parametrize(("held_out", "cast", "other"), [(False, TRAIN, HELD_OUT), (True, HELD_OUT, TRAIN)])
def test_a_recording_is_one_voice_of_its_own_cast(spoken, held_out, cast, other):
    generator, recordings_made = random(1), 0
    for _ in range(40):
        spoken.clear()
        recording(generator, 3.0, held_out)
        if not spoken:
            continue
        recordings_made += 1
        assert len({voice for _, voice, _, _ in spoken}) == 1
        base, _, variant = spoken[0][1].partition("+")
        assert base in cast.english + cast.foreign and variant in cast.variants
        for sentence, _, rate, pitch in spoken:
            assert sentence in cast.sentences[base[:2]]
            assert sentence not in other.sentences.get(base[:2], ())
            assert 110 <= rate <= 236 and 18 <= pitch <= 88
    assert recordings_made == 40 if held_out else 20 <= recordings_made <= 37


# What is drawn.


def test_a_recording_is_as_long_as_asked_within_full_scale_and_the_same_for_a_seed(spoken):
    for seed in range(6):
        sound = recording(random(seed), 2.5)
        assert sound.shape == (40_000,) and sound.abs().max() <= 1
        spoken.clear()  # the pretended voice says something else at each call
        first, again = recording(random(seed), 2.5), spoken.clear() or recording(random(seed), 2.5)
        assert torch.equal(first, again)
    assert not torch.equal(recording(random(1), 2.5, True), recording(random(2), 2.5, True))


def test_pauses_are_silent_or_faint_and_shut_the_mouth(spoken):
    still, digital = 0, 0
    for seed in range(8):
        sound = recording(random(seed), 8.0, held_out=True)
        opening = mouth_from_sound(sound, 200)[:, 0]
        loud = sound.unfold(0, SAMPLES_PER_FRAME, SAMPLES_PER_FRAME).abs().amax(1)
        quiet = loud < 10 ** (-45 / 20)
        quiet = quiet & quiet.roll(1) & quiet.roll(-1)  # the curve is smoothed over its neighbours
        still += int(quiet.sum())
        digital += int((loud == 0).sum())
        assert opening[quiet].max() < 0.05 < opening.max()
    assert still > 100 and digital > 20


def test_now_and_then_nobody_speaks(spoken, monkeypatch):
    monkeypatch.setattr(recordings, "BABBLE_SHARE", 0.0)
    monkeypatch.setattr(recordings, "SILENT_SHARE", 1.0)
    for seed in range(4):
        sound = recording(random(seed), 2.0)
        assert not spoken and sound.abs().max() < 10 ** (-50 / 20) and not mouth_from_sound(sound, 50).any()


# espeak-ng itself, and without it.


def test_without_espeak_ng_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"espeak-ng was not found; .* install it \(Debian: apt-get install espeak-ng"):
        speak("Hello.", "en-us", 160, 50)


@posix
def test_an_espeak_ng_without_all_voices_is_refused_with_their_number(tmp_path, monkeypatch):
    script = """
rows = ["Pty Language Age/Gender VoiceName File"]
if sys.argv[1] == "--voices=variant":
    rows += ["5 variant --/M Name !v/" + name for name in NAMES[0]]
else:
    rows += ["5 " + name + " --/M Name gmw/" + name for name in NAMES[1]]
print("\\n".join(rows))"""
    variants = [name for cast in (TRAIN, HELD_OUT) for name in cast.variants if name]
    voices = [name for cast in (TRAIN, HELD_OUT) for name in (*cast.english, *cast.foreign)]
    pretend_program(tmp_path, monkeypatch, f"NAMES = {variants!r}, {voices!r}\n{script}")
    recordings.check_voices()
    pretend_program(tmp_path, monkeypatch, f"NAMES = {variants[:-2]!r}, {voices[1:]!r}\n{script}")
    with pytest.raises(InputError, match=r"lacks 3 voices \(paul, quincy, en-us\); install a whole espeak-ng, 1\.51"):
        recordings.check_voices()


@posix
def test_a_wav_of_unknown_length_becomes_16_khz(tmp_path, monkeypatch):
    script = """
text, arguments = sys.stdin.read(), sys.argv[1:]
assert text == "-v Hello." and arguments[:6] == ["-v", "en-us+f2", "-s", "160", "-p", "50"], (text, arguments)
pipe = io.BytesIO()
with wave.open(pipe, "wb") as file:
    file.setnchannels(1), file.setsampwidth(2), file.setframerate(22050)
    file.writeframes(struct.pack("<h", 16384) * 22050)
wav = bytearray(pipe.getvalue())
wav[40:44] = struct.pack("<I", 0x7ffff000)
sys.stdout.buffer.write(wav)"""
    pretend_program(tmp_path, monkeypatch, script)
    sound = speak("-v Hello.", "en-us+f2", 160, 50)  # a sentence is never taken for an option
    assert sound.dtype == torch.float32 and sound.shape == (SAMPLE_RATE,)
    assert sound[4000:12_000].mean() == pytest.approx(0.5, abs=0.01)


@posix
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("sys.exit('Error: The specified espeak-ng voice does not exist.')", "voice does not exist"),
        ("pass", "exit status 0, no sound"),
    ],
)
def test_a_voice_that_is_not_there_is_named(tmp_path, monkeypatch, script, reason):
    pretend_program(tmp_path, monkeypatch, script)
    with pytest.raises(InputError, match=rf"could not speak with the voice 'xx\+m9' \(.*{reason}.*\); install a whole"):
        speak("Hello.", "xx+m9", 160, 50)


# What rooms and microphones may not change.


def test_roughening_keeps_shape_scale_and_seed_and_changes_most_sounds():
    sounds = torch.stack([babble(random(n), 1.0) for n in range(16)])
    rough = roughen(sounds, random(3))
    assert rough.shape == sounds.shape and rough.abs().max() <= 1 and rough.isfinite().all()
    assert torch.equal(rough, roughen(sounds, random(3)))
    same = [torch.equal(a, b) for a, b in zip(rough, sounds, strict=True)]
    assert 0 < sum(same) < 8
    assert roughen(sounds[0], random(4)).shape == sounds[0].shape


def test_roughening_does_not_move_the_sound_in_time():
    sounds = torch.stack([babble(random(n), 2.0) for n in range(12)])
    rough = roughen(sounds, random(5))
    size = 2 * sounds.shape[1]
    lags = torch.fft.irfft(torch.fft.rfft(rough, size) * torch.fft.rfft(sounds, size).conj(), size)
    late = lags.abs().argmax(1)
    late = torch.minimum(late, size - late)  # a lag of -1 is the last
    assert late.max() <= 0.001 * SAMPLE_RATE and late.median() == 0


def test_the_mouth_of_a_roughened_sound_is_nearly_the_same():
    sounds = torch.stack([babble(random(n), 4.0) for n in range(8)])
    rough = roughen(sounds, random(6))
    sounds, rough = (0.8 * x / x.abs().amax(1, keepdim=True) for x in (sounds, rough))
    together = [
        torch.corrcoef(torch.stack([mouth_from_sound(a, 100)[:, 0], mouth_from_sound(b, 100)[:, 0]]))[0, 1]
        for a, b in zip(sounds, rough, strict=True)
    ]
    assert torch.stack(together).mean() > 0.8


def test_silence_stays_finite_when_roughened():
    rough = roughen(torch.zeros(24, 8000), random(7))
    loudest = rough.abs().amax(1)
    assert rough.isfinite().all() and loudest.min() == 0 < loudest.max() < 0.3


def test_a_room_adds_only_what_comes_later():
    click = torch.zeros(1, 16_000)
    click[0, 4000] = 0.5
    heard = recordings.reverberate(click, torch.tensor([[0.3]]), torch.tensor([[6.0]]), random(8))[0]
    assert heard[:4000].abs().max() < 1e-5 and heard[4000] == pytest.approx(0.5, abs=1e-4)
    later = heard[4001:].square()
    assert 10 * (0.25 / later.sum()).log10() == pytest.approx(6.0, abs=0.1)
    assert later[:800].sum() > 100 * later[4000:4800].sum()


def test_the_equaliser_tilts_by_what_is_asked():
    one = torch.tensor([[1.0]])
    time = torch.arange(16_000) / SAMPLE_RATE
    for hertz, gain in ((500, -3.0), (1000, 0.0), (2000, 3.0)):
        tone = torch.sin(2 * torch.pi * hertz * time)[None]
        heard = recordings.equalise(tone, 3 * one, 12_000 * one, 20 * one)
        assert 20 * (heard.norm() / tone.norm()).log10() == pytest.approx(gain, abs=0.1)


def test_pink_noise_loses_three_decibels_an_octave():
    noise = recordings.coloured_noise(torch.Size([2, 160_000]), random(9), torch.tensor([[0.0], [1.0]]))
    power = torch.fft.rfft(noise).abs().square()
    octave = [power[:, 10 * low : 20 * low].mean(1).log10() * 10 for low in (500, 2000)]
    assert (octave[0] - octave[1]).tolist() == pytest.approx([0.0, 6.0], abs=0.3)
    assert noise.square().mean(1).tolist() == pytest.approx([1.0, 1.0], abs=1e-3)


# The recordings that the audio encoder learns from and is judged on.


def test_recordings_are_made_once_for_each_side(spoken, tmp_path):
    from tbd_core.data.corpus import FRAMES, draw_recordings

    trained = draw_recordings(tmp_path, 1, seed=5)["sounds"]
    held = draw_recordings(tmp_path, 1, seed=5, held_out=True)["sounds"]
    assert trained.shape == held.shape == (1, FRAMES * SAMPLES_PER_FRAME) and not torch.equal(trained, held)
    spoken.clear()
    assert torch.equal(draw_recordings(tmp_path, 1, seed=5)["sounds"], trained) and not spoken
    assert len(list(tmp_path.iterdir())) == 2


def test_a_broken_run_leaves_no_half_of_the_recordings(monkeypatch, tmp_path):
    from tbd_core.data.corpus import draw_recordings

    def nothing(*_):
        raise InputError("espeak-ng was not found")

    monkeypatch.setattr(recordings, "speak", nothing)
    monkeypatch.setattr("tbd_core.data.corpus.check_voices", lambda: None)
    with pytest.raises(InputError, match="espeak-ng was not found"):
        draw_recordings(tmp_path, 1, seed=5, held_out=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("broken", [b"", b"half of a shard", None])
def test_a_damaged_shard_is_named(spoken, tmp_path, broken):
    from tbd_core.data.corpus import draw_recordings

    draw_recordings(tmp_path, 1, seed=5)
    shard = tmp_path / "recordings-000000.pt"
    whole = shard.read_bytes()
    damaged = whole[: len(whole) // 2] if broken is None else broken
    shard.write_bytes(damaged)
    message = rf"recordings-000000\.pt \({len(damaged)} bytes\) cannot be used; delete it, and it is drawn anew"
    with pytest.raises(InputError, match=message):
        draw_recordings(tmp_path, 1, seed=5)


def test_a_full_disk_is_named_and_what_a_killed_run_left_is_swept_away(spoken, tmp_path, monkeypatch):
    from tbd_core.data.corpus import draw_recordings

    (tmp_path / "recordings-000000.pt.part-77").write_bytes(b"left")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tbd_core.files.os.replace", full)
    with pytest.raises(InputError, match=r"recordings-000000\.pt.*No space left on device"):
        draw_recordings(tmp_path, 1, seed=5)
    assert not list(tmp_path.iterdir())


def test_pearson_knows_a_line_from_noise_and_survives_a_flat_curve():
    from tbd_core.training.audio import pearson

    line = torch.arange(50.0)
    assert float(pearson(line, 3 * line - 7)) == pytest.approx(1, abs=1e-5)
    assert float(pearson(line, -line)) == pytest.approx(-1, abs=1e-5)
    assert float(pearson(line, torch.ones(50))) == 0
