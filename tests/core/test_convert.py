"""Public files in, one bundle out: every layout gives the same bundle, and every wrong file is told apart."""

import importlib.util
import json
import os
import re
import shutil
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.multiprocessing.reductions import StorageWeakRef

from tbd_core.checkpoint import convert as module
from tbd_core.checkpoint import key_maps, sources, store
from tbd_core.checkpoint.convert import convert
from tbd_core.checkpoint.fresh import fresh, how
from tbd_core.checkpoint.plan import networks_of, plan
from tbd_core.checkpoint.recipe import load_recipe, read_recipe
from tbd_core.cli import main
from tbd_core.config import replace, sd15
from tbd_core.errors import InputError
from tbd_core.models.attention import Context
from tbd_core.models.build import build_unets
from tbd_core.models.unet import UNet


@pytest.fixture(scope="module", autouse=True)
def built_once():
    """The networks on the meta device, which `plan` only reads, are built once for each configuration."""
    from tbd_core.checkpoint import plan as planning

    build, made = planning.networks_of, {}

    def networks(config):
        key = json.dumps(config.to_dict(), sort_keys=True)
        if key not in made:
            made[key] = build(config)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "networks_of", networks)
        yield


@pytest.fixture(scope="module")
def public(root):
    """`public_files.py` as a module."""
    spec = importlib.util.spec_from_file_location("public_files", root / "tests" / "core" / "public_files.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def world(public, root, small_config, tmp_path_factory):
    """Every public file at small width, its tensors, and the recipes at that width."""
    folder = tmp_path_factory.mktemp("public")
    # Widths that grow as SD 1.5's do: a ResNet then has a shortcut where SD 1.5's has one.
    small = replace(
        small_config,
        unet=replace(small_config.unet, block_out_channels=(32, 48, 64, 64)),
        vae=small_config.vae | {"block_out_channels": [8, 16, 24, 24], "layers_per_block": 2},
    )
    parts = public.sd(small)
    net_pth = public.hallo(small, list(public.hallo_names(root)))
    listener = public.wav2vec2(small)
    files = {
        "sd": public.diffusers_folder(folder / "sd15", parts),
        "vae": folder / "vae-ft-mse.safetensors",
        "motion": folder / "mm_sd_v15_v2.ckpt",
        "wav2vec2": folder / "wav2vec2",
        "hallo": folder / "net.pth",
    }
    save_file(public.old_vae(parts), files["vae"])
    torch.save(public.motion(net_pth), files["motion"])
    torch.save(net_pth, files["hallo"])
    listener.save_pretrained(files["wav2vec2"])

    def recipe(name: str):
        made = load_recipe(name)
        unet = replace(small.unet, audio=made.config.unet.audio, context=made.config.unet.context)
        return replace(made, config=replace(small, unet=unet))

    def given(name: str, **change) -> dict:
        chosen = {key: files["sd"] if key == "text" else files[key] for key in recipe(name).sources}
        return {key: value for key, value in (chosen | change).items() if value is not None}

    return SimpleNamespace(
        parts=parts, net_pth=net_pth, listener=listener, files=files, recipe=recipe, given=given, config=small
    )


@pytest.fixture(scope="module")
def bundle(world, tmp_path_factory):
    """`bundle(recipe)`: (its report, its path, its tensors), made once in fp32 so that nothing is rounded."""
    made = {}

    def make(name: str):
        if name not in made:
            path = tmp_path_factory.mktemp("made") / f"{name}.safetensors"
            report = convert(world.recipe(name), world.given(name), path, "fp32", seed=3)
            made[name] = (report, path, load_file(path))
        return made[name]

    return make


@pytest.fixture
def again(world, bundle, tmp_path):
    """Converts with other files in place of the usual; the bundle must come out the same."""

    def again(name: str, **change):
        path = tmp_path / "again.safetensors"
        report = convert(world.recipe(name), world.given(name, **change), path, "fp32", seed=3)
        same(load_file(path), bundle(name)[2])
        return report

    return again


@pytest.fixture
def refused(world, tmp_path):
    """Converts, which must fail with one line that matches, and leave nothing behind."""

    def refused(name: str, pattern: str, dtype: str = "fp32", **change) -> None:
        folder = tmp_path / "out"
        folder.mkdir(exist_ok=True)
        with pytest.raises(InputError, match=pattern) as caught:
            convert(world.recipe(name), world.given(name, **change), folder / "x.safetensors", dtype)
        assert "\n" not in str(caught.value)
        assert list(folder.iterdir()) == []

    return refused


def same(got: dict, expected: dict) -> None:
    assert got.keys() == expected.keys()
    differ = [key for key, value in got.items() if not torch.equal(value, expected[key])]
    assert differ == []


def under(tensors: dict, prefix: str) -> dict:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


# The tables, against diffusers' own conversion.


def test_the_unet_table_is_the_inverse_of_diffusers_conversion(world):
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    own = world.parts["unet"].state_dict()
    renamed = {f"model.diffusion_model.{key_maps.ldm_unet(key)}": value for key, value in own.items()}
    same(convert_ldm_unet_checkpoint(renamed, dict(world.parts["unet"].config)), own)


def test_the_vae_table_is_the_inverse_of_diffusers_conversion(world, public):
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    own = world.parts["vae"].state_dict()
    single = {key: value for key, value in public.ldm(world.parts).items() if key.startswith("first_stage_model.")}
    assert single["first_stage_model.encoder.mid.attn_1.q.weight"].ndim == 4
    same(convert_ldm_vae_checkpoint(single, dict(world.parts["vae"].config)), own)


def test_old_attention_names_are_those_that_diffusers_still_loads(world, public, tmp_path):
    from diffusers import AutoencoderKL

    world.parts["vae"].save_config(tmp_path)
    save_file(public.old_vae(world.parts), tmp_path / "diffusion_pytorch_model.safetensors")
    same(AutoencoderKL.from_pretrained(tmp_path).state_dict(), world.parts["vae"].state_dict())


def test_the_text_names_are_those_of_diffusers_conversion(world, public):
    from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint

    found = convert_ldm_clip_checkpoint(public.ldm(world.parts))
    own = {key.removeprefix("text_model.") for key in world.parts["text_encoder"].state_dict()}
    assert {key.removeprefix("text_model.") for key in found} - {"embeddings.position_ids"} == own


# What is in a bundle.


def test_paper_init_takes_every_tensor_from_its_source(world, bundle):
    report, _, tensors = bundle("paper-init")
    same(under(tensors, "vae."), world.parts["vae"].state_dict())
    same(under(tensors, "text_encoder."), world.parts["text_encoder"].state_dict())
    same(under(tensors, "audio_encoder."), world.listener.wav2vec2.state_dict())
    unet = world.parts["unet"].state_dict()
    same(
        under(tensors, "reference_unet."),
        {k: v for k, v in unet.items() if not k.startswith(("conv_norm_out", "conv_out"))},
    )
    denoiser = under(tensors, "denoising_unet.")
    same({key: value for key, value in denoiser.items() if "_modules." not in key}, unet)
    motion = {key: value for key, value in denoiser.items() if ".motion_modules." in key}
    published = torch.load(world.files["motion"], weights_only=True)
    same(motion, {k: v for k, v in published.items() if not k.startswith(("down_blocks.3.", "up_blocks.0."))})
    assert all(".audio_modules." in key or key.startswith("audioproj.") for key in report.fresh)
    assert report.tensors == len(tensors) == sum(len(s.taken) for s in report.sources.values()) + len(report.fresh)


def test_a_converted_bundle_loads_and_says_where_it_comes_from(world, bundle):
    report, path, _ = bundle("paper-init")
    networks, config = store.load(path)
    assert config == world.recipe("paper-init").config
    same(networks.vae.state_dict(), world.parts["vae"].state_dict())
    told = store.read_about(path)["converted"]
    assert told["recipe"] == "paper-init" and told["dtype"] == "fp32"
    assert told["sources"]["motion"] == {
        "is": "a motion module",
        "layouts": {"animatediff": "AnimateDiff"},
        "taken": 448,
        "dead": 140,
        "not_needed": 0,
        "unexpected": 0,
    }
    assert told["missing"] == 0
    assert told["fresh"]["audioproj, random, seed 3"] == 8
    assert os.fspath(path.parent) not in json.dumps(told)
    assert path.stat().st_size > report.bytes > 0.9 * path.stat().st_size


def test_at_first_the_new_network_draws_what_sd_draws(world, bundle):
    networks, _ = store.load(bundle("paper-init")[1])
    latents, text, sound = torch.randn(1, 4, 8, 8), torch.randn(1, 5, 16), torch.randn(1, 1, 4, 24)
    with torch.no_grad():
        expected = world.parts["unet"](latents, torch.tensor([501]), encoder_hidden_states=text).sample
        got = networks.denoising_unet(latents, torch.tensor([501]), Context(text=text, audio=sound))
    assert expected.std() > 0.01 and torch.allclose(got, expected, atol=1e-4)


def test_hallo_compat_takes_all_of_net_pth_but_what_never_runs(world, bundle):
    report, path, tensors = bundle("hallo-compat")
    hallo = report.sources["hallo"]
    assert len(hallo.dead) == 140 and hallo.unexpected == hallo.not_needed == [] and report.fresh == {}
    taken = {key: value for key, value in world.net_pth.items() if key not in hallo.dead}
    ours = ("vae.", "text_encoder.", "audio_encoder.")
    same({key: value for key, value in tensors.items() if not key.startswith(ours)}, taken)
    assert {"imageproj.proj.weight", "face_locator.conv_out.bias"} <= tensors.keys()
    assert store.load(path)[1].unet.context == "face"


def test_hallo_text_sets_sd_s_text_attention_beside_hallo_s(world, bundle):
    _, path, tensors = bundle("hallo-text")
    compat, unet = bundle("hallo-compat")[2], world.parts["unet"].state_dict()
    beside = {key: value for key, value in tensors.items() if "_text." in key}
    same({key: value for key, value in tensors.items() if key not in beside}, compat)
    assert len(beside) == 16 * 7  # q, k, v, out and the norm's two, and out's bias
    for key, value in beside.items():
        theirs = key.removeprefix("denoising_unet.").replace("attn2_text", "attn2").replace("norm2_text", "norm2")
        assert torch.equal(value, unet[theirs])
    assert store.load(path)[1].unet.context == "both"


@torch.no_grad()
def test_words_at_strength_0_change_nothing_and_grow_with_it(fill, small_config):
    both = fill(UNet(replace(small_config.unet, context="both", audio="none", motion=False)))
    plain = UNet(replace(small_config.unet, context="face", audio="none", motion=False)).eval()
    plain.load_state_dict({key: value for key, value in both.state_dict().items() if "_text." not in key})
    latents, time = torch.randn(1, 4, 8, 8), torch.tensor([501])
    face, words = torch.randn(1, 4, 16), torch.randn(1, 7, 16)
    expected = plain(latents, time, Context(text=face))
    for silent in (Context(text=face), Context(text=face, words=words, words_scale=0.0)):
        assert torch.equal(both(latents, time, silent), expected)
    far = [
        float((both(latents, time, Context(text=face, words=words, words_scale=scale)) - expected).abs().mean())
        for scale in (0.25, 1.0)
    ]
    assert 0 < far[0] < far[1]


def test_reference_net_hears_no_words(small_config):
    reference, denoiser = build_unets(replace(small_config, unet=replace(small_config.unet, context="both")))
    assert not any("_text." in key for key in reference.state_dict())
    assert sum("attn2_text.to_q" in key for key in denoiser.state_dict()) == 16


@pytest.mark.parametrize(("dtype", "stored"), [("fp16", "float16"), ("bf16", "bfloat16")])
def test_floats_are_stored_rounded_to_the_type_asked_for(world, bundle, tmp_path, dtype, stored):
    path = tmp_path / "x.safetensors"
    convert(world.recipe("paper-init"), world.given("paper-init"), path, dtype, seed=3)
    expected = bundle("paper-init")[2]
    same(load_file(path), {key: value.to(getattr(torch, stored)) for key, value in expected.items()})


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
def test_every_form_of_the_vae_gives_the_same_bundle(again, world, public, tmp_path, form):
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
def test_every_form_of_the_motion_module_gives_the_same_bundle(again, world, tmp_path, form):
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


def motion_adapter(tensors: dict, config, folder: Path) -> Path:
    """diffusers' own conversion of AnimateDiff's file, in diffusers' own folder."""
    from diffusers import MotionAdapter
    from diffusers.loaders.single_file_utils import convert_animatediff_checkpoint_to_diffusers

    adapter = MotionAdapter(
        block_out_channels=config.unet.block_out_channels,
        motion_num_attention_heads=config.unet.motion_num_heads,
        motion_norm_num_groups=config.unet.norm_num_groups,
    )
    lacks, strange = adapter.load_state_dict(convert_animatediff_checkpoint_to_diffusers(tensors), strict=False)
    assert strange == [] and all(key.endswith("pos_embed.pe") for key in lacks)  # it makes the same table itself
    adapter.save_pretrained(folder)
    return folder


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


def test_a_folder_of_hallo_s_parts_gives_the_same_bundle(again, world, tmp_path):
    for part in ("reference_unet", "denoising_unet", "face_locator", "imageproj", "audioproj"):
        torch.save(under(world.net_pth, f"{part}."), tmp_path / f"{part}-30000.pth")
    torch.save({"old": torch.zeros(1)}, tmp_path / "audioproj-500.pth")
    again("hallo-compat", hallo=tmp_path)


# What starts fresh.


def test_what_starts_at_zero_is_what_a_new_network_starts_at_zero(small_config, seed):
    _, denoiser = build_unets(small_config)
    zero = {key for key, value in denoiser.state_dict().items() if not value.any() and key.endswith("weight")}
    found = {key for key in denoiser.state_dict() if how(f"denoising_unet.{key}", 0) == "zero"}
    assert zero and zero == {key for key in found if key.endswith("weight")}


def test_fresh_tensors_follow_the_seed_and_their_own_name_alone(small_config):
    nets = networks_of(small_config)
    net, key = nets["audioproj"], "audioproj.proj2.weight"
    first = fresh(net, key, 0)
    torch.rand(7)
    assert torch.equal(fresh(net, key, 0), first) and first.std() > 0
    assert not torch.equal(fresh(net, key, 1), first)
    spread = fresh(net, "audioproj.proj2.bias", 0)
    assert spread.abs().max() <= 24**-0.5 < 1.5 * spread.abs().max()  # as torch's Linear starts
    assert torch.equal(fresh(net, "audioproj.norm.weight", 0), torch.ones(24))
    place = "denoising_unet.mid_block.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0"
    table = fresh(nets["denoising_unet"], f"{place}.pos_encoder.pe", 0)
    assert torch.equal(table, build_unets(small_config)[1].get_buffer(f"{place.partition('.')[2]}.pos_encoder.pe"))


# Full width, without memory.


class Listed(sources.Source):
    """A source of names and shapes alone."""

    def __init__(self, name: str, shapes: dict):
        self.name, self.path, self.configs, self.files = name, Path(name), {}, []
        self.entries = {key: sources.Entry(tuple(shape), None, key) for key, shape in shapes.items()}


@pytest.mark.parametrize("name", ["paper-init", "hallo-compat", "hallo-text"])
def test_at_full_width_every_key_of_the_public_files_fits(public, root, name):
    recipe = load_recipe(name)
    with torch.device("meta"):
        parts = {"unet": UNet(replace(sd15().unet, audio="none", motion=False))}
        nets = networks_of(sd15())
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
    built = networks_of(recipe.config)
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


# Wrong and mixed files.


def save(path: Path, tensors: dict) -> Path:
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    return path


def test_sdxl_is_refused_by_its_name(refused, world, public, tmp_path):
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(
        block_out_channels=(32, 32, 32), norm_num_groups=16, cross_attention_dim=48, attention_head_dim=(2, 4, 8),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), use_linear_projection=True,
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), addition_embed_type="text_time",
        transformer_layers_per_block=(1, 2, 3), addition_time_embed_dim=8, projection_class_embeddings_input_dim=64,
    )  # fmt: skip
    folder = public.diffusers_folder(tmp_path / "sdxl", world.parts | {"unet": unet})
    refused("paper-init", r"sdxl is SDXL: of \d+ keys for \*_unet\.\* it lacks \d+ \(first unet\.", sd=folder)
    # Its VAE has SD 1.5's names and shapes, and other latents.
    single = public.ldm(world.parts) | {"conditioner.embedders.0.transformer.text_model.x": torch.zeros(1)}
    path = save(tmp_path / "sd_xl_base.safetensors", single)
    refused("paper-init", r"sd_xl_base\.safetensors is SDXL: of \d+ keys for vae\.\* it has all names, but", vae=path)


