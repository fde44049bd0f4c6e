"""Damaged files and full disks: one line each, and nothing half-written."""

import os
import re
import shutil
import struct
from types import SimpleNamespace

import pytest
import torch

from tbd_core.checkpoint import convert as module
from tbd_core.checkpoint.convert import convert
from tbd_core.errors import InputError


# Damaged files.


@pytest.mark.parametrize("name", ["vae", "motion"])
def test_a_file_cut_short_is_refused_with_its_size(refused, world, tmp_path, name):
    whole = world.files[name].read_bytes()
    path = tmp_path / world.files[name].name
    path.write_bytes(whole[: len(whole) * 2 // 3])
    refused("paper-init", rf"{path.name} .*{len(whole) * 2 // 3} bytes", **{name: path})


def test_a_file_that_shrinks_after_it_was_opened_is_refused(refused, world, tmp_path, monkeypatch):
    path = tmp_path / "vae.safetensors"
    shutil.copy(world.files["vae"], path)
    write = module.write

    def cut(*arguments):
        os.truncate(path, 1000)
        write(*arguments)

    monkeypatch.setattr(module, "write", cut)
    refused("paper-init", r"vae\.safetensors: \S+ has 0 of \d+ bytes", vae=path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused_with_their_count(refused, world, public, tmp_path, bad, save):
    tensors = public.old_vae(world.parts)
    tensors["decoder.conv_out.weight"].flatten()[:3] = bad
    count = tensors["decoder.conv_out.weight"].numel()
    path = save(tmp_path / "vae.safetensors", tensors)
    refused("paper-init", rf"decoder\.conv_out\.weight has 3 of {count} values that are NaN or infinite", vae=path)


def test_values_that_are_no_numbers_are_refused_in_a_pickle_too(refused, world, tmp_path):
    tensors = torch.load(world.files["motion"], weights_only=True)
    key = next(key for key in tensors if key.startswith("mid_block") and key.endswith("proj_in.weight"))
    tensors[key].flatten()[0] = torch.nan
    torch.save(tensors, tmp_path / "mm.ckpt")
    refused(
        "paper-init", rf"mm\.ckpt: {key} has 1 of {tensors[key].numel()} values that are", motion=tmp_path / "mm.ckpt"
    )


@pytest.mark.parametrize("kind", [torch.int8, torch.complex64])
def test_values_of_another_sort_are_refused(refused, world, tmp_path, kind):
    tensors = torch.load(world.files["motion"], weights_only=True)
    torch.save({key: value.to(kind) for key, value in tensors.items()}, tmp_path / "mm.ckpt")
    name = str(kind).removeprefix("torch.")
    refused("paper-init", rf"mm\.ckpt: \S+ is stored as {name}, must be floating numbers", motion=tmp_path / "mm.ckpt")


def test_values_too_large_for_fp16_are_refused_and_fit_in_bf16(refused, world, public, tmp_path, save):
    tensors = public.old_vae(world.parts)
    tensors["decoder.conv_out.weight"].flatten()[0] = 70_000
    path = save(tmp_path / "vae.safetensors", tensors)
    refused("paper-init", r"values up to 7e\+04, too large for fp16; choose bf16", "fp16", vae=path)
    convert(world.recipe("paper-init"), world.given("paper-init", vae=path), tmp_path / "x.safetensors", "bf16")


class Harm:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_and_never_runs(refused, world, tmp_path, zipped):
    path, done = tmp_path / "mm.ckpt", tmp_path / "harm"
    tensors = torch.load(world.files["motion"], weights_only=True)
    torch.save(tensors | {"x": Harm(done)}, path, _use_new_zipfile_serialization=zipped)
    refused("paper-init", r"mm\.ckpt holds code or objects \((posix|nt)\.mkdir\), which are never run", motion=path)
    assert not done.exists()


@pytest.mark.parametrize(
    ("name", "content", "pattern"),
    [
        ("vae.safetensors", b"version https://git-lfs.github.com/spec/v1\n", r"is Git LFS's stand-in of 43 bytes"),
        ("vae.safetensors", b"<html>not found</html>", r"\(22 bytes\) is not a safetensors file"),
        ("vae.ckpt", b"<html>not found</html>", r"vae\.ckpt \(22 bytes\) is no sound PyTorch file"),
        ("vae.gguf", b"GGUF", r"vae\.gguf ends in '\.gguf'; give a \.safetensors"),
        ("vae.safetensors", b"", r"is empty \(0 bytes\)"),
        ("empty/.keep", b"", r"empty is a folder without weights"),
        ("x.safetensors", None, r"x\.safetensors does not exist"),
    ],
)
def test_what_is_no_weights_is_refused(refused, tmp_path, name, content, pattern):
    path = tmp_path / name
    if content is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    refused("paper-init", pattern, vae=path.parent if path.name == ".keep" else path)


def test_a_list_is_no_weights(refused, tmp_path):
    torch.save([torch.zeros(2)], tmp_path / "vae.pth")
    refused("paper-init", r"vae\.pth holds a list, not tensors by name", vae=tmp_path / "vae.pth")


def test_a_missing_shard_is_named(refused, world, public, tmp_path):
    folder = public.diffusers_folder(tmp_path / "sd", world.parts, max_shard_size="200KB")
    shards = sorted((folder / "unet").glob("*.safetensors"))
    shards[1].unlink()
    refused("paper-init", rf"unet lacks 1 of {len(shards)} files \({shards[1].name} …\)", sd=folder)


def test_a_tensor_of_unknown_type_is_refused(refused, world, tmp_path):
    data = world.files["vae"].read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = data[8 : 8 + length].replace(b'"F32"', b'"F4X"')
    path = tmp_path / "vae.safetensors"
    path.write_bytes(data[:8] + header + data[8 + length :])
    refused("paper-init", r"is stored as F4X, known are F64, ", vae=path)


# The disk.


def test_a_disk_without_room_is_told_before_anything_is_written(refused, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10_000_000))
    refused("paper-init", r"x\.safetensors needs 0\.0\d GB, 0\.01 GB are free")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_midway_leaves_the_old_file(world, tmp_path, monkeypatch, error):
    path, value_of, left = tmp_path / "x.safetensors", module.value_of, iter(range(100))
    path.write_bytes(b"old")

    def failing(*arguments):
        if next(left, None) is None:
            raise error
        return value_of(*arguments)

    monkeypatch.setattr(module, "value_of", failing)
    with pytest.raises(InputError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        convert(world.recipe("paper-init"), world.given("paper-init"), path, existing="replace")
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b"old"
    if isinstance(error, OSError):
        assert re.search(r"x\.safetensors could not be written \(No space left on device\)", str(caught.value))
