"""The part store: whole parts come back as they were, anything else is drawn again."""

import errno
import os
import subprocess
import sys
from pathlib import Path

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


def test_the_longest_names_have_folders_and_each_its_own(tmp_path, frames, tail):
    longest = ["喜" * 83 + ending for ending in ("a.mp4", "b.mp4")]  # 254 bytes
    stores = [PartStore(tmp_path / name, KEY) for name in longest]
    assert stores[0].folder != stores[1].folder
    with stores[0]:
        stores[0].save(0, frames, tail)
    assert stores[0].load(0) is not None
    assert stores[1].load(0) is None


def test_a_second_run_is_refused_while_the_first_draws(tmp_path, frames, tail):
    first, second, other = (PartStore(tmp_path / "out.mp4", key) for key in (KEY, KEY, {"seed": 4}))
    message = rf"out.mp4 is being drawn by another run \(process {os.getpid()}\); wait for it or choose another output"
    with first:
        first.save(0, frames, tail)
        with pytest.raises(InputError, match=message), second:
            pass
        first.save(1, frames, tail)  # the refused one did no harm
        with other:
            pass
        first.delete()
        with pytest.raises(InputError, match=message), second:  # not even now
            pass
    assert list(tmp_path.iterdir()) == []
    with second:
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_run_leaves_its_clips_and_no_lock(tmp_path, frames, tail):
    store = PartStore(tmp_path / "new" / "out.mp4", KEY)
    with pytest.raises(KeyboardInterrupt), store:
        store.save(0, frames, tail)
        raise KeyboardInterrupt
    assert [p.name for p in store.folder.iterdir()] == ["clip_00000.npz"]


def test_a_killed_run_locks_nobody_out_and_its_leavings_go(tmp_path, frames, tail):
    store = PartStore(tmp_path / "out.mp4", KEY)
    program = (
        "import sys\nfrom tbd_core.parts import PartStore\n"
        f"with PartStore({str(tmp_path / 'out.mp4')!r}, {KEY!r}) as parts:\n"
        "    (parts.folder / 'clip_00001.npz.part-01234567.npz').touch()\n    (parts.folder / 'video-x').mkdir()\n"
        "    (parts.folder / 'video-x' / 'whole.mp4').touch()\n"
        "    print('locked', flush=True)\n    sys.stdin.read()\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as run:
        assert run.stdout and run.stdout.readline().strip() == b"locked"
        store.save(0, frames, tail)
        with pytest.raises(InputError, match=rf"another run \(process {run.pid}\)"), store:
            pass
        assert len(list(store.folder.iterdir())) == 4
        run.kill()
    with store:
        assert sorted(p.name for p in store.folder.iterdir()) == ["clip_00000.npz", "lock"]
        assert (store.folder / "lock").read_text() == str(os.getpid())
    assert store.load(0) is not None


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    store = PartStore(tmp_path / "file" / "out.mp4", KEY)
    with pytest.raises(InputError, match=r"lock could not be written \(Not a directory\)"), store:
        pass


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
