"""ComfyUI's sampling and our own loop draw the same; so do its text encoder, autoencoder and audio encoder."""

from dataclasses import replace

import pytest
import torch


pytestmark = pytest.mark.comfy

PROMPTS = ("a happy person", "AU12 lip corner puller, marked, both sides")
NEGATIVE = "blurry"
TEXTS = (
    "", "a", "A Happy  person,\n smiling", "it's 12:30; don't stop!", "naïve café über señor", "日本語", "🙂 ok",
    "x" * 300, "one two three " * 40, "AU6+AU12 (no weights here", "50% off & more <b>", "tab\tand\rreturn", "...", "'",
    "I\u2019m here", "ﬁne", "a-b_c/d", "1234567890", "ＦＵＬＬ width", "trailing space ",
)  # fmt: skip


@pytest.fixture(scope="module")
def networks(part):
    """`networks(path)`: the bundle as the command line loads it, in fp32."""
    return lambda path: part("tbd_core.checkpoint.store").load(path, "cpu", torch.float32)


@pytest.fixture(scope="module")
def both_ways(part, bridge, networks, face, sound):
    """`both_ways(path, steps, …)`: scaled latents of all clips by (ComfyUI, our loop)."""
    denoise, conditioning, speech = (part(f"tbd_core.{name}") for name in ("denoise", "conditioning", "speech"))
    progressive, slicing, host = (part(f"tbd_core.{name}") for name in ("progressive", "slicing", "host"))

    @torch.inference_mode()
    def ours(path, steps, seconds, pull, blend):
        nets, config = networks(path)
        pixels = part("tbd_core.portrait").fit_portrait(host.image_to_pil(face), (64, 64), 64, "face").pixels
        portrait, empty = conditioning.portrait_latents(nets, pixels), conditioning.text_states(nets, "")
        told = None
        if config.unet.wants_face:
            faces = part("tbd_core.face_guide")
            boxes, _ = faces.place_face(host.image_to_pil(host.to_image(pixels)), None)
            told = faces.guide_by(config.unet, boxes, None, (64, 64), nets.imageproj, nets.face_locator)
            empty = empty if told.tokens is None else told.tokens
        spoken = host.recording(sound(seconds))
        clips = part("tbd_core.units").num_clips(spoken.num_frames)
        features = conditioning.speech_features(nets.audio_encoder, speech.normalise(spoken.waveform), clips * 14)
        job = denoise.Job(
            networks=nets,
            config=config,
            schedule=progressive.make_schedule(steps, len(PROMPTS), None, blend),
            guidance=denoise.Guidance(**pull),
            stages=tuple(conditioning.text_states(nets, text) for text in PROMPTS),
            negative=conditioning.text_states(nets, NEGATIVE),
            empty=empty,
            portrait=portrait,
            reference=denoise.see(nets.reference_unet, portrait, empty),
            seed=3,
            face=told,
        )
        before, drawn = denoise.first_motion(portrait), []
        for clip in range(clips):
            windows = speech.window_frames(features, range(clip * 14, clip * 14 + 14))
            drawn.append(denoise.draw_clip(job, windows, before, clip, clips))
            before = drawn[-1][-2:]
        return torch.cat(drawn)

    @torch.inference_mode()
    def theirs(path, steps, seconds, pull, blend):
        model, clip, vae, audio_encoder = bridge.load_bundle(path, "fp32")
        reference, _ = bridge.see_portrait(model, vae, face, (64, 64))
        audio = bridge.listen(audio_encoder, sound(seconds))
        stages = [bridge.encode_text(clip, text) for text in PROMPTS]
        positive, _ = slicing.schedule_conditioning(stages, 20, None, blend)  # another number of steps than the run's
        options = bridge.DrawOptions(
            3, steps, pull["scale"], text_scale=pull.get("text"), audio_scale=pull.get("audio")
        )
        clips = bridge.draw_clips(model, reference, audio, positive, bridge.encode_text(clip, NEGATIVE), options)
        return torch.cat(list(clips)) * model.get_model_object("latent_format").scale_factor

    def both(path, steps, seconds=0.5, pull=None, blend="hard"):
        asked = path, steps, seconds, pull or {"scale": 2.0}, blend
        return theirs(*asked), ours(*asked)

    return both


def assert_alike(pair, share=1e-3):
    """Apart by at most `share` of their own spread, at every place."""
    theirs, ours = pair
    assert theirs.shape == ours.shape
    apart = (theirs - ours).abs().max() / ours.std()
    assert apart <= share, f"{apart:.2e} of the spread of {ours.std():.3g}"


@pytest.fixture(scope="module")
def variant(part, networks, small_bundle, tmp_path_factory):
    """`variant(**scheduler)`: the small random bundle with another noise schedule; or `of` another one."""
    folder = tmp_path_factory.mktemp("variants")

    def save(of=small_bundle, **scheduler):
        nets, config = networks(of)
        config = replace(config, scheduler=replace(config.scheduler, **scheduler))
        path = folder / f"{len(list(folder.iterdir()))}.safetensors"
        part("tbd_core.checkpoint.store").save(path, nets, config, {"name": "variant"}, torch.float32)
        return path

    return save