def test_sd_2_1_is_refused_by_its_name(refused, world, public, tmp_path):
    wide = public.sd(replace(world.config, unet=replace(world.config.unet, cross_attention_dim=1024)))
    folder = public.diffusers_folder(tmp_path / "sd21", world.parts | {"unet": wide["unet"]})
    refused(
        "paper-init",
        r"sd21 is SD 2\.x: .*it has 64 of another shape \(first unet\.\S+attn2\.to_k\.weight \[32, 1024\], must be "
        r"\[32, 16\]\)",
        sd=folder,
    )
    tensors = {key.replace("transformer.text_model", "model"): value for key, value in public.ldm(world.parts).items()}
    refused("paper-init", r"is SD 2\.x: of \d+ keys for text_encoder", sd=save(tmp_path / "v2-1.safetensors", tensors))


def test_a_motion_module_without_mid_block_is_refused(refused, world, tmp_path):
    tensors = torch.load(world.files["motion"], weights_only=True)
    path = tmp_path / "v3_sd15_mm.ckpt"
    torch.save({key: value for key, value in tensors.items() if not key.startswith("mid_block")}, path)
    refused(
        "paper-init",
        r"v3_sd15_mm\.ckpt is AnimateDiff's v1 or v3 motion module \(no mid_block\): of 448 keys for "
        r"denoising_unet\.\*\.motion_modules\.\* it lacks 28 \(first mid_block\..*give mm_sd_v15_v2\.ckpt",
        motion=path,
    )


