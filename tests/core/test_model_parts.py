"""Laws of the networks' parts: motion modules, injected layers and attention, sizes."""

import math
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from tbd_core.config import UNetConfig, tiny
from tbd_core.models.attention import AudioMasks, Context, plain_attention
from tbd_core.models.audio_projection import AudioProjection, ImageProjection
from tbd_core.models.build import build, build_unets, build_vae
from tbd_core.models.face_locator import FaceLocator
from tbd_core.models.motion import MAX_FRAMES, MotionModule, PositionalEncoding
from tbd_core.models.unet import UNet


SMALL = UNetConfig((16, 32, 48, 64), 4, 8, 24, 20, audio="single", motion=True, motion_num_heads=2)
pytestmark = pytest.mark.usefixtures("seed", "no_grad")


# Motion modules.


def test_more_frames_than_positions_are_refused_with_the_numbers():
    module = MotionModule(16, 2, 8).eval()
    motion = {"here": torch.randn(1, 2, 4, 16)}
    ctx = Context(text=torch.empty(0), num_frames=30, motion=motion)
    assert module(torch.randn(30, 16, 2, 2), ctx, "here").shape == (30, 16, 2, 2)
    with pytest.raises(ValueError, match=f"33 frames at once; motion modules know {MAX_FRAMES} positions"):
        module(torch.randn(31, 16, 2, 2), replace(ctx, num_frames=31), "here")


def test_positions_are_sines_at_even_and_cosines_at_odd_channels():
    table = PositionalEncoding(8).pe
    assert table.shape == (1, 32, 8)
    angle = 5 * 10_000 ** -(4 / 8)  # position 5, channels 4 and 5 of 8
    assert table[0, 5, 4:6].tolist() == pytest.approx([math.sin(angle), math.cos(angle)], abs=1e-6)
    assert torch.equal(table[0, 0], torch.tensor([0.0, 1.0] * 4))