@pytest.fixture(scope="module")
def hallo(part, small_bundle, networks, fill, tmp_path_factory):
    """`hallo(context, audio)`: a small random bundle of Hallo's kinds."""
    folder = tmp_path_factory.mktemp("hallo")

    def save(context, audio):
        _, config = networks(small_bundle)
        scheduler = replace(config.scheduler, rescale_betas_zero_snr=False)
        # At the last level one cell is left: norms over two numbers of it would make rounding a matter of signs.
        unet = replace(config.unet, context=context, audio=audio, norm_num_groups=4)
        config = replace(config, unet=unet, scheduler=scheduler)
        nets = part("tbd_core.models.build").build(config)
        for seed, (_, module) in enumerate(nets.items()):
            fill(module, seed)
        path = folder / f"{context}-{audio}.safetensors"
        part("tbd_core.checkpoint.store").save(path, nets, config, {"name": "hallo"}, torch.float32)
        return path

    return save


@pytest.fixture(scope="module")
def exact(variant):
    """Without a zero terminal SNR, whose place ComfyUI gives to a very small one: nothing but rounding may differ."""
    return variant(rescale_betas_zero_snr=False)


@pytest.fixture(scope="module")
def bundled(part):
    return part("tbd_core.config").TINY_BUNDLE


def test_the_bundled_model_draws_the_same(both_ways, bundled):
    pair = both_ways(bundled, 10, seconds=0.8, pull={"scale": 1.5})
    assert len(pair[0]) == 28  # the second clip goes on from the first
    assert_alike(pair)


@pytest.mark.parametrize(
    ("context", "audio"),
    [("both", "hierarchical"), ("face", "hierarchical"), ("text", "hierarchical"), ("both", "single")],
)
def test_hallos_kinds_draw_the_same(both_ways, hallo, context, audio):
    assert_alike(both_ways(hallo(context, audio), 4, seconds=0.8, pull={"scale": 2.0, "text": 3.0, "audio": 1.5}))


@pytest.mark.parametrize("steps", [5, 20, 25, 30, 40, 50])
def test_and_at_other_steps(both_ways, bundled, steps):
    assert_alike(both_ways(bundled, steps, pull={"scale": 1.0}))  # half the passes: it takes long enough


def test_at_twelve_steps_the_end_of_the_noise_schedule_tells(both_ways, bundled, variant):
    """ComfyUI puts a very small signal in the place of none, which in twelve steps grows to a few thousandths."""
    assert_alike(both_ways(bundled, 12), share=1e-2)
    assert_alike(both_ways(variant(bundled, rescale_betas_zero_snr=False), 12), share=1e-4)


def test_a_random_model_draws_the_same_to_rounding(both_ways, exact):
    pair = both_ways(exact, 10, seconds=0.8)
    assert len(pair[0]) == 28
    assert_alike(pair, share=1e-4)


@pytest.mark.parametrize("blend", ["paper", "smooth"])
def test_blends_are_rebuilt_for_the_runs_own_steps(both_ways, exact, blend):
    assert_alike(both_ways(exact, 5, blend=blend), share=1e-4)


@pytest.mark.parametrize(
    "pull",
    [
        {"scale": 1.0},
        {"scale": 2.0, "text": 4.0},
        {"scale": 2.0, "audio": 3.0},
        {"scale": 1.0, "text": 3.0, "audio": 0.0},
    ],
)
def test_scales_of_their_own_pull_as_in_our_loop(both_ways, exact, pull):
    assert_alike(both_ways(exact, 5, pull=pull))


@pytest.mark.parametrize("beta_schedule", ["scaled_linear", "linear"])
def test_a_bundle_that_predicts_noise_draws_the_same(both_ways, variant, beta_schedule):
    kind = {"prediction_type": "epsilon", "rescale_betas_zero_snr": False, "beta_schedule": beta_schedule}
    assert_alike(both_ways(variant(**kind), 5))


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_is_the_same_tokens(loaded, part, text):
    row = loaded.clip.tokenize(text.replace("(", "\\("))["l"]
    assert [token for token, _ in row[0]] == part("tbd_core.cot_fa.tokenizer").cut_to_budget(text)[0]


@torch.inference_mode()
def test_prompts_have_the_same_states(loaded, bridge, part, networks, small_bundle):
    nets, _ = networks(small_bundle)
    for text in TEXTS[:6]:
        expected = part("tbd_core.conditioning").text_states(nets, text)
        assert torch.allclose(bridge.encode_text(loaded.clip, text)[0][0], expected, atol=1e-5), text


@torch.inference_mode()
def test_the_autoencoder_is_the_same_both_ways(loaded, bridge, part, networks, small_bundle, face):
    nets, _ = networks(small_bundle)
    image = face[:, :64, :64]
    latents = loaded.vae.encode(image)
    expected = part("tbd_core.conditioning").portrait_latents(nets, image.movedim(-1, 1) * 2 - 1)
    scale = loaded.model.get_model_object("latent_format").scale_factor
    assert torch.allclose(latents * scale, expected, atol=1e-5)
    pictures = part("tbd_core.host").to_bytes(loaded.vae.decode(latents)).astype(int)
    assert abs(pictures - part("tbd_core.frames").decode(nets.vae, expected).astype(int)).max() <= 1


@torch.inference_mode()
def test_the_audio_encoder_hears_the_same(loaded, bridge, part, networks, small_bundle, sound):
    nets, _ = networks(small_bundle)
    heard = bridge.listen(loaded.audio_encoder, sound(0.8))
    wave = part("tbd_core.speech").normalise(heard.speech.waveform)
    expected = part("tbd_core.conditioning").speech_features(nets.audio_encoder, wave, 28)
    assert heard.features.shape == expected.shape
    assert torch.allclose(heard.features, expected, atol=1e-5)
