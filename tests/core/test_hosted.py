"""The networks as a host calls them: rows of a batch, what is kept and for how long, its own attention."""

import pytest
import torch

from tbd_core.errors import InputError
from tbd_core.guide import Guide
from tbd_core.models.attention import Context
from tbd_core.models.build import build_unets
from tbd_core.models.hosted import OVERRIDE, FirstStage, HostAttention, HostedDenoiser


pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.fixture(scope="module")
def denoiser(small_config, fill):
    network = HostedDenoiser(small_config, None, torch.float32).to_empty(device="cpu")
    table = build_unets(small_config)[1].state_dict()
    fill(network)
    network.load_state_dict({k: v for k, v in table.items() if k.endswith(".pe")}, strict=False)
    return network


@pytest.fixture(scope="module")
def features(small_config, fill):
    """`features(latents)`: ReferenceNet's."""
    reference = fill(build_unets(small_config)[0])
    return lambda latents: reference.features(latents, torch.zeros(len(latents), 4, 16))


@pytest.fixture
def guide(features, seed):
    motion = {name: value[None] for name, value in features(torch.randn(2, 4, 8, 8)).items()}
    return Guide(features(torch.randn(1, 4, 8, 8)), motion, torch.randn(3, 5, 2, 16), (64, 64))


def inputs(rows, frames=3):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(rows * frames, 4, 8, 8, generator=generator)
    text = torch.randn(rows, 4, 16, generator=generator)
    return x, torch.full((rows * frames,), 500.0), text.repeat_interleave(frames, 0)


def options(*uuids):
    return {"cond_or_uncond": list(range(len(uuids))), "uuids": list(uuids)}


def test_a_guide_is_what_a_context_is(denoiser, guide):
    x, at, text = inputs(1)
    context = Context(
        text=text[:1],
        num_frames=3,
        reference=guide.reference,
        motion=guide.motion,
        audio=denoiser.audioproj(guide.windows[None]),
    )
    expected = super(HostedDenoiser, denoiser).forward(x, at[:1], context)
    assert torch.allclose(denoiser(x, at, text, transformer_options=options("a"), tbd=guide), expected, atol=1e-5)
    denoiser.kept.clear()


def test_rows_are_drawn_as_each_alone(denoiser, guide):
    x, at, text = inputs(2)
    both = denoiser(x, at, text, transformer_options=options("a", "b"), tbd=guide)
    for row, name in enumerate("ab"):
        own = slice(3 * row, 3 * row + 3)
        alone = denoiser(x[own], at[own], text[own], transformer_options=options(name), tbd=guide)
        assert torch.allclose(both[own], alone, atol=1e-5)
    denoiser.kept.clear()


def test_keys_and_values_are_kept_for_their_guide_and_text_alone(denoiser, guide):
    x, at, text = inputs(1)
    first = denoiser(x, at, text, transformer_options=options("a"), tbd=guide)
    assert torch.equal(denoiser(x, at, 0 * text, transformer_options=options("a"), tbd=guide), first)  # kept
    other = denoiser(x, at, 0 * text, transformer_options=options("b"), tbd=guide)
    assert not torch.allclose(other, first, atol=1e-3)
    once = denoiser(x, at, 0 * text, transformer_options=options("a"), tbd=guide, tbd_once=True)
    assert torch.allclose(once, other, atol=1e-5)
    assert len(denoiser.kept) == 1
    bare = denoiser(x, at, text, transformer_options=options("a"), tbd=guide.unguided())
    assert len(denoiser.kept) == 2 and not torch.allclose(bare, first, atol=1e-3)
    denoiser.kept.clear()


