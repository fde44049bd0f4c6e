"""Where weights wait changes what memory holds, and nothing that is drawn."""

from dataclasses import replace
from types import SimpleNamespace

import accelerate.hooks
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from tbd_core import denoise, frames, offload, pipeline
from tbd_core.checkpoint import store
from tbd_core.conditioning import speech_features
from tbd_core.config import GenerateOptions
from tbd_core.devices import place
from tbd_core.errors import InputError
from tbd_core.models.build import build_audio_encoder
from tbd_core.speech import window_frames


CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(folder / "portrait.png")
    soundfile.write(folder / "speech.wav", 0.3 * np.sin(np.arange(17_000) / 20), 16_000)  # 27 frames, two clips
    return folder


@pytest.fixture
def options(inputs, small_bundle, tmp_path) -> GenerateOptions:
    return GenerateOptions(
        portrait=inputs / "portrait.png", speech=inputs / "speech.wav", output=tmp_path / "out" / "talking.mp4",
        emotion="happy", model=small_bundle, dtype="fp32", device="cpu",
    )  # fmt: skip


def drawn(options: GenerateOptions) -> dict:
    """One clip and all it was drawn from."""
    job, heard = pipeline.prepare(pipeline.plan(options))
    windows = window_frames(heard, range(14))
    latents = denoise.draw_clip(job, windows, denoise.first_motion(job.portrait), 0, 1)
    pictures = torch.from_numpy(frames.decode(job.networks.vae, latents))
    found = {"heard": heard, "portrait": job.portrait, "negative": job.negative, **job.reference}
    return {**found, "drawn": latents, "pictures": pictures}


@pytest.fixture(scope="module")
def plainly(inputs, small_bundle, tmp_path_factory):
    output = tmp_path_factory.mktemp("plain") / "x.mp4"
    return drawn(
        GenerateOptions(inputs / "portrait.png", inputs / "speech.wav", output, "happy", model=small_bundle,
                        dtype="fp32", device="cpu")
    )  # fmt: skip


@pytest.mark.parametrize("how", ["cpu", "sequential"])
def test_wherever_weights_wait_the_same_is_drawn_bit_for_bit(options, plainly, how):
    found = drawn(replace(options, offload=how))
    assert found.keys() == plainly.keys() and len(found) == 5 + 18
    assert all(torch.equal(found[name], plainly[name]) for name in found)
    assert plainly["latents"].std() > 0.1


def test_one_stage_s_networks_are_on_the_device_at_once(options, monkeypatch):
    """What is brought between two times that all is sent away; `free` sends everything."""
    there, stages = set(), []
    bring, send = accelerate.hooks.CpuOffload.pre_forward, accelerate.hooks.UserCpuOffloadHook.offload

    def brought(hook, module, *args, **kwargs):
        there.add(type(module).__name__)
        return bring(hook, module, *args, **kwargs)

    def sent(hook):
        if there:
            stages.append(frozenset(there))
            there.clear()
        return send(hook)

    monkeypatch.setattr(accelerate.hooks.CpuOffload, "pre_forward", brought)
    monkeypatch.setattr(accelerate.hooks.UserCpuOffloadHook, "offload", sent)
    job = pipeline.plan(replace(options, offload="cpu", guidance=1.0))
    for _ in pipeline.draw(job, pipeline.PartStore(options.output, {}), None):
        pass
    ears = {"Wav2Vec2FeatureEncoder", "Wav2Vec2FeatureProjection", "Wav2Vec2EncoderStableLayerNorm"}
    clip = [{"UNet"}, {"AudioProjection", "UNet"}, {"FoldedAutoencoderKL"}]
    assert stages == [{"CLIPTextModel"}, {"FoldedAutoencoderKL"}, ears, {"UNet"}, *clip, *clip]
    assert not there


def test_layer_by_layer_no_weight_stays_and_a_network_still_knows_its_place(small_bundle):
    networks, _ = store.load(small_bundle)
    plain = {name: place(network) for name, network in networks.items()}
    free = offload.arrange(networks, CPU, "sequential")
    free()
    for name, network in networks.items():
        assert {parameter.device.type for parameter in network.parameters()} == {"meta"}
        assert place(network) == plain[name] == (CPU, torch.float32)


