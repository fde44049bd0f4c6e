"""Public files in, one bundle out: what is in it, and where each tensor comes from."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from tbd_core.checkpoint import key_maps, store
from tbd_core.checkpoint.convert import convert
from tbd_core.checkpoint.fresh import fresh, how
from tbd_core.checkpoint.plan import networks_of
from tbd_core.config import replace
from tbd_core.models.attention import Context
from tbd_core.models.build import build_unets
from tbd_core.models.unet import UNet


# The tables, against diffusers' own conversion.


def test_the_unet_table_is_the_inverse_of_diffusers_conversion(world, same):
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    own = world.parts["unet"].state_dict()
    renamed = {f"model.diffusion_model.{key_maps.ldm_unet(key)}": value for key, value in own.items()}
    same(convert_ldm_unet_checkpoint(renamed, dict(world.parts["unet"].config)), own)


def test_the_vae_table_is_the_inverse_of_diffusers_conversion(world, public, same):
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    own = world.parts["vae"].state_dict()
    single = {key: value for key, value in public.ldm(world.parts).items() if key.startswith("first_stage_model.")}
    assert single["first_stage_model.encoder.mid.attn_1.q.weight"].ndim == 4
    same(convert_ldm_vae_checkpoint(single, dict(world.parts["vae"].config)), own)


def test_old_attention_names_are_those_that_diffusers_still_loads(world, public, tmp_path, same):
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


def test_paper_init_takes_every_tensor_from_its_source(world, bundle, same, under):
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


def test_a_converted_bundle_loads_and_says_where_it_comes_from(world, bundle, same):
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


def test_hallo_compat_takes_all_of_net_pth_but_what_never_runs(world, bundle, same):
    report, path, tensors = bundle("hallo-compat")
    hallo = report.sources["hallo"]
    assert len(hallo.dead) == 140 and hallo.unexpected == hallo.not_needed == [] and report.fresh == {}
    taken = {key: value for key, value in world.net_pth.items() if key not in hallo.dead}
    ours = ("vae.", "text_encoder.", "audio_encoder.")
    same({key: value for key, value in tensors.items() if not key.startswith(ours)}, taken)
    assert {"imageproj.proj.weight", "face_locator.conv_out.bias"} <= tensors.keys()
    assert store.load(path)[1].unet.context == "face"


def test_hallo_text_sets_sd_s_text_attention_beside_hallo_s(world, bundle, same):
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
def test_floats_are_stored_rounded_to_the_type_asked_for(world, bundle, tmp_path, dtype, stored, same):
    path = tmp_path / "x.safetensors"
    convert(world.recipe("paper-init"), world.given("paper-init"), path, dtype, seed=3)
    expected = bundle("paper-init")[2]
    same(load_file(path), {key: value.to(getattr(torch, stored)) for key, value in expected.items()})


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
