"""Laws of both U-Nets: what sees what, what changes nothing, and what is computed only once."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from tbd_core.config import UNetConfig
from tbd_core.models.attention import Attention, AudioMasks, Context, KVCache
from tbd_core.models.build import build_unets, reference_config
from tbd_core.models.unet import UNet


F, M, SIZE = 3, 2, (8, 8)
TEXT, AUDIO = 24, 20  # token widths
# Widths differ at every level, so that a wrong pairing cannot pass.
SMALL = UNetConfig((16, 32, 48, 64), 4, 8, TEXT, AUDIO, audio="single", motion=True, motion_num_heads=2)
pytestmark = pytest.mark.usefixtures("seed", "no_grad")


@pytest.fixture(scope="module")
def reference_net(fill):
    return fill(UNet(reference_config(SMALL), head=False), 1)


@pytest.fixture(scope="module")
def nets(fill):
    """The denoiser in each form, nothing in it zero."""
    forms = {
        "single": SMALL,
        "hierarchical": replace(SMALL, audio="hierarchical"),
        "no motion": replace(SMALL, motion=False),
        "plain": reference_config(SMALL),
    }
    return {name: fill(UNet(config), 2) for name, config in forms.items()}


def halves(size: tuple[int, int]) -> list[int]:
    """Cells at each of the four levels; a stride of 2 rounds up."""
    return [-(-size[0] // 2**i) * -(-size[1] // 2**i) for i in range(4)]


def inputs(reference_net: UNet, B: int = 1, frames: int = F, size=SIZE, **fields):
    """Random latents [B·F, C, h, w], timesteps and a full context: text, reference, motion frames, audio, masks."""
    text = torch.randn(B, 7, TEXT)
    seen = reference_net.features(torch.randn(B, 4, *size), text)
    before = reference_net.features(torch.randn(B * M, 4, *size), text.repeat_interleave(M, 0))
    masks = AudioMasks(*([torch.rand(frames, cells) for cells in halves(size)] for _ in range(3)))
    ctx = Context(
        text=text,
        num_frames=frames,
        reference=seen,
        motion={name: value.unflatten(0, (B, M)) for name, value in before.items()},
        audio=torch.randn(B, frames, 4, AUDIO),
        audio_masks=masks,
        audio_scale=(1.0, 0.8, 0.6),
    )
    return torch.randn(B * frames, 4, *size), torch.randint(1000, (B,)), replace(ctx, **fields)


def differ(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


# Shapes and precision.


@pytest.mark.parametrize("size", [(8, 12), (16, 4), (7, 11), (9, 1)])
@pytest.mark.parametrize("form", ["single", "hierarchical"])
def test_any_height_and_width_keeps_its_shape(nets, reference_net, form, size):
    latents, timestep, ctx = inputs(reference_net, size=size)
    out = nets[form](latents, timestep, ctx)
    assert out.shape == latents.shape and out.isfinite().all()


def test_reference_features_have_one_entry_for_every_attention_block(nets, reference_net):
    features = reference_net.features(torch.randn(2, 4, 8, 12), torch.randn(2, 7, TEXT))
    blocks = [f"{side}_blocks.{i}" for side, i in zip(["down"] * 3 + ["up"] * 3, [0, 1, 2, 1, 2, 3], strict=True)]
    names = {f"{b}.attentions.{j}" for b in blocks for j in range(2 if "down" in b else 3)} | {"mid_block.attentions.0"}
    assert features.keys() == names and len(names) == 16
    assert features["down_blocks.1.attentions.0"].shape == (2, 4 * 6, 32)
    assert features["mid_block.attentions.0"].shape == (2, 1 * 2, 64)
    own = [name for name, _ in nets["single"].named_modules() if ".attentions." in name]
    assert names == {name.split(".transformer_blocks")[0] for name in own if name.endswith(".norm1")}


def entering(fill) -> tuple[UNet, UNet]:
    """(ReferenceNet, denoiser) of the form that meets the portrait where latents come in, too."""
    config = replace(SMALL, reference_in=True)
    return fill(UNet(reference_config(config), head=False), 1), fill(UNet(config), 2)


@pytest.mark.parametrize(("layer", "value"), [("reference_in", True), ("reference_out", 1000)])
def test_a_denoiser_that_takes_the_portrait_in_or_gives_it_starts_as_one_without(small_config, layer, value):
    unet = replace(SMALL, **{layer: value})
    reference, denoiser = build_unets(replace(small_config, unet=unet))
    plain = UNet(SMALL)
    plain.load_state_dict({k: v for k, v in denoiser.state_dict().items() if not k.startswith(f"{layer}.")})
    assert len(denoiser.state_dict()) == len(plain.state_dict()) + 1 and getattr(reference, layer) is None
    latents, timestep, ctx = inputs(reference, B=2)
    assert differ(denoiser(latents, timestep, ctx), plain(latents, timestep, ctx)) == 0


def test_reference_in_adds_each_sample_s_portrait_to_all_its_frames(fill):
    reference, denoiser = entering(fill)
    latents, timestep, ctx = inputs(reference, B=2)
    features = ctx.reference
    assert features["conv_in"].shape == (2, SIZE[0] * SIZE[1], 16)
    changed = {**features, "conv_in": features["conv_in"] * torch.tensor([2.0, 1.0]).view(2, 1, 1)}
    apart = denoiser(latents, timestep, replace(ctx, reference=changed)) - denoiser(latents, timestep, ctx)
    moved = apart.abs().flatten(1).amax(1)
    assert (moved[:F] > 1e-3).all() and (moved[F:] == 0).all()


def test_without_a_reference_nothing_is_added(fill):
    reference, denoiser = entering(fill)
    latents, timestep, ctx = inputs(reference, reference=None)
    plain = UNet(SMALL)
    plain.load_state_dict({k: v for k, v in denoiser.state_dict().items() if not k.startswith("reference_in.")})
    assert differ(denoiser(latents, timestep, ctx), plain(latents, timestep, ctx)) == 0


def test_what_enters_is_the_first_convolution_of_the_portrait(fill):
    reference, _ = entering(fill)
    portrait = torch.randn(2, 4, 8, 12)
    entry = reference.features(portrait, torch.randn(2, 7, TEXT))["conv_in"]
    assert torch.equal(entry.transpose(1, 2).unflatten(2, (8, 12)), reference.conv_in(portrait))


def test_what_reference_in_adds_lies_where_the_portrait_has_it(fill):
    reference, denoiser = entering(fill)
    latents, _, ctx = inputs(reference, size=(8, 12))
    seen: list[torch.Tensor] = []
    denoiser.down_blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    for scale in (1.0, 2.0):
        entry = ctx.reference["conv_in"].clone()
        entry[0, 1 * 12 + 5] *= scale  # row 1, column 5
        denoiser(latents, torch.tensor([500]), replace(ctx, reference={**ctx.reference, "conv_in": entry}))
    where = (seen[1] - seen[0]).abs().amax((0, 1)).nonzero().tolist()
    assert where == [[1, 5]]


# What is given as it is: `reference_out`.


def giving(fill) -> tuple[UNet, UNet]:
    """(ReferenceNet, denoiser) of the form that gives shares of the portrait and of the noisy latents."""
    config = replace(SMALL, reference_out=1000)
    return fill(UNet(reference_config(config), head=False), 1), fill(UNet(config), 2)


def silent(denoiser: UNet) -> UNet:
    """Its layers add nothing."""
    for parameter in denoiser.conv_out.parameters():
        parameter.zero_()
    return denoiser


def test_reference_out_gives_each_sample_s_portrait_and_its_own_latents_as_the_table_says(fill):
    reference, denoiser = giving(fill)
    portraits = torch.randn(2, 4, 8, 12)
    seen = reference.features(portraits, torch.randn(2, 7, TEXT))
    latents, _, ctx = inputs(reference, B=2, size=(8, 12), reference=seen)
    timestep = torch.tensor([999, 3])
    (a, b), (c, d) = denoiser.reference_out.weight[timestep].tolist()
    first, second = silent(denoiser)(latents, timestep, ctx).split(F)
    assert torch.allclose(first, a * portraits[0] + b * latents[:F], atol=1e-5)
    assert torch.allclose(second, c * portraits[1] + d * latents[F:], atol=1e-5)
    beyond, within = (denoiser(latents, torch.tensor(at), ctx) for at in ([1000.0, -1.4], [999.0, 0.0]))
    assert torch.equal(beyond, within)  # hosts' own schedules have such timesteps


def test_without_a_reference_nothing_is_given(fill):
    reference, denoiser = giving(fill)
    latents, timestep, ctx = inputs(reference, reference=None)
    assert not silent(denoiser)(latents, timestep, ctx).any()


@pytest.mark.parametrize("form", ["single", "hierarchical"])
def test_bf16_is_close_to_fp32(nets, reference_net, form):
    latents, timestep, ctx = inputs(reference_net)
    exact = nets[form](latents, timestep, ctx)
    half = lambda x: x.bfloat16()  # noqa: E731
    rounded = replace(
        ctx,
        text=half(ctx.text),
        audio=half(ctx.audio),
        reference={k: half(v) for k, v in ctx.reference.items()},
        motion={k: half(v) for k, v in ctx.motion.items()},
        audio_masks=AudioMasks(*([half(mask) for mask in branch] for branch in ctx.audio_masks)),
    )
    net = UNet(nets[form].config)
    net.load_state_dict(nets[form].state_dict())
    out = net.bfloat16()(half(latents), timestep, rounded)
    assert out.dtype == torch.bfloat16
    assert 0 < (out.float() - exact).std() < 0.05 * exact.std()


# Keys and values computed once.


@pytest.mark.parametrize("form", ["single", "hierarchical"])
def test_cached_keys_and_values_change_nothing(nets, reference_net, form):
    latents, _, ctx = inputs(reference_net, B=2)
    cached = replace(ctx, cache=KVCache())
    other = torch.randn(2, 7, TEXT)
    for step in (999, 1):
        timestep = torch.tensor([step, step])
        for text, text_id in ((ctx.text, "text"), (other, "negative"), (ctx.text + step, None)):
            plain = nets[form](latents, timestep, replace(ctx, text=text))
            assert differ(plain, nets[form](latents, timestep, replace(cached, text=text, text_id=text_id))) <= 1e-5
        latents = plain


def test_a_cache_projects_once_and_keeps_nothing_after_clear(nets, reference_net, monkeypatch):
    latents, timestep, ctx = inputs(reference_net, cache=KVCache())
    calls = Counter()
    project = Attention.project
    monkeypatch.setattr(Attention, "project", lambda self, x: (calls.update([id(self)]), project(self, x))[1])
    first = nets["single"](latents, timestep, ctx)
    before = calls.total()
    again = nets["single"](latents, timestep, ctx)
    # Per layer: reference, text and audio are kept; own tokens of attn1 (twice: also audio's) and of time are not.
    assert before - (calls.total() - before) == 3 * 16
    assert differ(first, again) == 0
    changed = replace(
        ctx, text=ctx.text + 1, reference={k: v + 1 for k, v in ctx.reference.items()}, audio=ctx.audio + 1
    )
    assert differ(first, nets["single"](latents, timestep, changed)) == 0  # still what was kept
    ctx.cache.clear()
    fresh = nets["single"](latents, timestep, replace(changed, cache=None))
    assert differ(nets["single"](latents, timestep, changed), fresh) <= 1e-5
    assert differ(first, fresh) > 1e-2


# What changes nothing.


def test_fresh_audio_and_motion_modules_change_nothing(small_config, reference_net):
    _, denoiser = build_unets(replace(small_config, unet=SMALL))
    latents, timestep, ctx = inputs(reference_net, B=2)
    bare = denoiser(latents, timestep, replace(ctx, audio=None, motion=None))
    assert differ(denoiser(latents, timestep, ctx), bare) == 0
    frames = [denoiser(latents[f::F], timestep, Context(text=ctx.text, reference=ctx.reference)) for f in range(F)]
    assert differ(torch.stack(frames, 1).flatten(0, 1), bare) <= 1e-5


def test_frames_do_not_see_each_other_without_motion_modules(nets, reference_net):
    latents, timestep, ctx = inputs(reference_net)
    changed = latents.clone()
    changed[1] += 1
    for form, sees in (("no motion", False), ("single", True)):
        before, after = nets[form](latents, timestep, ctx), nets[form](changed, timestep, ctx)
        assert differ(before[1], after[1]) > 1e-2
        assert (differ(before[[0, 2]], after[[0, 2]]) > 1e-3) is sees


def test_each_frame_hears_its_own_audio_only(nets, reference_net):
    latents, timestep, ctx = inputs(reference_net)
    louder = ctx.audio.clone()
    louder[:, 2] += 1
    before = nets["no motion"](latents, timestep, ctx)
    after = nets["no motion"](latents, timestep, replace(ctx, audio=louder))
    assert differ(before[:2], after[:2]) <= 1e-5 and differ(before[2], after[2]) > 1e-3


def test_a_silent_branch_leaves_hierarchical_audio_unheard(nets, reference_net):
    latents, timestep, ctx = inputs(reference_net, audio_scale=(0.0, 0.0, 0.0))
    heard = nets["hierarchical"](latents, timestep, ctx)
    assert differ(heard, nets["hierarchical"](latents, timestep, replace(ctx, audio=ctx.audio + 1))) == 0
    lips = replace(ctx, audio_scale=(0.0, 0.0, 1.0))
    assert differ(heard, nets["hierarchical"](latents, timestep, lips)) > 1e-3
    with pytest.raises(ValueError, match="no masks"):
        nets["hierarchical"](latents, timestep, replace(ctx, audio_masks=None))


def test_without_sound_hierarchical_audio_hears_tokens_of_zeros(nets, reference_net):
    """Hallo's unguided pass; attention itself is not computed for it."""
    latents, timestep, ctx = inputs(reference_net)
    zeros = nets["hierarchical"](latents, timestep, replace(ctx, audio=torch.zeros_like(ctx.audio)))
    silent = nets["hierarchical"](latents, timestep, replace(ctx, audio=None))
    assert differ(zeros, silent) <= 1e-5
    assert differ(silent, nets["hierarchical"](latents, timestep, ctx)) > 1e-3
    assert differ(nets["single"](latents, timestep, replace(ctx, audio=None)), silent) > 1e-3