def test_positions_follow_the_frames_to_their_type_and_device():
    table = PositionalEncoding(8)  # on the CPU, as a loader leaves it that moves what has parameters only
    assert table(torch.zeros(2, 3, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16
    moved = table(torch.zeros(2, 3, 8, dtype=torch.float16, device="meta"))
    assert (moved.device.type, moved.dtype, moved.shape) == ("meta", torch.float16, (2, 3, 8))


def test_motion_frames_go_in_front_and_are_dropped_again(fill):
    # Without attention over time every frame must come out as it would alone: none shifted, none lost.
    module = fill(MotionModule(16, 2, 8))
    module.temporal_transformer.transformer_blocks[0] = nn.Identity()
    hidden, motion = torch.randn(6, 16, 2, 3), {"here": torch.randn(2, 2, 6, 16)}
    ctx = Context(text=torch.empty(0), num_frames=3, motion=motion)
    alone = Context(text=torch.empty(0))
    expected = torch.cat([module(frame[None], alone, "here") for frame in hidden])
    assert torch.allclose(module(hidden, ctx, "here"), expected, atol=1e-5)


def test_motion_modules_normalise_each_frame_by_itself():
    # diffusers' AnimateDiffTransformer3D normalises over all frames; then one loud frame would dim the others.
    module = MotionModule(16, 2, 8)
    seen = []
    module.temporal_transformer.norm.register_forward_hook(lambda _m, _a, out: seen.append(out))
    hidden = torch.randn(3, 16, 2, 2)
    loud = hidden * torch.tensor([1.0, 1.0, 100.0])[:, None, None, None]
    for x in (hidden, loud):
        module(x, Context(text=torch.empty(0), num_frames=3), "here")
    assert torch.equal(seen[0][:2], seen[1][:2])


# Injected layers and attention.


def counting_ops() -> tuple[SimpleNamespace, Counter]:
    made = Counter()

    def counted(kind):
        def __init__(self, *args, **kwargs):  # noqa: N807
            made[kind.__name__] += 1
            kind.__init__(self, *args, **kwargs)

        return type(kind.__name__, (kind,), {"__init__": __init__, "injected": True})

    kinds = (nn.Linear, nn.Conv2d, nn.LayerNorm, nn.GroupNorm)
    return SimpleNamespace(**{kind.__name__: counted(kind) for kind in kinds}), made


@pytest.mark.parametrize("audio", ["single", "hierarchical"])
def test_every_layer_with_weights_comes_from_the_injected_operations(small_config, audio):
    ops, made = counting_ops()
    config = replace(small_config, unet=replace(SMALL, audio=audio))
    modules = [*build_unets(config, ops), AudioProjection(config.audio_projection, ops)]
    modules += [ImageProjection(ops=ops), FaceLocator(ops=ops)]
    layers = [m for module in modules for m in module.modules() if list(m.parameters(recurse=False))]
    assert all(hasattr(layer, "injected") for layer in layers)
    assert len(layers) == made.total() and min(made.values()) > 50


@pytest.mark.parametrize(("audio", "per_layer"), [("single", 6), ("hierarchical", 8)])
def test_every_attention_is_the_injected_function(fill, audio, per_layer):
    calls = []

    def attend(query, key, value):
        calls.append(query.shape)
        return scaled_dot_product_attention(query, key, value)

    config = replace(SMALL, audio=audio)
    net, plain = fill(UNet(config, attend=attend), 2), fill(UNet(config), 2)
    masks = AudioMasks(*([torch.rand(2, 4 ** (3 - i)) for i in range(4)] for _ in range(3)))
    ctx = Context(text=torch.randn(1, 7, 24), num_frames=2, audio=torch.randn(1, 2, 4, 20), audio_masks=masks)
    latents, timestep = torch.randn(2, 4, 8, 8), torch.tensor([9])
    assert torch.equal(net(latents, timestep, ctx), plain(latents, timestep, ctx))
    # Each layer: reference, text, audio's own, audio (three branches in Hallo's form), time twice.
    assert len(calls) == per_layer * 16
    assert {shape[1] for shape in calls} == {SMALL.num_heads, SMALL.motion_num_heads}


# Configuration.


def test_all_problems_of_a_configuration_come_at_once():
    with pytest.raises(ValueError) as caught:
        UNetConfig((320, 333, 640), num_heads=8, norm_num_groups=32, audio="loud")
    multiples = ("333 is not a multiple of norm_num_groups (32)", "333 is not a multiple of num_heads (8)")
    for part in (*multiples, "has 3 widths", "'loud'"):
        assert part in str(caught.value)
    assert "320 is" not in str(caught.value)


def test_all_networks_of_the_tiny_preset_fit_40_mb_in_fp16():
    with torch.device("meta"):
        networks = build(tiny())
    counts = {name: sum(v.numel() for v in module.state_dict().values()) for name, module in networks.items()}
    megabytes = 2 * sum(counts.values()) / 1e6
    assert 10 < megabytes <= 39, f"{megabytes:.1f} MB: {counts}"


# The autoencoder.


def test_a_folded_autoencoder_with_three_channels_is_autoencoder_kl():
    from diffusers import AutoencoderKL

    from tbd_core.models.autoencoder import FoldedAutoencoderKL

    sizes = dict(
        block_out_channels=(16, 16), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=1, norm_num_groups=4,
    )  # fmt: skip
    folded, plain = FoldedAutoencoderKL(**sizes), AutoencoderKL(**sizes)
    plain.load_state_dict(folded.state_dict())
    picture = torch.randn(2, 3, 16, 16)
    latents = folded.encode(picture).latent_dist.mean
    assert folded.fold == 1 and torch.equal(latents, plain.encode(picture).latent_dist.mean)
    assert torch.equal(folded.decode(latents).sample, plain.decode(latents).sample)
    assert torch.equal(folded.decode(latents, return_dict=False)[0], folded.decode(latents).sample)


def test_the_tiny_autoencoder_has_a_latent_cell_for_eight_by_eight_pixels():
    vae = build_vae(tiny())
    assert vae.fold == 4
    latents = vae.encode(torch.randn(1, 3, 64, 32)).latent_dist.mean
    assert latents.shape == (1, 4, 8, 4) and vae.decode(latents).sample.shape == (1, 3, 64, 32)


@pytest.mark.parametrize("make", [tiny, None], ids=["folded", "plain"])
def test_a_fresh_second_look_changes_nothing_and_a_trained_one_only_the_mean(fill, small_config, make):
    vae, picture = build_vae(make() if make else small_config), torch.randn(2, 3, 64, 32).clamp(-1, 1)
    first = vae.first_look(picture)
    assert torch.equal(vae.encode(picture).latent_dist.mean, first.mean)
    fill(vae.second_look)
    drawn = vae.decode(first.mean).sample
    again, (same,) = vae.encode(picture).latent_dist, vae.encode(picture, return_dict=False)
    assert torch.equal(again.mean, first.mean + vae.second_look(picture, drawn, first.mean))
    assert torch.equal(same.mean, again.mean) and torch.equal(again.logvar, first.logvar)
    assert not torch.allclose(again.mean, first.mean, atol=1e-3)


def test_the_second_look_learns_from_what_the_decoder_made_and_not_through_it(small_config):
    vae = build_vae(small_config).requires_grad_(True)
    with torch.enable_grad():
        vae.look_again(torch.randn(1, 3, 16, 16), torch.randn(1, 4, 2, 2)).sum().backward()
    learnt = {name.split(".")[0] for name, p in vae.named_parameters() if p.grad is not None and p.grad.any()}
    assert learnt == {"second_look"}


def test_after_a_second_look_in_bf16_the_decoder_still_learns(small_config):
    vae = build_vae(small_config).requires_grad_(True)
    with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16):
        first = torch.randn(1, 4, 2, 2)
        added = vae.look_again(torch.randn(1, 3, 16, 16), first)
        vae.decode(first + added).sample.float().square().mean().backward()
    assert vae.decoder.conv_in.weight.grad.any() and vae.second_look.conv_out.weight.grad.any()


# Attention.


def test_plain_attention_is_the_fused_one():
    query, key, value = (torch.randn(2, 3, n, 8, dtype=torch.float64) for n in (5, 7, 7))
    assert torch.allclose(plain_attention(query, key, value), scaled_dot_product_attention(query, key, value))
