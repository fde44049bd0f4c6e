"""wav2vec 2.0 as the public tools run it, and a long speech in windows as if it had been heard at once."""

import pytest
import torch

from tbd_core import conditioning
from tbd_core.conditioning import WINDOW, audio_features, speech_features, whole_features
from tbd_core.config import PRESETS, ModelConfig


LAYOUTS = {
    "base": dict(feat_extract_norm="group", conv_bias=False, do_stable_layer_norm=False),
    "large": dict(feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True),
}


@pytest.fixture(scope="module", params=LAYOUTS)
def encoder(request, fill):
    """A random Wav2Vec2Model, narrow, its convolutions and positions those of the public ones."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    config = Wav2Vec2Config(
        hidden_size=24, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2, conv_dim=[16] * 7,
        num_conv_pos_embedding_groups=4, apply_spec_augment=False, **LAYOUTS[request.param],
    )  # fmt: skip
    return fill(Wav2Vec2Model(config), 3)


def spoken(samples: int, seed: int = 0) -> torch.Tensor:
    """[T] that swells and falls, so that no stretch of it has the statistics of another."""
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    return noise * (0.1 + torch.linspace(0, 9, samples).sin().abs() + torch.linspace(0, 1, samples))


@pytest.mark.parametrize("frames", [25, 40])
def test_features_are_those_of_transformers_own_forward_after_the_interpolation(encoder, frames):
    class Interpolated(torch.nn.Module):
        def __init__(self, extractor):
            super().__init__()
            self.extractor = extractor

        def forward(self, sound):
            return torch.nn.functional.interpolate(self.extractor(sound), frames, mode="linear", align_corners=True)

    sound, own = spoken(frames * 640)[None], encoder.feature_extractor
    try:
        encoder.feature_extractor = Interpolated(own)
        with torch.inference_mode():
            theirs = encoder(sound, output_hidden_states=True)
    finally:
        encoder.feature_extractor = own
    with torch.inference_mode():
        ours = audio_features(encoder, sound, frames)
    assert ours.shape == (1, frames, 3, 24)
    for n in range(2):
        assert torch.equal(ours[:, :, n], theirs.hidden_states[n + 1])
    # The last one with the final norm of large encoders, which is no layer (transformers 4 tells it as the last state).
    final = encoder.encoder.layer_norm if encoder.config.do_stable_layer_norm else torch.nn.Identity()
    with torch.inference_mode():
        assert torch.allclose(final(ours[:, :, 2]), theirs.last_hidden_state, atol=1e-6)


@pytest.mark.parametrize(
    ("window", "frames"), [(1, 1), (1, 2), (1, 33), *((w, f) for w in (64, WINDOW) for f in (1, 2, 33, 421))]
)
def test_windows_hear_what_is_heard_at_once(encoder, frames, window):
    sound = spoken(frames * 640 - 17, frames)
    with torch.inference_mode():
        whole = audio_features(encoder, sound[None], frames)[0]
    parts = whole_features(encoder, sound, frames, window=window)
    assert parts.shape == whole.shape == (frames, 3, 24)
    assert (parts - whole).norm() <= 1e-3 * whole.norm()
    assert (parts - whole).abs().max() <= 1e-3 * whole.abs().max()


def test_the_norm_over_all_time_is_not_the_windows_own(encoder):
    """Else the test above could not fail for base encoders."""
    sound = spoken(100 * 640)
    with torch.inference_mode():
        whole, half = (audio_features(encoder, part[None], len(part) // 640)[0] for part in (sound, sound[: 50 * 640]))
    assert (half - whole[:50]).norm() > 1e-2 * whole[:50].norm()


def test_the_convolutions_never_see_more_than_a_window(encoder):
    seen = []
    hook = encoder.feature_extractor.conv_layers[0].conv.register_forward_pre_hook(
        lambda _, args: seen.append(args[0].shape[-1])
    )
    speech_features(encoder, spoken(1000 * 640), 1000, chunk=None)
    hook.remove()
    assert max(seen) <= (WINDOW - 1) * 320 + 400 and sum(seen) >= 1000 * 640


def test_the_whole_is_heard_over_the_noise_floor_that_chunks_are_heard_over(encoder):
    one, other = (speech_features(encoder, torch.zeros(64_000), 100, chunk=chunk) for chunk in (None, 100))
    assert torch.allclose(one, other, atol=1e-4)


def test_whoever_waits_may_interrupt_before_each_window_and_each_layer(encoder):
    called = []
    speech_features(encoder, spoken(500 * 640), 500, lambda: called.append(1), chunk=None)
    windows = 3 + 3 * (encoder.config.feat_extract_norm == "group")
    assert len(called) == windows + 3

    def stop():
        if len(called) >= windows + 5:
            raise KeyboardInterrupt
        called.append(1)

    def hooks() -> int:
        return sum(len(layer._forward_hooks) + len(layer._forward_pre_hooks) for layer in encoder.encoder.layers)

    before = hooks()
    with pytest.raises(KeyboardInterrupt):
        speech_features(encoder, spoken(500 * 640), 500, stop, chunk=None)
    assert hooks() == before


def test_a_bundle_listens_as_it_learnt_to(small_config):
    assert (PRESETS["tiny"]().audio_chunk, PRESETS["sd15"]().audio_chunk) == (100, None)
    for config in (PRESETS["sd15"](), small_config):
        assert ModelConfig.from_dict(config.to_dict()).audio_chunk == config.audio_chunk
    old = PRESETS["sd15"]().to_dict()
    del old["audio_chunk"]
    assert ModelConfig.from_dict(old).audio_chunk == conditioning.AUDIO_CHUNK == 100
