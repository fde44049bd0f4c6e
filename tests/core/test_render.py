"""A video from clips that anyone draws: gone on with after a stop, made once for one key."""

import json
import subprocess
import sys
from enum import Enum
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tbd_core.errors import InputError
from tbd_core.parts import PartStore
from tbd_core.render import describe, digest, is_finished, render, write_video
from tbd_core.video import probe, read_metadata


ROOT = Path(__file__).resolve().parents[2]
FRAMES = 20  # two clips, the second cut


class Draughtsman:
    """Draws each clip in a grey of its own; stops before clip `until`."""

    def __init__(self, until=99):
        self.until, self.drawn, self.closed = until, [], False

    def __call__(self, start, tail):
        assert (tail is None) == (start == 0)
        assert tail is None or tail[0, 0] == start - 1  # the tail of just the clip before
        try:
            for clip in range(start, 2):
                if clip == self.until:
                    raise KeyboardInterrupt
                self.drawn.append(clip)
                yield np.full((14, 64, 64, 3), 80 * (clip + 1), np.uint8), np.full((2, 3), clip, np.float32)
        finally:
            self.closed = True


def make(path, draw, key=None, sound=None, **metadata):
    waveform = torch.zeros(12_800)
    render(path, key or {"seed": 1}, FRAMES, (64, 64), draw, waveform if sound is None else sound, metadata)


def test_the_video_has_all_frames_the_sound_and_its_key(tmp_path):
    path, draw = tmp_path / "new" / "a.mp4", Draughtsman()
    make(path, draw, steps=7)
    facts = probe(path)
    assert (facts["frames"], facts["width"], facts["has_audio"]) == (FRAMES, 64, True)
    said = read_metadata(path)
    assert (said["steps"], said["key"], said["synthetic"]) == (7, digest({"seed": 1}), True)
    assert draw.drawn == [0, 1] and draw.closed
    assert [one.name for one in path.parent.iterdir()] == ["a.mp4"]


def test_a_recording_keeps_its_own_rate(tmp_path):
    make(tmp_path / "a.mp4", Draughtsman(), sound=(np.zeros((2, 35_280)), 44_100))
    assert abs(probe(tmp_path / "a.mp4")["audio_seconds"] - FRAMES / 25) < 0.05


def test_a_stopped_run_goes_on_at_its_first_missing_clip(tmp_path):
    path, first, second = tmp_path / "a.mp4", Draughtsman(until=1), Draughtsman()
    with pytest.raises(KeyboardInterrupt):
        make(path, first)
    assert first.closed and not path.exists() and not is_finished(path, {"seed": 1})
    make(path, second)
    assert (first.drawn, second.drawn) == ([0], [1])
    assert probe(path)["frames"] == FRAMES


def test_another_key_begins_anew(tmp_path):
    path, other = tmp_path / "a.mp4", Draughtsman()
    with pytest.raises(KeyboardInterrupt):
        make(path, Draughtsman(until=1))
    make(path, other, key={"seed": 2})
    assert other.drawn == [0, 1]


def test_a_video_is_finished_for_its_own_key_alone(tmp_path):
    path = tmp_path / "a.mp4"
    make(path, Draughtsman())
    assert is_finished(path, {"seed": 1})
    assert not is_finished(path, {"seed": 2}) and not is_finished(tmp_path / "b.mp4", {"seed": 1})
    path.write_bytes(b"no video")
    assert not is_finished(path, {"seed": 1})


class Adapter:
    def __init__(self, scale, at=1.0):
        self.weights, self.loaded_keys, self.at = (torch.full((2, 2), scale), None, 4.0), {"up", "down"}, at


def rescaled(scale, default=1.0):
    """A function as nodes make them, with a number of its own."""

    def rescale(x, by=default):
        return x * scale * by

    return rescale


def sampling(kind):
    """A local class, as ComfyUI's nodes make them: one name for all kinds."""

    class Sampling(kind, torch.nn.Module):
        def __init__(self, level=1.0):
            super().__init__()
            self.register_buffer("sigmas", torch.full((3,), level))

    return Sampling


class Noise:
    """Predicts noise."""


class Velocity:
    """Predicts velocity."""


