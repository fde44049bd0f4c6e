"""One file of weights: what its header or its pickle may hold, and what is refused in one line."""

import json
import struct
import zipfile
from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tbd_core.checkpoint import weight_files
from tbd_core.checkpoint.sources import Source
from tbd_core.checkpoint.weight_files import PickleFile, check_values, open_file
from tbd_core.errors import InputError


def refused(path, pattern):
    with pytest.raises(InputError, match=pattern) as caught:
        Source("x", path)
    assert "\n" not in str(caught.value)


def safetensors(path, **changed):
    """Two float32 in a file whose header's one entry is changed."""
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changed
    header = json.dumps({"w": {key: value for key, value in entry.items() if value is not None}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    return path


# Safetensors.


@pytest.mark.parametrize(
    "changed",
    [
        *(dict(data_offsets=wrong) for wrong in ([0], [0, 4, 8], ["0", "8"], [-8, 8], [0.0, 8.0], [9, 8], 8, None, {})),
        *(dict(dtype=wrong) for wrong in (["F32"], 32, None)),
        *(dict(shape=wrong) for wrong in ([-2], [True, 2], ["2"], "2", 2, None)),
    ],
)
def test_a_header_of_another_form_is_refused(tmp_path, changed):
    assert open_file(safetensors(tmp_path / "w.safetensors")).read("w").tolist() == [0, 0]
    refused(safetensors(tmp_path / "x.safetensors", **changed), r"x\.safetensors \(\d+ bytes\) is not a safetensors")


# Folders.


@pytest.mark.parametrize("names", [[1], [["a"]], {"w": 1}, [None, "a"], "a"])
def test_an_index_that_names_no_files_is_refused(tmp_path, names):
    names = names if isinstance(names, (dict, str)) else {f"w{i}": name for i, name in enumerate(names)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    refused(tmp_path, r"model\.safetensors\.index\.json is no index of weights \(.+\); copy")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors.index.json"])
def test_json_of_a_hundred_thousand_levels_is_refused(tmp_path, file):
    if file == "config.json":
        save_file({"w": torch.zeros(2)}, tmp_path / "model.safetensors")
    (tmp_path / file).write_text("[" * 100_000)
    refused(tmp_path, rf"{file} is no (JSON object|index of weights) \(.*recursion.*\); copy")


def test_a_folder_that_holds_only_net_pth_is_that_file(tmp_path):
    torch.save({"audioproj.x": torch.ones(2)}, tmp_path / "net.pth")
    (tmp_path / "README.md").write_text("Hallo")
    assert Source("hallo", tmp_path).shapes == {"audioproj.x": (2,)}


def test_a_part_or_a_shard_that_is_cut_short_is_named(tmp_path):
    for part in ("reference_unet", "audioproj"):
        torch.save({"w": torch.zeros(1000)}, tmp_path / f"{part}.pth")
    whole = (tmp_path / "audioproj.pth").read_bytes()
    (tmp_path / "audioproj.pth").write_bytes(whole[:3000])
    refused(tmp_path, r"audioproj\.pth ends too early \(3000 bytes")
    folder = tmp_path / "shards"
    folder.mkdir()
    for i in (1, 2):
        save_file({f"w{i}": torch.zeros(1000)}, folder / f"{i}.safetensors")
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"w1": "1.safetensors", "w2": "2.safetensors"}})
    )
    (folder / "2.safetensors").write_bytes((folder / "2.safetensors").read_bytes()[:2000])
    refused(folder, r"2\.safetensors has 2000 bytes but its header promises 40\d\d; copy")


# Pickles.


@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_a_pickle_of_the_old_form_that_is_cut_short_is_refused(tmp_path, share):
    path = tmp_path / "w.ckpt"
    torch.save({f"w{i}": torch.zeros(50) for i in range(9)}, path, _use_new_zipfile_serialization=False)
    cut = path.read_bytes()[: int(path.stat().st_size * share)]
    path.write_bytes(cut)
    refused(path, rf"w\.ckpt \({len(cut)} bytes\) is no sound PyTorch file")


