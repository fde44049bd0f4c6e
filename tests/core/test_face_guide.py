"""Bundles of Hallo's kinds: face tokens, the face's place, masks, and words beside them."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from tbd_core import denoise, pipeline
from tbd_core.checkpoint import store
from tbd_core.config import GenerateOptions
from tbd_core.crops import Seen, whole_crop
from tbd_core.errors import InputError
from tbd_core.face_guide import Boxes, guide_by, notes_on, place_face
from tbd_core.faces import Choice, Face
from tbd_core.masks import LIP_RATIO, rectangle
from tbd_core.models.build import build
from tbd_core.models.unet import UNet


pytestmark = pytest.mark.usefixtures("loaded_once")


@pytest.fixture(scope="module")
def configs(small_config):
    """hallo-text, hallo-compat: {context: config}."""
    unet = replace(small_config.unet, audio="hierarchical")
    return {c: replace(small_config, unet=replace(unet, context=c)) for c in ("both", "face")}


@pytest.fixture(scope="module")
def bundles(configs, fill, tmp_path_factory):
    """{context: file}, of the same weights but for attn2_text."""
    folder = tmp_path_factory.mktemp("hallo")
    networks = build(configs["both"])
    for seed, (_, module) in enumerate(networks.items()):
        fill(module, seed)
    plain = build(configs["face"])
    for (_, module), (_, filled) in zip(plain.items(), networks.items(), strict=True):
        own = module.state_dict()
        module.load_state_dict({key: value for key, value in filled.state_dict().items() if key in own})
    # As fp16, to be drawn in fp32: what lay in the file as it is drawn would be computed with where it lies there, and
    # weights at other multiples of 16 bytes are added in another order.
    made = {}
    for context, nets in (("both", networks), ("face", plain)):
        made[context] = folder / f"{context}.safetensors"
        store.save(made[context], nets, configs[context], {"name": f"hallo-{context}"}, torch.float16)
    return made


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "portrait.png")
    soundfile.write(folder / "speech.wav", 0.3 * np.sin(np.arange(6_400) / 20), 16_000)  # 10 frames
    np.save(folder / "who.npy", np.random.default_rng(1).normal(size=512).astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def options(inputs, bundles):
    return GenerateOptions(
        inputs / "portrait.png", inputs / "speech.wav", inputs / "talking.mp4", "happy", model=bundles["both"],
        dtype="fp32", device="cpu", guidance=1.0, face_embedding=inputs / "who.npy",
    )  # fmt: skip


@pytest.fixture(scope="module")
def usual(options):
    return drawn(options)


def drawn(options: GenerateOptions) -> torch.Tensor:
    """The first clip's latents."""
    plan = pipeline.plan(options)
    job, heard = pipeline.prepare(plan)
    return denoise.draw_clip(job, pipeline.window_frames(heard), denoise.first_motion(job.portrait), 0, 1)


def test_a_bundle_of_hallos_kind_makes_a_video_and_says_what_it_lacks(options, bundles):
    made = pipeline.generate(replace(options, model=bundles["face"], face_embedding=None, text_scale=2.0))
    assert (made.frames, made.model) == (10, "hallo-face")
    said = "\n".join(made.warnings)
    for part in ("over the middle 60% of the picture", "512 numbers", "hears no words", "text-scale 2 changes nothing"):
        assert part in said


def test_words_of_strength_0_are_not_heard(options, bundles):
    silent = drawn(replace(options, text_strength=0.0))
    assert torch.equal(silent, drawn(replace(options, model=bundles["face"])))
    assert torch.equal(silent, drawn(replace(options, text_strength=0.0, fine="other words", coarse="other words")))


@pytest.mark.parametrize("how", ["cpu", "sequential"])
def test_hallos_networks_wait_elsewhere_as_the_others_do(options, usual, how, load_anew, monkeypatch):
    monkeypatch.setattr(pipeline.store, "load", load_anew)
    assert torch.equal(usual, drawn(replace(options, offload=how)))


def test_words_beside_the_face_and_whose_face_it_is_change_the_picture(options, usual):
    for other in ({"text_strength": 1.0}, {"emotion": "angry"}, {"face_embedding": None}, {"face": "8,8,60,60"}):
        assert (drawn(replace(options, **other)) - usual).abs().max() > 1e-3, other


