"""One self-describing file: what goes in comes out, and every damaged or foreign file is told apart."""

import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from tbd_core.checkpoint import store
from tbd_core.devices import shapes_alone
from tbd_core.errors import InputError
from tbd_core.models.build import build


KEY = "denoising_unet.conv_in.weight"


@pytest.fixture(scope="module")
def bundle(small_bundle):
    """(tensors, `tbd` entry) of the small bundle, to be altered and written elsewhere."""
    return load_file(small_bundle), store.read_about(small_bundle)


@pytest.fixture(scope="module")
def loaded(small_bundle):
    """The small bundle's networks, to be read."""
    return store.load(small_bundle)[0]


@pytest.fixture
def write(bundle, tmp_path):
    """Writes the small bundle with `tensors` and `about` replacing or (None) removing entries."""

    def write(tensors: dict | None = None, about: dict | None = None, entry: str | None = None):
        kept = {k: v for k, v in {**bundle[0], **(tensors or {})}.items() if v is not None}
        path = tmp_path / "changed.safetensors"
        save_file(kept, path, {"tbd": entry or json.dumps({**bundle[1], **(about or {})})})
        return path

    return write


def fails(path, pattern: str) -> None:
    with pytest.raises(InputError, match=pattern) as caught:
        store.load(path)
    assert "\n" not in str(caught.value) and re.search("(take the bundled one|copy or download)", str(caught.value))


def test_a_newer_layer_that_an_older_bundle_lacks_stays_as_it_is(small_config, bundle, write):
    layer = "denoising_unet.reference_in.weight"
    network = build(small_config).denoising_unet
    store.fill(write({layer: None}), "denoising_unet", network, torch.float32, newer=("reference_in",))
    assert not network.reference_in.weight.any()  # as it was built
    assert torch.equal(network.conv_in.weight, bundle[0][KEY].float())
    store.fill(write(), "denoising_unet", network, torch.float32, newer=("reference_in",))
    assert torch.equal(network.reference_in.weight, bundle[0][layer].float())
    with pytest.raises(InputError, match="denoising_unet lacks 1 keys"):
        store.fill(write({layer: None}), "denoising_unet", network, torch.float32)
    with pytest.raises(InputError, match="denoising_unet lacks 1 keys"):
        store.fill(write({KEY: None}), "denoising_unet", network, torch.float32, newer=("reference_in",))


def test_what_is_saved_as_fp16_loads_as_its_fp16_rounding(small_config, fill, tmp_path):
    networks = build(small_config)
    for seed, (_, module) in enumerate(networks.items()):
        fill(module, seed)
    path = tmp_path / "net.safetensors"
    store.save(path, networks, small_config, {"name": "n"}, torch.float16)
    loaded, config = store.load(path)
    assert config == small_config
    for (prefix, before), (_, after) in zip(networks.items(), loaded.items(), strict=True):
        expected, got = before.state_dict(), after.state_dict()
        assert expected.keys() == got.keys()
        for key, value in got.items():
            wanted = expected[key].half().float() if value.is_floating_point() else expected[key]
            assert torch.equal(value, wanted), f"{prefix}.{key}"
            assert value.dtype == wanted.dtype


def test_loaded_networks_are_frozen_and_complete(small_bundle):
    networks, _ = store.load(small_bundle, dtype=torch.bfloat16)
    for prefix, module in networks.items():
        assert not module.training, prefix
        assert not any(p.requires_grad for p in module.parameters()), prefix
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            assert value.device.type == "cpu", f"{prefix}.{name} was left without a value"
            assert not value.is_floating_point() or value.dtype == torch.bfloat16, f"{prefix}.{name}"


def test_a_loaded_bundle_computes_what_the_saved_one_did(loaded, small_config, fill):
    fresh = build(small_config)
    for seed, (_, module) in enumerate(fresh.items()):
        fill(module, seed).half().float()
    ids = torch.tensor([[49406, 320, 2533, 49407]])
    sound, pixels = torch.randn(1, 6400), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for run in (
            lambda nets: nets.text_encoder(input_ids=ids).last_hidden_state,
            lambda nets: nets.audio_encoder(sound).last_hidden_state,
            lambda nets: nets.vae.encode(pixels).latent_dist.mean,
        ):
            assert torch.allclose(run(loaded), run(fresh), atol=1e-5)