def test_tensors_without_values_are_refused(tmp_path):
    torch.save({"state_dict": {"w": torch.empty(2, device="meta")}}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", r"w\.pth has no values for state_dict\.w: it was saved from the meta device")


@pytest.mark.parametrize("zipped", [True, False])
def test_what_lightning_and_numpy_leave_in_a_ckpt_is_nothing(tmp_path, public, zipped):
    path = public.lightning(tmp_path / "sd.ckpt", {"w": torch.arange(2.0)})
    with zipfile.ZipFile(path) as file:
        data = file.read(next(name for name in file.namelist() if name.endswith("data.pkl")))
    named = ("callbacks.model_checkpoint", "numpy.core.multiarray", "numpy._core.multiarray", "numpy", "_codecs")
    assert all(f"c{module}\n".encode() in data or f".{module}\n".encode() in data for module in named)
    assert PickleFile(path).read("w").tolist() == [0, 1]
    numbers = {"best": np.float64(0.5), "step": np.int64(3), "seen": np.float32(1)}
    torch.save({"w": torch.ones(2), "numbers": numbers}, path, _use_new_zipfile_serialization=zipped)
    assert open_file(path).shapes == {"w": (2,)}


def test_nothing_stands_in_for_what_runs():
    """What a pickle calls is a class of ours, by name alone: torch before 2.6 takes no other form."""
    stands = weight_files.stand_ins()
    assert [f"{kind.__module__}.{kind.__qualname__}" for kind in stands] == list(weight_files.INERT)
    made = stands[1](print, "x")
    made.__setstate__((1, 2))
    assert vars(made) == {} and all(kind.__mro__[1:] == stands[0].__mro__[1:] for kind in stands)


class Encoded:
    """numpy's number, with code where its bytes stand."""

    def __init__(self, harm):
        self.harm = harm

    def __reduce__(self):
        return np.float64(0).__reduce__()[0], (np.dtype("f8"), self.harm)


class Harm:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_code_inside_a_number_is_refused_and_never_runs(tmp_path):
    path, done = tmp_path / "sd.ckpt", tmp_path / "harm"
    torch.save({"w": torch.ones(2), "n": Encoded(Harm(done))}, path)
    refused(path, r"sd\.ckpt holds code or objects \(\w+\.open\), which are never run")
    assert not done.exists()


def test_what_a_host_allows_pickles_to_run_is_not_run_here_and_still_allowed_afterwards(tmp_path):
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals([Fraction])
    try:
        torch.save({"w": torch.ones(2), "n": Called()}, tmp_path / "w.pth")
        refused(tmp_path / "w.pth", r"w\.pth holds code or objects \(fractions\.Fraction\)")
        assert Fraction in torch.serialization.get_safe_globals()
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


class Called:
    def __reduce__(self):
        return Fraction, (1, 2)


# Values.


@pytest.mark.parametrize(
    ("value", "floats", "pattern"),
    [
        (torch.ones(2, dtype=torch.complex64), True, "a: w is stored as complex64, must be floating numbers; give"),
        (torch.ones(2, dtype=torch.int8), True, "a: w is stored as int8, must be floating numbers; give"),
        (torch.ones(2, dtype=torch.bool), True, "a: w is stored as bool, must be floating numbers; give"),
        (torch.ones(2), False, "a: w is stored as float32, must be whole numbers; give"),
        (torch.tensor([1.0, torch.nan, torch.inf]), True, "a: w has 2 of 3 values that are NaN or infinite"),
    ],
)
def test_values_of_another_sort_are_refused(value, floats, pattern):
    with pytest.raises(InputError, match=pattern):
        check_values(value, "a: w", floats)
    for kind in (torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn):
        check_values(torch.ones(2).to(kind), "a: w")
    check_values(torch.ones(2, dtype=torch.int64), "a: w", floats=False)