def test_texts_of_one_id_on_both_sides_are_told_apart(denoiser, guide):
    """With areas ComfyUI gives a negative entry the id of a positive one."""
    x, at, text = inputs(1)
    sides = [{"cond_or_uncond": [side], "uuids": ["a"]} for side in (0, 1)]
    shared = guide, None  # of a sampler with a guide of ours in both, and of a plain KSampler
    for one in shared:
        denoiser(x, at, text, transformer_options=sides[0], tbd=one)
        other = denoiser(x, at, 0 * text, transformer_options=sides[1], tbd=one)
        denoiser.kept.clear()
        assert torch.allclose(other, denoiser(x, at, 0 * text, transformer_options=sides[1], tbd=one), atol=1e-6)
        denoiser.kept.clear()


@pytest.mark.parametrize("layer", ["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_v", "audioproj.proj1"])
def test_nothing_is_kept_while_the_weights_change(denoiser, guide, layer):
    x, at, text = inputs(1)
    given = {"transformer_options": options("a"), "tbd": guide, "tbd_changing": True}
    first = denoiser(x, at, text, **given)
    assert not denoiser.kept
    weight = denoiser.get_parameter(f"{layer}.weight")
    weight += 1
    try:
        assert not torch.allclose(denoiser(x, at, text, **given), first, atol=1e-3)
    finally:
        weight -= 1


def test_a_guide_is_held_against_every_form_of_batch(denoiser, guide):
    x, at, text = inputs(1)
    denoiser(x, at, text, transformer_options=options("a"), tbd=guide)
    with pytest.raises(InputError, match="the latents are 64 x 32 px, but the portrait was encoded at 64 x 64"):
        denoiser(x[:, :, :4], at, text, transformer_options=options("a"), tbd=guide)
    denoiser.kept.clear()


@pytest.mark.parametrize(
    ("frames", "given", "message"),
    [
        (31, {}, "31 frames are drawn at once; at most 30 are possible: use TBD Sampler"),
        (1, {"control": object()}, "1 ControlNet is applied, and this model has no place for one; take it off"),
        (1, {"context": None}, r"the conditioning has no text \(0 tokens\)"),
        (3, {"tbd": Guide({"down": torch.zeros(1, 64, 20)}, None, None, (64, 64))},
         "of the conditions has 1 features and none called conv_in, .* Apply Conditions and here"),
    ],
)  # fmt: skip
def test_what_the_network_cannot_do_is_said(denoiser, frames, given, message):
    x, at, text = inputs(1, frames)
    with pytest.raises(InputError, match=message):
        denoiser(x, at, **{"context": text, "transformer_options": options("a"), **given})


def test_the_hosts_attention_is_asked_off_the_cpu_and_for_the_users_own(seed):
    asked = []

    def attention(q, k, v, heads, skip_reshape, transformer_options):
        asked.append((heads, skip_reshape, transformer_options))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    attend, (q, k, v) = HostAttention(attention), torch.randn(3, 2, 4, 6, 8)
    plain = attend(q, k, v)
    assert asked == []
    attend.options = {OVERRIDE: True}
    assert torch.allclose(attend(q, k, v), plain) and asked == [(4, True, {OVERRIDE: True})]
    attend.options = {}
    assert attend(*(part.to("meta") for part in (q, k, v))).shape == plain.shape and len(asked) == 2


class Decoder:
    def __init__(self):
        self.batches = []

    def decode(self, latents):
        self.batches.append(len(latents))
        return type("Decoded", (), {"sample": latents.repeat_interleave(8, 2).repeat_interleave(8, 3)[:, :3]})


def test_pictures_are_decoded_in_bounded_memory_and_can_be_interrupted(seed):
    checks, decoder = [], Decoder()
    stage = FirstStage(decoder, lambda: checks.append(1), pixels=2 * 16 * 16)
    latents = torch.randn(5, 4, 2, 2)
    assert torch.equal(stage.decode(latents, extra=1), decoder.decode(latents).sample)
    assert decoder.batches[:3] == [2, 2, 1] and len(checks) == 3
    latents[4] = float("inf")
    with pytest.raises(
        InputError, match="the pictures are not numbers in torch.float32; load the model as fp32 or bf16"
    ):
        stage.decode(latents)
