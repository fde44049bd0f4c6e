"""One clip's guide on a sampler's batch, and every way in which it can be another's."""

from dataclasses import replace

import pytest
import torch

from tbd_core.config import ENTRY, LATENTS, SamplingDefaults
from tbd_core.errors import InputError
from tbd_core.face_guide import FaceGuide
from tbd_core.guide import FIRST_LAYER, DrawOptions, Guide, check_guide, last_frames


DEFAULTS = SamplingDefaults(steps=12, guidance=1.5)


def guide(frames=14, cells=4):
    reference = {FIRST_LAYER: torch.randn(1, cells, 8)}
    motion = {FIRST_LAYER: torch.randn(1, 2, cells, 8)}
    return Guide(reference, motion, torch.randn(frames, 5, 2, 3), (16, 16))


def project(windows):
    """[1, F, window, L, C] → [1, F, N, D], as an AudioProjection."""
    return windows.flatten(3).sum(2, keepdim=True).movedim(2, 2)


def test_a_guide_is_brought_to_every_row_in_the_latents_type():
    like = torch.zeros(2 * 14, 4, 2, 2, dtype=torch.bfloat16)
    given = guide()
    parts = given.on(project, 2, 14, like)
    assert {name: part.dtype for name, part in parts["reference"].items()} == {FIRST_LAYER: torch.bfloat16}
    assert parts["reference"][FIRST_LAYER].shape == (2, 4, 8) and parts["motion"][FIRST_LAYER].shape == (2, 2, 4, 8)
    assert parts["audio"].shape[:2] == (2, 14)
    assert torch.equal(parts["reference"][FIRST_LAYER][1], given.reference[FIRST_LAYER][0].bfloat16())


def test_what_a_guide_is_without_stays_away():
    like = torch.zeros(14, 4, 2, 2)
    whole = guide()
    assert whole.without_sound().on(project, 1, 14, like)["audio"] is None
    bare = whole.unguided().on(project, 1, 14, like)
    assert (bare["reference"], bare["audio"]) == (None, None) and bare["motion"] is not None
    assert (repr(whole), repr(whole.unguided())) == ("Guide(portrait, motion, sound)", "Guide(motion)")


def test_guides_are_alike_only_when_they_are_the_same():
    one = guide()
    assert one == one and one != replace(one)  # noqa: PLR0124


def test_latents_of_another_size_or_number_are_refused():
    with pytest.raises(InputError, match="latents are 24 x 16 px, .* encoded at 16 x 16; .* gives, and no areas"):
        guide().on(project, 1, 14, torch.zeros(14, 4, 2, 3))
    with pytest.raises(InputError, match="7 frames are drawn at once, but the guide hears 14"):
        guide().on(project, 2, 7, torch.zeros(14, 4, 2, 2))


def test_another_models_portrait_and_sound_are_refused(small_config):
    fits = dict.fromkeys((FIRST_LAYER, ENTRY, LATENTS), torch.zeros(1, 4, 20)), None, torch.zeros(28, 2, 16), 20, 1
    check_guide(small_config, *fits)
    with pytest.raises(InputError, match="the reference is 320 wide, this model wants 20; connect the same MODEL"):
        check_guide(small_config, {FIRST_LAYER: torch.zeros(1, 4, 320)}, *fits[1:])
    with pytest.raises(InputError, match="the sound has 12 layers of 768 numbers, this model wants 2 of 16"):
        check_guide(small_config, *fits[:2], torch.zeros(28, 12, 768), 20, 1)
    with pytest.raises(InputError, match="clip 2 is not there: the recording has 2 clips, counted from 0"):
        check_guide(small_config, *fits[:4], 2)