class Slotted:
    __slots__ = ("strength", "unset")

    def __init__(self, strength):
        self.strength = strength

    def use(self):
        return self.strength


class Kind(Enum):
    weight, object = "weight", "object"


def circle(number):
    one = Adapter(number)
    one.itself = [one]
    return one


PAIRS = {
    "tensor": (lambda n: torch.full((2,), n), 1.0, 2.0),
    "closure": (rescaled, 0.7, 0.3),
    "default": (lambda n: rescaled(1.0, n), 0.7, 0.3),
    "code": (lambda n: (lambda x: x * 2) if n else (lambda x: x * 3), 0, 1),
    "partial": (lambda n: partial(rescaled, n), 0.7, 0.3),
    "method": (lambda n: Slotted(n).use, 0.7, 0.3),
    "slots": (Slotted, 0.7, 0.3),
    "attribute": (lambda n: Adapter(1.0, n), 0.5, 1.0),
    "adapter": (Adapter, 0.5, 1.0),
    "buffer": (lambda n: sampling(Noise)(n), 1.0, 2.0),
    "base class": (lambda kind: sampling(kind)(), Noise, Velocity),
    "class": (lambda kind: kind, Noise, Velocity),
    "enum": (lambda kind: {"hook_type": kind}, Kind.weight, Kind.object),
    "dtype": (lambda kind: [kind], torch.float16, torch.bfloat16),
    "device": (torch.device, "cpu", "meta"),
    "path": (Path, "a", "b"),
    "bytes": (bytes, b"a", b"b"),
    "array": (lambda n: np.full(n, 1.0), 2, 3),
    "circle": (circle, 1.0, 2.0),
    "set": (lambda n: {n, 5}, 1, 2),
    "deep": (lambda n: {"a": [({"b": Adapter(1.0, [Slotted(n)])},)]}, 1, 2),
}


@pytest.mark.parametrize("name", PAIRS)
def test_equal_contents_are_described_alike_and_others_are_not(name):
    make, one, other = PAIRS[name]
    described = [describe(make(value)) for value in (one, one, other)]
    assert described[0] == described[1] != described[2]
    json.dumps(described)


def test_what_is_one_object_twice_is_described_as_two_equal_ones():
    twice = Adapter(1.0)
    assert describe([twice, twice]) == describe([Adapter(1.0), Adapter(1.0)])


def test_fp32_holds_all_of_bfloat16_and_shapes_count():
    assert describe(torch.ones(2, dtype=torch.bfloat16)) == describe(torch.ones(2))
    assert describe(torch.ones(2)) != describe(torch.ones(1, 2))


def test_objects_are_described_alike_in_every_process():
    code = """
import json, types
import torch
from tbd_core.flow import Schedule
from tbd_core.render import describe, digest
plain = [Schedule(((1.0, 0.0),), (0.4,), "hard"), {"b", "a"}, json.dumps, object()]
told = digest(describe([*plain, types.SimpleNamespace(x=torch.ones(2))]))
"""
    here: dict = {}
    exec(code, here)
    there = subprocess.run([sys.executable, "-c", f"{code}print(told)"], capture_output=True, text=True, cwd=ROOT)
    assert there.stdout.strip() == here["told"], there.stderr


def test_what_a_hook_notes_while_it_is_sampled_changes_nothing():
    """ComfyUI's hooks count steps in themselves; the run that is gone on with is the same."""

    def hook(strength, **noted):
        return SimpleNamespace(strength=strength, keyframes=SimpleNamespace(list=[], _current_index=0, **noted))

    assert describe(hook(1.0)) == describe(hook(1.0, curr_t=-1.0, _curr_t=3.0, start_t=7.0)) != describe(hook(0.5))


def test_a_vanished_clip_is_said_and_the_others_stay(tmp_path):
    with PartStore(tmp_path / "a.mp4", {}) as parts:
        parts.save(0, np.zeros((14, 64, 64, 3), np.uint8), np.zeros(1, np.float32))
        with pytest.raises(InputError, match=r"clip 1 of .*parts-\w+ vanished; start the same run again"):
            write_video(parts, FRAMES, (64, 64), None, {})
        assert parts.load(0) is not None
    assert not (tmp_path / "a.mp4").exists()
