"""The part store: whole parts come back as they were, anything else is drawn again."""

import errno

import numpy as np
import pytest

from tbd_core.errors import InputError
from tbd_core.parts import PartStore, fingerprint


KEY = {"seed": 3, "prompts": ["happy", "cheek raiser"], "steps": 20}


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 255, (14, 16, 24, 3), dtype=np.uint8)


@pytest.fixture
def tail():
    return np.random.default_rng(1).standard_normal((1, 4, 2, 2, 3)).astype(np.float32)


def test_a_part_comes_back_as_it_was_also_to_another_run(tmp_path, frames, tail):
    PartStore(tmp_path / "out.mp4", KEY).save(2, frames, tail)
    again = PartStore(tmp_path / "out.mp4", dict(reversed(KEY.items())))
    loaded_frames, loaded_tail = again.load(2)
    assert loaded_frames.dtype == np.uint8
    assert loaded_tail.dtype == np.float32
    assert np.array_equal(loaded_frames, frames)
    assert np.array_equal(loaded_tail, tail)
    assert again.load(1) is None


def test_the_folder_stands_beside_the_output_and_is_made_late(tmp_path, frames, tail):
    store = PartStore(tmp_path / "new" / "out.mp4", KEY)
    assert store.folder.parent == tmp_path / "new"
    assert store.folder.name.startswith("out.mp4.parts-")
    assert len(store.folder.name.rpartition("-")[2]) == 12
    assert not (tmp_path / "new").exists()
    store.save(0, frames, tail)
    assert [p.name for p in store.folder.iterdir()] == ["clip_00000.npz"]


def test_another_key_sees_nothing_and_its_parts_are_left_alone(tmp_path, frames, tail):
    mine, other = PartStore(tmp_path / "out.mp4", KEY), PartStore(tmp_path / "out.mp4", {**KEY, "seed": 4})
    mine.save(0, frames, tail)
    other.save(1, frames, tail)
    assert other.load(0) is None
    mine.delete()
    assert not mine.folder.exists()
    assert other.load(1) is not None
    mine.delete()  # a second time does nothing


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_a_truncated_part_is_drawn_again(tmp_path, frames, tail, kept):
    store = PartStore(tmp_path / "out.mp4", KEY)
    store.save(0, frames, tail)
    part = store.folder / "clip_00000.npz"
    data = part.read_bytes()
    part.write_bytes(data[: int(kept * len(data)) if kept < 1 else kept])
    assert store.load(0) is None


def test_a_part_with_a_flipped_bit_is_drawn_again(tmp_path, frames, tail):
    store = PartStore(tmp_path / "out.mp4", KEY)
    store.save(0, frames, tail)
    part = store.folder / "clip_00000.npz"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 16
    part.write_bytes(data)
    assert store.load(0) is None


@pytest.mark.parametrize("broken", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_no_half_part_stays_when_writing_fails(tmp_path, frames, tail, monkeypatch, broken):
    store = PartStore(tmp_path / "out.mp4", KEY)
    store.save(0, frames, tail)

    def fill(path, **arrays):
        path.write_bytes(b"half")
        raise broken

    monkeypatch.setattr(np, "savez_compressed", fill)
    with pytest.raises(KeyboardInterrupt if isinstance(broken, KeyboardInterrupt) else InputError) as caught:
        store.save(1, frames, tail)
    if caught.type is InputError:
        assert "clip_00001.npz could not be written (No space left on device)" in str(caught.value)
    assert [p.name for p in store.folder.iterdir()] == ["clip_00000.npz"]
    assert store.load(0) is not None


def test_fingerprints_tell_values_shapes_and_types_apart():
    a = np.arange(6, dtype=np.float32)
    prints = [fingerprint(x) for x in (a, a + 1, a.reshape(2, 3), a.astype(np.int32))] + [fingerprint(a, a)]
    assert len(set(prints)) == 5
    assert fingerprint(a) == fingerprint(a.copy())
