"""Every layout of the public files gives the same bundle, at any width and in little memory."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.multiprocessing.reductions import StorageWeakRef

from tbd_core.checkpoint import convert as module
from tbd_core.checkpoint import plan as planning
from tbd_core.checkpoint import sources
from tbd_core.checkpoint.convert import convert
from tbd_core.checkpoint.plan import plan
from tbd_core.checkpoint.recipe import load_recipe
from tbd_core.config import replace, sd15
from tbd_core.models.unet import UNet


# The same weights in other layouts.


def test_a_sharded_folder_of_pickles_gives_the_same_bundle(again, world, public, tmp_path):
    folder = public.diffusers_folder(tmp_path / "sd", world.parts, safe_serialization=False, max_shard_size="200KB")
    (folder / "text_encoder" / "model.safetensors").unlink()
    torch.save(world.parts["text_encoder"].state_dict(), folder / "text_encoder" / "pytorch_model.bin")
    assert len(list((folder / "unet").glob("*.bin"))) > 1
    again("paper-init", sd=folder)


def test_a_folder_of_the_fp16_variant_alone_serves(again, world, public, tmp_path):
    again("paper-init", sd=public.diffusers_folder(tmp_path / "sd", world.parts), vae=None)
    folder = tmp_path / "sd" / "vae"
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "diffusion_pytorch_model.fp16.safetensors")
    report = again("paper-init", sd=tmp_path / "sd", vae=None)
    assert report.warnings[0] == "source vae was not given; it is taken from sd"


@pytest.mark.parametrize("form", ["safetensors", "ckpt", "legacy"])
def test_a_single_file_gives_the_same_bundle(again, world, public, tmp_path, form):
    tensors = {key: value.contiguous() for key, value in public.ldm(world.parts).items()}
    path = tmp_path / f"v1-5-pruned-emaonly.{'safetensors' if form == 'safetensors' else 'ckpt'}"
    if form == "safetensors":
        save_file(tensors, path)
    elif form == "ckpt":
        public.lightning(path, tensors)
    else:
        torch.save({"state_dict": tensors}, path, _use_new_zipfile_serialization=False)
    report = again("paper-init", sd=path, vae=None)
    told = report.sources["sd"]
    assert told.is_a == "an SD 1.x checkpoint" and set(told.layouts.values()) == {"single file"}
    assert told.unexpected == [] and "alphas_cumprod" in told.not_needed


@pytest.mark.parametrize("form", ["folder", "new names", "single file", "single file, bare"])
def test_every_form_of_the_vae_gives_the_same_bundle(again, world, public, tmp_path, form, under):
    if form == "folder":
        world.parts["vae"].save_pretrained(tmp_path / "vae")
        again("paper-init", vae=tmp_path / "vae")
        return
    tensors = world.parts["vae"].state_dict()
    if form.startswith("single"):
        tensors = under(public.ldm(world.parts), "first_stage_model.")
        tensors = tensors if "bare" in form else {f"first_stage_model.{key}": value for key, value in tensors.items()}
    save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / "vae.safetensors")
    again("paper-init", vae=tmp_path / "vae.safetensors")


@pytest.mark.parametrize("form", ["module.", "state_dict", "both", "MotionAdapter"])
def test_every_form_of_the_motion_module_gives_the_same_bundle(again, world, tmp_path, form, motion_adapter):
    tensors = torch.load(world.files["motion"], weights_only=True)
    path = tmp_path / "mm.ckpt"
    if form == "MotionAdapter":
        path = motion_adapter(tensors, world.config, tmp_path / "adapter")
    elif form == "state_dict":
        torch.save({"epoch": 1, "state_dict": tensors}, path)
    else:
        tensors = {f"module.{key}": value for key, value in tensors.items()}
        torch.save({"state_dict": tensors} if form == "both" else tensors, path)
    again("paper-init", motion=path)


@pytest.mark.parametrize("form", ["weight_g", "bare", "pickle"])
def test_every_form_of_wav2vec2_gives_the_same_bundle(again, world, public, tmp_path, form):
    tensors = world.listener.state_dict()
    if form == "bare":
        tensors = world.listener.wav2vec2.state_dict()
    elif form == "weight_g":
        tensors = public.weight_norm_names(tensors)
    path = tmp_path / ("pytorch_model.bin" if form == "pickle" else "wav2vec2.safetensors")
    torch.save(tensors, path) if form == "pickle" else save_file(dict(tensors), path)
    again("paper-init", wav2vec2=path)


def test_a_folder_of_hallo_s_parts_gives_the_same_bundle(again, world, tmp_path, under):
    for part in ("reference_unet", "denoising_unet", "face_locator", "imageproj", "audioproj"):
        torch.save(under(world.net_pth, f"{part}."), tmp_path / f"{part}-30000.pth")
    torch.save({"old": torch.zeros(1)}, tmp_path / "audioproj-500.pth")
    again("hallo-compat", hallo=tmp_path)


# Full width, without memory.


class Listed(sources.Source):
    """A source of names and shapes alone."""

    def __init__(self, name: str, shapes: dict):
        self.name, self.path, self.configs, self.files = name, Path(name), {}, []
        self.entries = {key: sources.Entry(tuple(shape), None, key) for key, shape in shapes.items()}


@pytest.mark.parametrize("name", ["paper-init", "hallo-compat", "hallo-text"])
def test_at_full_width_every_key_of_the_public_files_fits(public, root, name, under):
    recipe = load_recipe(name)
    with torch.device("meta"):
        parts = {"unet": UNet(replace(sd15().unet, audio="none", motion=False))}
        nets = planning.networks_of(sd15())
        parts |= {"vae": nets["vae"], "text_encoder": nets["text_encoder"]}
        single = {key: tuple(value.shape) for key, value in public.ldm(parts).items()}
    net_pth = public.hallo_names(root)
    listed = {
        "sd": Listed("sd", single),
        "vae": Listed("vae", {key: value.shape for key, value in public.old_vae(parts).items()}),
        "motion": Listed("motion", {k: v for k, v in under(net_pth, "denoising_unet.").items() if "motion_mod" in k}),
        "wav2vec2": Listed("wav2vec2", {k: v.shape for k, v in nets["audio_encoder"].state_dict().items()}),
        "hallo": Listed("hallo", net_pth),
    }
    listed["text"] = listed["sd"]
    assert len(net_pth) == 2656 and len(listed["motion"].entries) == 588
    made = plan(recipe, {source: listed[source] for source in recipe.sources})
    assert made.missing == ()
    built = planning.networks_of(recipe.config)
    expected = {f"{p}.{key}": tuple(v.shape) for p, net in built.items() for key, v in net.state_dict().items()}
    assert {step.key: step.shape for step in made.steps} == expected
    report = module.tell(made, Path("x.safetensors"), [])
    assert all(source.unexpected == [] for source in report.sources.values())
    dead = report.sources["motion" if name == "paper-init" else "hallo"].dead
    assert len(dead) == 140
    assert 2 * sum(torch.Size(shape).numel() for shape in expected.values()) == report.bytes > 4e9


# Memory.


def test_one_source_tensor_is_in_memory_at_once(world, tmp_path, monkeypatch):
    alive, most, largest = [], 0, 0
    read = sources.SafetensorsFile.read

    def counted(self, key):
        nonlocal most, largest
        value = read(self, key)
        size = value.untyped_storage().nbytes()
        alive[:] = [(ref, n) for ref, n in alive if not ref.expired()] + [
            (StorageWeakRef(value.untyped_storage()), size)
        ]
        most, largest = max(most, sum(n for _, n in alive)), max(largest, size)
        return value

    monkeypatch.setattr(sources.SafetensorsFile, "read", counted)
    convert(world.recipe("paper-init"), world.given("paper-init"), tmp_path / "x.safetensors", "fp32")
    assert largest == 49408 * 16 * 4  # the words' table
    assert most <= 1.3 * largest


def test_pickles_are_mapped_and_only_tensors_are_read(world, tmp_path, monkeypatch):
    load, asked = torch.load, []

    def watched(path, **options):
        asked.append(options)
        return load(path, **options)

    monkeypatch.setattr(torch, "load", watched)
    convert(world.recipe("paper-init"), world.given("paper-init"), tmp_path / "x.safetensors", dry_run=True)
    assert asked == [{"map_location": "cpu", "weights_only": True, "mmap": True}]
    assert list(tmp_path.iterdir()) == []