def test_a_reference_of_another_kind_of_model_is_refused(small_config):
    face = FaceGuide(torch.zeros(1, 4, 16), torch.zeros(1, 4, 16), None, None)
    hallo = replace(small_config, unet=replace(small_config.unet, context="face"))
    portrait = {FIRST_LAYER: torch.zeros(1, 4, 20), ENTRY: torch.zeros(1, 4, 20), LATENTS: torch.zeros(1, 4, 4)}
    rest = torch.zeros(28, 2, 16), 20, 1
    check_guide(hallo, portrait, face, *rest)
    with pytest.raises(
        InputError, match="of Hallo's kind, which wants face tokens or masks, and the reference has none"
    ):
        check_guide(hallo, portrait, None, *rest)
    with pytest.raises(InputError, match="of a kind without face tokens or masks, and the reference has some; connect"):
        check_guide(small_config, portrait, face, *rest)


def test_a_reference_that_lacks_what_the_denoiser_takes_in_is_refused(small_config):
    portrait, rest = {FIRST_LAYER: torch.zeros(1, 4, 20)}, (torch.zeros(28, 2, 16), 20, 1)
    entries = {ENTRY: torch.zeros(1, 4, 20), LATENTS: torch.zeros(1, 4, 4)}
    check_guide(small_config, portrait | entries, None, *rest)
    for name in entries:
        lacking = {key: value for key, value in (portrait | entries).items() if key != name}
        with pytest.raises(InputError, match=f"has 2 features and none called {name}, which .* the same MODEL"):
            check_guide(small_config, lacking, None, *rest)


def test_a_clip_goes_on_from_the_last_frames_of_the_one_before():
    portrait, previous = torch.zeros(1, 4, 2, 2), torch.randn(14, 4, 2, 2)
    assert last_frames(None, 0, portrait) is None
    assert torch.equal(last_frames(previous, 3, portrait), previous[-2:])
    with pytest.raises(InputError, match="clip 3 goes on from clip 2: connect that clip's latent as previous"):
        last_frames(None, 3, portrait)
    with pytest.raises(InputError, match=r"latents of \[1, 4, 2, 2\]; at least 2 of \[4, 2, 2\] are needed"):
        last_frames(previous[:1], 1, portrait)
    with pytest.raises(InputError, match=r"latents of \[14, 4, 2, 2\]; at least 2 of \[4, 3, 2\] are needed"):
        last_frames(previous, 1, torch.zeros(1, 4, 3, 2))


def test_numbers_left_out_are_the_bundles():
    assert DrawOptions().settled(DEFAULTS) == DrawOptions(steps=12, guidance=1.5)
    given = DrawOptions(seed=1, steps=5, guidance=0.0, text_scale=-1.0, audio_scale=4.0)
    assert given.settled(DEFAULTS) == replace(given, text_scale=None)
    assert given.settled(DEFAULTS).settled(DEFAULTS) == given.settled(DEFAULTS)


def test_a_scale_that_equals_the_guidance_costs_no_pass():
    settled = DrawOptions(guidance=2.0, text_scale=2.0, audio_scale=0.0).settled(DEFAULTS)
    assert (settled.text_scale, settled.audio_scale) == (None, 0.0)
    assert settled.separate_scales == {"no_audio": 0.0}
    assert DrawOptions(text_scale=1.0, audio_scale=3.0).separate_scales == {"no_text": 1.0, "no_audio": 3.0}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 2000}, "steps is 2000; give a whole number from 1 to 1000, or 0 for the model's own"),
        ({"steps": -3}, "steps is -3; give a whole number from 1 to 1000"),
        ({"guidance": float("nan")}, "guidance is nan; give a number from 0 to 30, or -1"),
        ({"guidance": 30.5}, "guidance is 30.5; give a number from 0 to 30"),
        ({"text_scale": -2.0}, "text_scale is -2; give a number from 0 to 30"),
        ({"audio_scale": float("inf")}, "audio_scale is inf; give a number from 0 to 30"),
    ],
)
def test_numbers_that_a_link_may_bring_are_refused_out_of_range(given, message):
    with pytest.raises(InputError, match=message):
        DrawOptions(**given).settled(DEFAULTS)
    ends = DrawOptions(steps=1000, guidance=30.0, text_scale=-1.0, audio_scale=0.0)
    assert ends.settled(DEFAULTS).steps == 1000
