"""Whether a portrait looks like those a bundle was trained on."""

import re

import pytest
import torch

from tbd_core.checkpoint import store
from tbd_core.conditioning import portrait_latents
from tbd_core.config import TINY_BUNDLE
from tbd_core.likeness import PREFIX, SIGNS, distance, learn, unlike_training
from tbd_core.synthetic.face import random_identity
from tbd_core.synthetic.portrait import neutral_face, render


pytestmark = pytest.mark.usefixtures("loaded_once")


def drawn_latents(count: int, seed: int = 0) -> torch.Tensor:
    """Random latents whose cells belong together."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(count, 4, 1, 1, generator=generator)
    return shared + 0.5 * torch.randn(count, 4, 4, 4, generator=generator).repeat_interleave(4, 2).repeat_interleave(
        4, 3
    )


def test_what_is_like_the_learnt_lies_about_one_away_and_the_rest_farther():
    known = learn(drawn_latents(2000))
    assert distance(drawn_latents(200, 1), **known).mean() == pytest.approx(1, abs=0.1)
    flipped = drawn_latents(5, 2)
    flipped[:, :, 8:] -= 4  # no lower half was ever so far from its upper one
    assert distance(flipped, **known).min() > 3


@pytest.mark.parametrize(
    ("least", "best", "most", "said"),
    [
        (99.0, 100.0, 100.0, r"keeps \d+\.\d dB of it, of drawn faces at least 99\.0 dB; expect"),
        (-9.0, 0.1, 100.0, r"keeps \d+\.\d dB of it, of drawn faces 0\.1 dB at most; expect"),
        (
            1.0,
            100.0,
            0.1,
            r"latents lie \d+\.\d away from theirs, those of 99% of drawn faces 0\.1 at most; expect",
        ),
        (1.0, 100.0, 100.0, None),
        (1.0, None, 100.0, None),  # as in bundles from before this sign, which tell of the farthest
        (1.0, None, 0.1, r"latents lie \d+\.\d away from theirs, those of drawn faces 0\.1 at most; expect"),
    ],
)
def test_each_sign_is_said_with_both_numbers(small_bundle, small_config, tmp_path, least, best, most, said):
    networks, _ = store.load(small_bundle)
    about = {"name": "picky", "training": dict(zip(SIGNS, (least, best, most), strict=True))}
    known = {f"{PREFIX}.{name}": value for name, value in learn(drawn_latents(200)).items()}
    model = tmp_path / "model.safetensors"
    store.save(model, networks, small_config, about, torch.float16, known)
    told = unlike_training(about, model, networks.vae, drawn_latents(1, 3)[..., :8, :8], torch.zeros(1, 3, 64, 64))
    assert told is None if said is None else re.search(said, told)
    assert unlike_training({"name": "says nothing"}, model, networks.vae, drawn_latents(1), torch.zeros(1)) is None


def test_the_bundled_model_knows_its_drawn_faces_from_other_pictures():
    networks, _ = store.load(TINY_BUNDLE)
    about = store.read_about(TINY_BUNDLE)
    generator = torch.Generator().manual_seed(5)
    people = render(neutral_face(random_identity(generator, 3)), 128)
    ramp = torch.linspace(0, 1, 128).expand(3, 128, 128)
    other = torch.stack([torch.rand(3, 128, 128, generator=generator), torch.full((3, 128, 128), 0.5), ramp])

    def told(picture) -> str | None:
        pixels = picture[None] * 2 - 1
        return unlike_training(about, TINY_BUNDLE, networks.vae, portrait_latents(networks, pixels), pixels)

    assert [told(picture) for picture in people] == [None] * 3
    assert all("looks unlike the drawn faces that tbd-tiny was trained on" in told(picture) for picture in other)