# What guides.


@pytest.mark.parametrize("field", ["text", "reference", "motion", "audio"])
def test_every_condition_guides_and_motion_frames_are_dropped(nets, reference_net, field):
    latents, timestep, ctx = inputs(reference_net)
    _, _, other = inputs(reference_net)
    out = nets["single"](latents, timestep, ctx)
    assert out.shape == (F, 4, *SIZE)
    assert differ(out, nets["single"](latents, timestep, replace(ctx, **{field: getattr(other, field)}))) > 1e-3
    if field != "text":
        assert differ(out, nets["single"](latents, timestep, replace(ctx, **{field: None}))) > 1e-3


@pytest.mark.parametrize("form", ["single", "hierarchical"])
def test_a_batch_of_two_equals_each_alone(nets, reference_net, form):
    # Hallo mixes the references of a batch; here nobody sees another's portrait, motion frames, text or sound.
    latents, timestep, ctx = inputs(reference_net, B=2)
    assert timestep[0] != timestep[1]
    together = nets[form](latents, timestep, ctx)
    for b in range(2):
        alone = replace(
            ctx,
            text=ctx.text[b : b + 1],
            audio=ctx.audio[b : b + 1],
            reference={k: v[b : b + 1] for k, v in ctx.reference.items()},
            motion={k: v[b : b + 1] for k, v in ctx.motion.items()},
        )
        part = slice(b * F, (b + 1) * F)
        assert differ(together[part], nets[form](latents[part], timestep[b : b + 1], alone)) <= 2e-5


def test_a_single_frame_without_motion_frames_skips_the_motion_modules(nets, reference_net):
    latents, timestep, ctx = inputs(reference_net, frames=1)
    assert (
        differ(nets["single"](latents, timestep, replace(ctx, motion=None)), nets["single"](latents, timestep, ctx))
        > 1e-3
    )
    plain = UNet(replace(SMALL, motion=False)).eval()
    plain.load_state_dict({k: v for k, v in nets["single"].state_dict().items() if "motion_modules" not in k})
    ctx = replace(ctx, motion=None)
    assert differ(nets["single"](latents, timestep, ctx), plain(latents, timestep, ctx)) == 0


def test_where_the_face_is_is_added_after_the_first_convolution(nets, reference_net):
    latents, timestep, ctx = inputs(reference_net)
    net, feature = nets["plain"], torch.randn(16)
    expected = net(latents, timestep, replace(ctx, located=feature[None, :, None, None].expand(1, -1, *SIZE)))
    net = UNet(net.config).eval()
    net.load_state_dict(nets["plain"].state_dict())
    net.conv_in.bias += feature
    assert differ(net(latents, timestep, ctx), expected) <= 1e-5