def test_another_project_s_net_pth_is_refused_with_counts(refused, world, tmp_path):
    path = tmp_path / "net.pth"
    torch.save({f"generator.conv{i}.weight": torch.zeros(3, 3) for i in range(9)}, path)
    refused("hallo-compat", r"net\.pth is of no known kind: of 2516 keys for \* it lacks 2516 \(first ", hallo=path)
    unets = {k: v for k, v in world.net_pth.items() if "_unet." in k and ".audio_modules." not in k}
    torch.save(unets, path)
    refused("hallo-compat", r"is a portrait animation's network: of 2516 keys for \* it lacks 700 \(", hallo=path)


def test_swapped_sources_are_told_by_what_they_are(refused, world):
    refused("paper-init", r"net\.pth is Hallo's net\.pth: .* lacks 448 .*; give mm_sd", motion=world.files["hallo"])
    refused("paper-init", r"wav2vec2 is a wav2vec2: of \d+ keys for vae", vae=world.files["wav2vec2"])


def test_a_folder_whose_config_tells_of_another_network_is_refused(refused, world, public, tmp_path):
    folder = public.diffusers_folder(tmp_path / "sd", world.parts)
    config = json.loads((folder / "vae" / "config.json").read_text())
    (folder / "vae" / "config.json").write_text(json.dumps(config | {"scaling_factor": 0.13025}))
    refused("paper-init", r"sd: its config\.json says scaling_factor 0\.13025 \(must be 0\.5\)", sd=folder, vae=None)


