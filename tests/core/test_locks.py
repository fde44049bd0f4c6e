"""One run at a time, whatever happens to the file that says so."""

import errno
import os

import pytest

from tbd_core import locks
from tbd_core.errors import InputError
from tbd_core.locks import alone


def test_the_second_is_told_who_is_first_and_the_file_goes(tmp_path):
    path = tmp_path / "lock"
    with alone(path, "the folder"):
        assert path.read_text() == str(os.getpid())
        said = rf"the folder is in use by another run \(process {os.getpid()}\); wait for it"
        with pytest.raises(InputError, match=said), alone(path, "the folder"):
            pass
    assert not path.exists()


def test_a_full_disk_takes_the_lock_without_a_number(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(locks.os, "write", full)
    with (
        alone(tmp_path / "lock", "the folder"),
        pytest.raises(InputError, match=r"\(process unknown\)"),
        alone(tmp_path / "lock", "the folder"),
    ):
        pass


def test_a_lock_that_its_owner_is_just_removing_is_tried_again(tmp_path, monkeypatch):
    real, calls = locks.lock, []

    def removed_at_first(path):
        calls.append(path)
        if len(calls) < 3:
            raise FileNotFoundError(errno.ENOENT, "removed and made anew", str(path))
        return real(path)

    monkeypatch.setattr(locks, "lock", removed_at_first)
    with alone(tmp_path / "lock", "the folder"):
        assert len(calls) == 3
