"""A video from clips that anyone draws: gone on with after a stop, made once for one key."""

import numpy as np
import pytest
import torch

from tbd_core.flow import Schedule
from tbd_core.render import describe, digest, is_finished, render
from tbd_core.video import probe, read_metadata


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
    def __init__(self, scale):
        self.weights, self.cache = (torch.full((2, 2), scale), None, 4.0), object()


def test_equal_contents_are_described_alike_and_others_are_not():
    def one(scale=1.0, kind=torch.float32):
        schedule = Schedule(((1.0, 0.0),), (0.4,), "hard")
        tensor = torch.full((2,), scale, dtype=kind)
        return {"b": [tensor, {"schedule": schedule}], "a": (None, 1, "x", Adapter(scale), print), 3: {2, 1}}

    assert describe(one()) == describe(one())
    assert digest(describe(one())) == digest(describe(one()))
    assert describe(one()) != describe(one(scale=2.0))
    assert describe(torch.ones(2, dtype=torch.bfloat16)) == describe(torch.ones(2))
    assert describe(torch.ones(2)) != describe(torch.ones(1, 2))


def test_what_changes_from_process_to_process_is_named_only():
    assert describe(object()) == {"type": "object"}
    assert describe([Draughtsman(1), Draughtsman(2)]) == [{"type": "Draughtsman"}] * 2