def test_keys_that_fit_nothing_are_told(again, world, tmp_path):
    path = tmp_path / "net.pth"
    torch.save(world.net_pth | {"denoising_unet.wings.weight": torch.zeros(2), "lip_net.x": torch.zeros(2)}, path)
    report = again("hallo-compat", hallo=path)
    assert report.sources["hallo"].unexpected == ["denoising_unet.wings.weight", "lip_net.x"]
    assert "source hallo has 2 keys that fit nothing known; they are left out" in report.warnings


def test_a_wav2vec2_without_its_training_mask_serves_and_says_so(world, tmp_path):
    tensors = dict(world.listener.state_dict())
    del tensors["wav2vec2.masked_spec_embed"]
    given = world.given("paper-init", wav2vec2=save(tmp_path / "w.safetensors", tensors))
    report = convert(world.recipe("paper-init"), given, tmp_path / "x.safetensors")
    assert report.missing == ["audio_encoder.masked_spec_embed"]
    assert report.fresh["audio_encoder.masked_spec_embed"] == "zero"


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
def test_values_that_are_no_numbers_are_refused_with_their_count(refused, world, public, tmp_path, bad):
    tensors = public.old_vae(world.parts)
    tensors["decoder.conv_out.weight"].flatten()[:3] = bad
    count = tensors["decoder.conv_out.weight"].numel()
    path = save(tmp_path / "vae.safetensors", tensors)
    refused("paper-init", rf"decoder\.conv_out\.weight has 3 of {count} values that are NaN or infinite", vae=path)