def test_the_header_is_read_without_torch(small_bundle, root):
    code = (
        "import sys, pathlib; from tbd_core.checkpoint import store; p = pathlib.Path(sys.argv[1]);"
        "print(store.read_about(p)['name'], store.read_config(p).defaults.size);"
        "sys.exit('torch' in sys.modules or 'safetensors' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, small_bundle], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "small 64\n"), done.stderr


def test_the_file_has_ordinary_permissions(small_bundle):
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(small_bundle.stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("old", [True, False])
def test_text_encoder_keys_of_transformers_4_and_5_fit_alike(bundle, write, old):
    prefix, renamed = "text_encoder.", {}
    for key, value in bundle[0].items():
        if key.startswith(prefix):
            name = key.removeprefix(prefix).removeprefix("text_model.")
            renamed |= {key: None, f"{prefix}{'text_model.' if old else ''}{name}": value}
    networks, _ = store.load(write(renamed))
    table = next(v for k, v in networks.text_encoder.state_dict().items() if k.endswith("token_embedding.weight"))
    assert torch.equal(table, next(v for k, v in bundle[0].items() if k.endswith("token_embedding.weight")).float())


# Files that are no bundle.


def test_a_missing_file_is_named(tmp_path):
    fails(tmp_path / "gone.safetensors", r"gone\.safetensors does not exist")


def test_a_folder_is_refused(tmp_path):
    fails(tmp_path, "is a folder")


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "empty.safetensors"
    path.touch()
    fails(path, r"0 bytes")


@pytest.mark.parametrize("content", [b"abc", bytes(range(256)) * 4, b"\x02" + b"\0" * 7 + b"[]" + b"x" * 90])
def test_random_bytes_are_refused(tmp_path, content):
    path = tmp_path / "noise.safetensors"
    path.write_bytes(content)
    fails(path, rf"\({len(content)} bytes\) is not a safetensors file")


@pytest.mark.parametrize("change", [-100, 7])
def test_a_file_cut_short_or_grown_says_both_sizes(small_bundle, tmp_path, change):
    data = small_bundle.read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(data[:change] if change < 0 else data + b"\0" * change)
    fails(path, rf"has {len(data) + change} bytes but its header promises {len(data)}")


def test_a_file_cut_inside_its_header_is_refused(small_bundle, tmp_path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(small_bundle.read_bytes()[:500])
    fails(path, r"\(500 bytes\) is not a safetensors file")


# Safetensors that are no bundle of ours, or not a whole one.


def test_a_foreign_safetensors_is_refused_with_its_tensor_count(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(2), "b": torch.zeros(3)}, path)
    fails(path, "has 2 tensors but no Think-Before-Draw header")


def test_another_format_version_is_refused(write):
    fails(write(about={"format": 9}), "has bundle format 9; this version reads 1")


@pytest.mark.parametrize("entry", ["{broken", "[1]", "7"])
def test_an_unreadable_entry_is_refused(write, entry):
    fails(write(entry=entry), "unreadable Think-Before-Draw header")


def test_a_description_that_cannot_be_built_is_refused(write, bundle):
    config = bundle[1]["config"]
    fails(write(about={"config": {}}), "describes no model that can be built .*preset")
    widths = {**config["unet"], "block_out_channels": [20, 20, 33, 20]}
    fails(write(about={"config": {**config, "unet": widths}}), r"width 33 is not a multiple of norm_num_groups \(4\)")
    fails(write(about={"config": {**config, "unet": {**config["unet"], "wings": 2}}}), "wings")


def test_a_missing_key_is_counted(write):
    fails(write({KEY: None}), "denoising_unet lacks 1 keys, has 0 unknown and 0 of another shape")


def test_an_unknown_key_is_counted(write):
    fails(write({"vae.wings": torch.zeros(1)}), "vae lacks 0 keys, has 1 unknown and 0 of another shape")


def test_another_shape_is_counted(write):
    fails(write({KEY: torch.zeros(32, 4, 1, 1)}), "denoising_unet lacks 0 keys, has 0 unknown and 1 of another shape")


# One network at a time.


def test_a_filled_network_is_the_one_that_load_gives(small_bundle, loaded, small_config):
    with shapes_alone():
        fresh = build(small_config)
    for (prefix, whole), (_, module) in zip(loaded.items(), fresh.items(), strict=True):
        store.fill(small_bundle, prefix, module, torch.float32)
        assert not module.training and not any(p.requires_grad for p in module.parameters()), prefix
        expected, got = dict(whole.named_parameters()), dict(module.named_parameters())
        expected |= dict(whole.named_buffers())
        got |= dict(module.named_buffers())  # also those that no file holds
        assert expected.keys() == got.keys()
        assert all(torch.equal(value, got[key]) and value.dtype == got[key].dtype for key, value in expected.items())


def test_a_network_is_filled_with_the_stored_type_or_the_one_asked_for(small_bundle, small_config):
    for dtype, expected in ((None, torch.float16), (torch.bfloat16, torch.bfloat16)):
        with shapes_alone():
            module = build(small_config).audioproj
        store.fill(small_bundle, "audioproj", module, dtype)
        assert {p.dtype for p in module.parameters()} == {expected}


def test_only_the_network_asked_for_is_read(small_bundle, bundle, monkeypatch):
    import safetensors

    opened, keys = safetensors.safe_open, []

    class Watched:
        def __init__(self, *arguments, **options):
            self.file = opened(*arguments, **options)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def keys(self):
            return self.file.keys()

        def get_tensor(self, key):
            keys.append(key)
            return self.file.get_tensor(key)

    monkeypatch.setattr(safetensors, "safe_open", Watched)
    state = store.read(small_bundle, "audioproj")
    assert set(keys) == {key for key in bundle[0] if key.startswith("audioproj.")} == {f"audioproj.{k}" for k in state}


def test_a_child_with_a_prefix_of_its_own_is_filled_beside(small_bundle, loaded, small_config):
    with shapes_alone():
        fresh = build(small_config)
        module = fresh.denoising_unet
        module.audioproj = fresh.audioproj
    with pytest.raises(InputError, match=f"denoising_unet lacks {len(fresh.audioproj.state_dict())} keys, has 0"):
        store.fill(small_bundle, "denoising_unet", module)
    store.fill(small_bundle, "denoising_unet", module, torch.float32, beside=("audioproj",))
    expected = loaded.audioproj.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in module.audioproj.state_dict().items())


def test_a_network_is_made_without_memory_for_what_the_file_holds(small_bundle, loaded, small_config):
    places = []

    def make():
        networks = build(small_config)
        places.append({parameter.device.type for parameter in networks.vae.parameters()})
        return networks.vae

    vae = store.make(small_bundle, "vae", torch.bfloat16, make)
    expected = loaded.vae.state_dict()
    assert places == [{"meta"}]
    assert all(torch.equal(value, expected[key].bfloat16()) for key, value in vae.state_dict().items())
    assert vae.encoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


def test_another_header_size_or_time_is_another_identity(small_bundle, tmp_path):
    path = tmp_path / "copy.safetensors"
    path.write_bytes(small_bundle.read_bytes())
    os.utime(path, ns=(1, 1))
    header = json.dumps(store.read_header(path)).encode()
    assert store.identity(path) == [hashlib.sha256(header).hexdigest(), path.stat().st_size, 1]
    os.utime(path, ns=(1, 2))
    assert store.identity(path)[2] == 2


def test_what_cannot_be_read_is_said(tmp_path, small_bundle):
    with pytest.raises(InputError, match=r"gone\.safetensors is damaged"):
        store.read(tmp_path / "gone.safetensors", "vae")
    path = tmp_path / "cut.safetensors"
    path.write_bytes(small_bundle.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"cut\.safetensors is damaged"):
        store.read(path, "vae")


# Writing.


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_nothing_and_keeps_the_old_file(small_config, tmp_path, monkeypatch, error):
    def half(tensors, filename, metadata=None):
        with open(filename, "wb") as file:
            file.write(b"half")
        raise error

    path = tmp_path / "net.safetensors"
    path.write_bytes(b"old")
    monkeypatch.setattr("safetensors.torch.save_file", half)
    kind = InputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(kind) as caught:
        store.save(path, build(small_config), small_config, {}, torch.float16)
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b"old"
    if kind is InputError:
        assert re.fullmatch(
            r".*net\.safetensors could not be written \(No space .*\); free some space.*", str(caught.value)
        )


def test_a_folder_that_is_not_there_is_said(small_config, tmp_path):
    with pytest.raises(InputError, match="could not be written .*No such file"):
        store.save(tmp_path / "no" / "net.safetensors", build(small_config), small_config, {}, torch.float16)


@pytest.mark.parametrize(
    ("changed", "said"), [({"context": "face"}, "context face"), ({"audio": "hierarchical"}, "audio hierarchical")]
)
def test_a_bundle_of_hallos_weights_can_be_described_and_not_trained_or_judged(small_config, tmp_path, changed, said):
    path = tmp_path / "hallo.safetensors"
    config = replace(small_config, unet=replace(small_config.unet, **changed))
    store.save(path, SimpleNamespace(items=list), config, {"name": "hallo"}, torch.float16)
    assert store.read_config(path) == config
    with pytest.raises(
        InputError, match=rf"face masks \(.*{said}.*neither training nor evaluation do; choose a bundle"
    ):
        store.read_drawable(path)