def test_a_network_s_place_is_where_it_computes_not_where_it_waits(small_bundle):
    networks, _ = store.load(small_bundle, dtype=torch.bfloat16)
    elsewhere = torch.device("meta")
    offload.arrange(networks, elsewhere, "cpu")
    for _, network in networks.items():
        assert place(network) == (elsewhere, torch.bfloat16)
        assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}


def test_nothing_is_arranged_without_offload(small_bundle):
    networks, _ = store.load(small_bundle)
    assert offload.arrange(networks, CPU, "none") is offload.nothing
    assert not any(hasattr(module, "_hf_hook") for _, network in networks.items() for module in network.modules())


def test_an_unknown_offload_is_refused_with_those_there_are(options):
    with pytest.raises(InputError, match="unknown offload 'disk'; choose one of none, cpu, sequential"):
        pipeline.plan(replace(options, offload="disk"))


def test_on_the_machine_s_own_memory_it_is_said_once_that_nothing_is_gained(options):
    said = [text for text in pipeline.plan(replace(options, offload="cpu")).warnings if "--offload" in text]
    assert len(said) == 1 and "--offload cpu gains nothing on cpu" in said[0] and "leave it out" in said[0]
    assert not any("--offload" in text for text in pipeline.plan(options).warnings)
    assert offload.gains_nothing("sequential", torch.device("cuda", 0)) is None


# Memory that runs out.


def too_much(clip: int, monkeypatch, what) -> list[int]:
    """From `clip` on memory runs out. Returns the clips that are asked for."""
    asked, draw = [], denoise.draw_clip

    def draw_clip(job, windows, before, index, *rest):
        asked.append(index)
        if index >= clip:
            what()
        return draw(job, windows, before, index, *rest)

    monkeypatch.setattr(denoise, "draw_clip", draw_clip)
    return asked


def no_memory() -> None:
    raise MemoryError


def no_device_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity of ...")


LACKS = {"torch": (lambda: torch.empty(2**55), "144115188075855872 bytes", "sequential"),
         "python": (no_memory, "MemoryError", "cpu"),
         "cuda": (no_device_memory, "Tried to allocate 2.00 GiB", "cpu")}  # fmt: skip


@pytest.mark.parametrize("lack", LACKS)
def test_when_memory_runs_out_it_is_one_message_and_the_run_goes_on_offloaded(options, monkeypatch, lack, load_once):
    what, told, how = LACKS[lack]
    options = replace(options, guidance=1.0)  # one pass a step
    with monkeypatch.context() as patched:
        patched.setattr(store, "load", load_once)
        too_much(1, patched, what)
        with pytest.raises(InputError, match="memory of cpu ran out after 1 of 2 clips") as caught:
            pipeline.generate(options)
    said = str(caught.value)
    assert "\n" not in said and told in said and "what is finished is kept" in said and "--dtype bf16" in said
    assert not options.output.exists()
    asked = too_much(9, monkeypatch, no_memory)
    pipeline.generate(replace(options, offload=how))
    assert asked == [1]


def test_another_error_of_the_run_is_not_called_a_lack_of_memory(options, monkeypatch, load_once):
    monkeypatch.setattr(store, "load", load_once)

    def broken():
        raise RuntimeError("shapes do not fit")

    too_much(0, monkeypatch, broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        pipeline.generate(options)


# An audio encoder that hears all at once is called layer by layer.


@pytest.mark.parametrize("how", ["cpu", "sequential"])
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_an_encoder_that_hears_the_whole_waits_too(small_config, fill, norm, how):
    config = {**small_config.audio_encoder, "feat_extract_norm": norm, "do_stable_layer_norm": norm == "layer"}
    encoder = fill(build_audio_encoder(replace(small_config, audio_encoder=config)))
    sound = torch.randn(25 * 640, generator=torch.Generator().manual_seed(0))
    plain = speech_features(encoder, sound, 25, chunk=None)
    free = offload.arrange(SimpleNamespace(items=lambda: [("audio_encoder", encoder)]), CPU, how)
    assert torch.equal(speech_features(encoder, sound, 25, chunk=None), plain)
    free()
    kinds = {parameter.device.type for parameter in encoder.parameters()}
    assert kinds == {"cpu" if how == "cpu" else "meta"}