def test_values_too_large_for_fp16_are_refused_and_fit_in_bf16(refused, world, public, tmp_path):
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
        convert(world.recipe("paper-init"), world.given("paper-init"), path)
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b"old"
    if isinstance(error, OSError):
        assert re.search(r"x\.safetensors could not be written \(No space left on device\)", str(caught.value))


# Recipes.


TABLE = dict(name="r", preset="sd15", sources={"sd": "SD"}, parts=[dict(to="*", source="sd", take="sd-unet")])


def test_all_faults_of_a_recipe_come_at_once():
    table = TABLE | dict(
        colour="red",
        config={"unet": {"wings": 2}, "nest": {}},
        sources={"sd": {"about": "SD", "form": 1}, "vae": {"instead": "sky"}},
        parts=[dict(to="*", source="sea", take="sd-unet", form=1), dict(to="*", source="sd", take="sd"), {}],
    )
    with pytest.raises(InputError) as caught:
        read_recipe(table, "r.toml")
    for fault in (
        "recipe r.toml has 9 faults: unknown key colour (known are about, config, name, parts, preset, sources); ",
        "unknown key sources.sd.form", "sources.vae.instead is 'sky'", "unknown key parts[1].form",
        "parts[1].source is 'sea'; choose one of sd, vae", "parts[2].take is 'sd'; choose one of sd-unet",
        "parts[3] has no `to`", "unknown key config.unet.wings", "unknown table config.nest",
    ):  # fmt: skip
        assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (dict(preset="huge"), "preset is 'huge'; choose one of tiny, sd15"),
        (dict(config={"unet": {"context": "song"}}), "context is 'song'; choose text, face or both"),
        (dict(parts=[dict(to="*", start="warm")]), 'start is "fresh" alone'),
        (
            dict(parts=[dict(to="*", source="sd", take="sd-unet", missing="?")]),
            "missing is '?'; choose refuse or fresh",
        ),
        (dict(sources=[]), "sources is missing or not a table"),
    ],
)
def test_a_wrong_recipe_is_told(change, fault):
    with pytest.raises(InputError, match=re.escape(fault)):
        read_recipe(TABLE | change, "r.toml")