def test_the_unguided_pass_hears_nobody_and_the_one_without_words_still_the_face(options, monkeypatch):
    seen = []
    forward = UNet.forward
    monkeypatch.setattr(
        UNet, "forward", lambda net, latents, at, ctx: seen.append((net, ctx)) or forward(net, latents, at, ctx)
    )
    plan = pipeline.plan(replace(options, guidance=2.0, text_scale=5.0, audio_scale=4.0))
    job, heard = pipeline.prepare(plan)
    assert all(torch.equal(ctx.text, job.face.tokens) for _, ctx in seen), "ReferenceNet hears the face's tokens"
    del seen[:]
    denoise.draw_clip(job, pipeline.window_frames(heard), denoise.first_motion(job.portrait), 0, 1)
    full, unguided, wordless, soundless = (ctx for net, ctx in seen[1:5])
    for ctx in (full, wordless, soundless):
        assert torch.equal(ctx.text, job.face.tokens) and ctx.located is job.face.located
    assert torch.equal(unguided.text, job.face.nobody) and unguided.located is None
    assert not torch.equal(job.face.nobody, job.face.tokens)
    assert torch.equal(wordless.words, job.negative) and torch.equal(unguided.words, job.negative)
    assert all(ctx.audio_masks is job.face.masks for ctx in (full, unguided, wordless, soundless))
    assert [ctx.audio is None for ctx in (full, unguided, wordless, soundless)] == [False, True, False, True]
    # Equal names in one cache stand for equal keys and values.
    assert len({(ctx.text_id, id(ctx.located)) for ctx in (full, unguided, wordless)}) == 3
    assert unguided.text_id != wordless.text_id


def test_what_decides_the_face_decides_the_finished_clips(options, inputs):
    keys = [pipeline.part_key(pipeline.plan(options))]
    for other in ({"text_strength": 0.4}, {"face_embedding": None}):
        keys.append(pipeline.part_key(pipeline.plan(replace(options, **other))))
    assert len({str(key) for key in keys}) == 3


def test_hierarchical_audio_beside_words_alone_has_masks_and_no_tokens(configs):
    unet = replace(configs["both"].unet, context="text")
    guide = guide_by(unet, Boxes((8, 8, 40, 40), (20, 36, 16, 8)), None, (64, 64), None, None)
    words = torch.zeros(1, 4, 16)
    assert guide.hear(words).keys() == {"text", "audio_masks"} and guide.hear(words)["text"] is words
    assert notes_on(unet, None, 2.0) == ()


def test_the_boxes_are_those_of_the_chosen_face_in_the_drawn_picture():
    crop = whole_crop((200, 200), (64, 64))
    face = Face((50, 50, 100, 100), lips=(80, 120, 40, 20))
    boxes, notes = place_face(Image.new("RGB", (64, 64)), Seen(Choice(face, "found"), crop))
    assert notes == ()
    assert boxes.face == pytest.approx((16, 16, 32, 32)) and boxes.lips == pytest.approx((25.6, 38.4, 12.8, 6.4))


@pytest.mark.parametrize(
    ("lips", "empty"),
    [
        ((99, 99, 1, 1), True),
        ((90, 120, 40, 1), True),
        ((2, 1, 2, 2), True),
        ((100, 100, 1, 1), False),
        ((9, 9, 9, 9), False),
    ],
)
def test_lips_too_small_for_a_mask_are_said(lips, empty):
    """Drawn a third as large; 0.33 px may hold the edge of a whole one, or not."""
    crop = whole_crop((192, 192), (64, 64))
    face = Face((50, 50, 100, 100), lips=lips)
    boxes, notes = place_face(Image.new("RGB", (64, 64)), Seen(Choice(face, "found"), crop))
    assert (not rectangle(boxes.lips, (64, 64), LIP_RATIO).any()) is empty
    assert len(notes) == int(empty)
    if empty:
        assert (
            f"the lips are {lips[2] / 3:.2g} x {lips[3] / 3:.2g} px of the drawn picture, which is 0 whole pixels"
            in notes[0]
        )


def test_a_face_is_looked_for_when_nothing_was_asked(root):
    pytest.importorskip("skimage")
    _, (said,) = place_face(Image.new("RGB", (64, 64)), None)
    assert "found 0 faces of 24 px or more in 64 x 64 px" in said and "over the middle 60% of the picture" in said
    with Image.open(root / "tbd_core" / "assets" / "sample" / "portrait.png") as picture:
        boxes, notes = place_face(picture.convert("RGB").resize((256, 256)), None)
    x, y, w, h = boxes.face
    assert notes == () and 20 < x < 110 and 20 < y < 130 and 80 < w < 200 and 80 < h < 200


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"text_strength": 1.5}, "--text-strength is 1.5; give a number from 0 to 1"),
        ({"text_strength": float("nan")}, "--text-strength is nan; give a number from 0 to 1"),
    ],
)
def test_numbers_out_of_range_are_refused(options, changed, said):
    with pytest.raises(InputError, match=said):
        pipeline.plan(replace(options, **changed))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"text_strength": 0.5}, "--text-strength is 0.5, but .* hears words alone; use --text-scale"),
        ({"face_embedding": "who.npy"}, "--face-embedding is who.npy, but .* has no face tokens; leave it out"),
    ],
)
def test_what_another_kind_of_bundle_would_ignore_is_refused(options, small_bundle, changed, said):
    with pytest.raises(InputError, match=said):
        pipeline.plan(replace(options, model=small_bundle, **{"face_embedding": None, **changed}))