def test_a_recipe_must_cover_every_key_and_each_part_some(world):
    recipe = world.recipe("paper-init")
    kept = tuple(part for part in recipe.parts if part.to != "audioproj.*")
    with pytest.raises(InputError, match=r"says of 8 keys not where from \(audioproj\.proj1\.weight …\)"):
        convert(replace(recipe, parts=kept), world.given("paper-init"), "x.safetensors", dry_run=True)
    idle = replace(recipe, parts=(*recipe.parts, replace(recipe.parts[0], to="wings.*")))
    with pytest.raises(InputError, match=r"has parts that fit no key: wings\.\*"):
        convert(idle, world.given("paper-init"), "x.safetensors", dry_run=True)


def test_what_cannot_start_fresh_is_told(world):
    recipe = world.recipe("paper-init")
    parts = tuple(replace(part, source=None) if part.to == "audio_encoder.*" else part for part in recipe.parts)
    with pytest.raises(InputError, match=r"2 keys cannot start fresh \(audio_encoder\.\S+original0 …\); name a source"):
        convert(replace(recipe, parts=parts), world.given("paper-init"), "x.safetensors", dry_run=True)


def test_a_recipe_that_is_no_toml_or_unknown_is_told(tmp_path):
    (tmp_path / "r.toml").write_text("name = ")
    with pytest.raises(InputError, match=r"r\.toml is not TOML \(.+\); see the recipes in"):
        load_recipe(tmp_path / "r.toml")
    with pytest.raises(InputError, match="unknown recipe 'soup'; choose hallo-compat, hallo-text, paper-init"):
        load_recipe("soup")


def test_sources_and_numbers_are_checked_first(world):
    for given, pattern in (
        ({}, r"recipe paper-init lacks 4 of 4 sources; give --source sd=PATH \(SD 1\.5: "),
        ({"sd": "x"}, r"lacks 2 of 4 sources; give --source motion=PATH \(mm_sd_v15_v2\.ckpt of AnimateDiff\); --so"),
        ({"wings": "x"}, r"recipe paper-init has no source 'wings'; it has sd, vae, motion, wav2vec2"),
    ):
        with pytest.raises(InputError, match=pattern):
            convert("paper-init", given, "x.safetensors")
    with pytest.raises(InputError, match="unknown dtype 'fp8'; choose fp16, bf16, fp32"):
        convert("paper-init", {}, "x.safetensors", "fp8")
    with pytest.raises(InputError, match="seed is -1; give a whole number from 0 to 2147483647"):
        convert("paper-init", {}, "x.safetensors", seed=-1)
    with pytest.raises(InputError, match=r"ends in '\.pth'; give a name that ends in \.safetensors"):
        convert("paper-init", {}, "x.pth")


# A file that is there already.


def test_a_file_of_the_same_is_kept_or_renewed_as_asked_and_another_is_never_lost_unasked(world, tmp_path):
    output, recipe, given = tmp_path / "x.safetensors", world.recipe("paper-init"), world.given("paper-init")
    made = {key: convert(recipe, given, output, "fp32", seed, existing=key).outcome
            for key, seed in (("keep", 0), ("renew", 0), ("replace", 0))}  # fmt: skip
    assert made == {"keep": "written", "renew": "kept", "replace": "replaced"}
    before = output.read_bytes()
    with pytest.raises(
        InputError, match="x.safetensors is there already, and of other files or settings; give another"
    ):
        convert(recipe, given, output, "fp32", 1, existing="keep")
    assert output.read_bytes() == before
    assert convert(recipe, given, output, "fp32", 1, dry_run=True, existing="keep").outcome == "planned"
    assert convert(recipe, given, output, "fp32", 1, existing="renew").outcome == "replaced"
    assert output.read_bytes() != before
    output.write_bytes(b"another's")
    assert module.made_of(output) is None and list(tmp_path.iterdir()) == [output]


def test_what_was_converted_is_told_also_of_a_bundle_of_an_older_version():
    from tbd_core.checkpoint.report import origin

    old = {"recipe": "hallo-text", "dtype": "fp16", "sources": {"sd": {"is": None, "layouts": {}, "taken": 3}}}
    assert origin(old) == ["converted by recipe hallo-text as fp16", "  sd: of no known name; keys: 3 taken"]
    new = old | {"missing": 2, "fresh": {"audioproj, random": 8}}
    assert origin(new)[2:] == [
        "  started fresh: audioproj, random: 8 keys",
        "  missing from the sources, started fresh: 2 keys",
    ]


# The command line.


@pytest.fixture
def small_recipe(world, root, tmp_path):
    """paper-init at small width, as a file."""
    text = (root / "tbd_core" / "checkpoint" / "recipes" / "paper-init.toml").read_text(encoding="utf-8")
    values = world.config.to_dict()
    for name in ("unet", "audio_projection", "vae", "text_encoder", "audio_encoder"):
        lines = [f"{key} = {json.dumps(value)}" for key, value in values[name].items()]
        text += "\n".join([f"\n[config.{name}]", *lines]) + "\n"
    path = tmp_path / "small.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_command_writes_the_bundle_and_tells_what_it_took(capsys, world, small_recipe, tmp_path):
    given = [f"{name}={path}" for name, path in world.given("paper-init").items()]
    output = tmp_path / "new" / "tbd_small.safetensors"
    words = ["convert", str(small_recipe), "-o", str(output), *(word for pair in given for word in ("--source", pair))]
    assert main([*words, "--dry-run"]) == 0
    assert "not written (dry run)" in capsys.readouterr().out and not output.exists()
    assert main([*words, "--dtype", "bf16"]) == 0
    out = capsys.readouterr().out
    assert "dead (never run): 140 keys" in out and "starts fresh: audioproj, random, seed 0: 8 keys" in out
    assert "taken: denoising_unet 448" in out and "warning: audioproj, denoising_unet start at random in part" in out
    assert main(["info", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "paper-init"
    assert main(["info", str(output)]) == 0
    about = capsys.readouterr().out
    assert (
        "converted by recipe paper-init as bf16" in about and "motion: a motion module; keys: 448 taken, 140" in about
    )
    assert "started fresh: audioproj, random, seed 0: 8 keys" in about and "missing" not in about
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (
        told["outcome"] == "replaced"
        and told["written"]
        and told["sources"]["sd"]["taken"]["denoising_unet.conv_in.weight"] == "unet.conv_in.weight"
    )


def test_the_command_refuses_in_one_line(capsys):
    for words, said in (
        (["paper-init", "-o", "x.safetensors"], "lacks 4 of 4 sources"),
        (["paper-init", "-o", "x.safetensors", "--source", "sd"], "'sd' is not NAME=PATH"),
        (["paper-init", "-o", "x.safetensors", "--source", "a=b", "--source", "a=c"], "names a twice"),
        (["soup", "-o", "x.safetensors"], "unknown recipe 'soup'"),
    ):
        assert main(["convert", *words]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and said in captured.err and captured.err.count("\n") == 1
