"""What a drawing will need is known before it begins, and what cannot fit is refused with what would."""

import json
import re
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tbd_core import devices, estimate, memory, pipeline
from tbd_core.checkpoint import store
from tbd_core.checkpoint.plan import networks_of
from tbd_core.checkpoint.recipe import load_recipe
from tbd_core.cli import main
from tbd_core.config import AudioProjectionConfig, GenerateOptions, UNetConfig, sd15, tiny
from tbd_core.errors import InputError
from tbd_core.flow import StepReport
from tbd_core.models import footprint
from tbd_core.models.attention import AudioMasks, Context, KVCache
from tbd_core.models.build import build_unets, build_vae
from tbd_core.units import CLIP_FRAMES, MOTION_FRAMES, TEXT_TOKENS


# Counted again, on networks without memory.


class Held(TorchDispatchMode):
    """Numbers of all tensors alive that were made since, now and at most (of 4 bytes each)."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            storage = tensor.untyped_storage()
            if not hasattr(storage, "counted"):
                storage.counted = True
                size = storage.nbytes() // 4
                self.now += size
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._gone, size)
        return out

    def _gone(self, size: int) -> None:
        self.now -= size


class Fused(TorchFunctionMode):
    """Attention as its fused kernels hold it: the result and nothing else."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is scaled_dot_product_attention:
            return torch.empty_like(args[0])
        return func(*args, **(kwargs or {}))


def rehearsed(config, size) -> dict[str, int]:
    """Numbers held at most by each network at work, and by a clip from step to step."""
    w, h = (side // 8 for side in size)
    unet = config.unet
    found = {}
    with torch.device("meta"):
        reference, denoiser = build_unets(config)
        vae = build_vae(config)
        text = torch.empty(1, TEXT_TOKENS, unet.cross_attention_dim)
        sound = torch.empty(1, CLIP_FRAMES, config.audio_projection.tokens, unet.audio_attention_dim)
        cells = [-(-h // 2**i) * -(-w // 2**i) for i in range(4)]
        masks = AudioMasks(*([torch.empty(CLIP_FRAMES, n) for n in cells] for _ in range(3)))
        with torch.inference_mode(), Fused(), Held() as held:
            seen = reference.features(torch.empty(1, 4, h, w), text)
            found["features"] = sum(value.numel() for value in seen.values())
            held.most = held.now
            motion = reference.features(torch.empty(MOTION_FRAMES, 4, h, w), text.expand(MOTION_FRAMES, -1, -1))
            found["seeing"], held.most = held.most, held.now
            ctx = Context(
                text=text, num_frames=CLIP_FRAMES, reference=seen, audio=sound, audio_masks=masks, cache=KVCache(),
                motion={name: value.unsqueeze(0) for name, value in motion.items()},
                words=text if unet.context == "both" else None,
            )  # fmt: skip
            denoiser(torch.empty(CLIP_FRAMES, 4, h, w), torch.empty(1), ctx)
            found["drawing"], found["kept"] = held.most, held.now
        with torch.inference_mode(), Fused(), Held() as held:
            vae.decode(torch.empty(1, 4, h, w))
            found["decoding"] = held.most
    return found


# SD 1.5's widths by five, the other networks as they are: what is counted again takes seconds instead of a minute.
NARROW = UNetConfig((64, 128, 256, 256), 8, 32, 96, 96)
FORMS = {
    "Hallo's with text": (
        replace(sd15(), unet=replace(NARROW, audio="hierarchical", context="both"),
                audio_projection=AudioProjectionConfig(width=96)), (320, 192),
    ),
    "the small one": (tiny(), (128, 128)),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_what_networks_hold_at_work_is_as_estimated(form):
    config, size = FORMS[form]
    found = rehearsed(config, size)
    assert footprint.features(config.unet, size) == found["features"]
    assert footprint.kept(config, size, 1) == pytest.approx(found["kept"], rel=0.1)
    assert footprint.drawing(config, size, 1) == pytest.approx(found["drawing"], rel=0.05)
    assert footprint.seeing(config, size) == pytest.approx(found["seeing"], rel=0.03)
    at_once = min(CLIP_FRAMES, max(1, 14 * 128 * 128 // (size[0] * size[1])))
    decoded = footprint.decoding(config, size) - footprint.features(config.unet, size)
    assert decoded == pytest.approx(at_once * found["decoding"], rel=0.01)


# Weights.


def test_the_header_alone_says_how_many_numbers_each_network_has(small_bundle):
    numbers, largest = estimate.count(store.read_header(small_bundle))
    networks, _ = store.load(small_bundle)
    assert numbers == {name: sum(v.numel() for v in net.state_dict().values()) for name, net in networks.items()}
    layers = [m for _, net in networks.items() for m in net.modules()]
    assert largest == max(sum(p.numel() for p in layer.parameters(recurse=False)) for layer in layers)


def test_what_stays_in_the_file_is_not_counted():
    header = {"__metadata__": {}, "portraits.mean": {"shape": [64]}, "vae.conv.weight": {"shape": [2, 3]},
              "vae.conv.bias": {"shape": [2]}}  # fmt: skip
    assert estimate.count(header) == ({"vae": 8}, 8)


# As counted on the reference implementation: SD's part 859.5, hierarchical audio 212.8; of AnimateDiff's 453.2 the
# fourth level's motion modules (5, 180.4) never run and are not built. ReferenceNet has no output layers.
REFERENCE = 859.51
FULL = {
    "paper-init": {"denoising_unet": 859.52 + 267.24 + 272.85, "reference_unet": REFERENCE},
    "hallo-compat": {"denoising_unet": 859.52 + 212.8 + 272.85, "reference_unet": REFERENCE, "imageproj": 1.58,
                     "face_locator": 0.51},
    "hallo-text": {"denoising_unet": 859.52 + 212.8 + 272.85 + 43.98, "reference_unet": REFERENCE, "imageproj": 1.58,
                   "face_locator": 0.51},
}  # fmt: skip
OTHERS = {"vae": 83.65, "text_encoder": 123.06, "audio_encoder": 94.37, "audioproj": 36.47}


@pytest.mark.parametrize("recipe", FULL)
def test_at_full_size_each_network_has_the_reference_s_parameters(recipe):
    """Millions, built without memory."""
    networks = networks_of(load_recipe(recipe).config)
    found = {name: sum(p.numel() for p in net.parameters()) / 1e6 for name, net in networks.items()}
    assert found == pytest.approx(FULL[recipe] | OTHERS, rel=1e-3, abs=0.01)


# What it needs, and where.


@pytest.fixture
def full() -> estimate.Drawing:
    weights = {"denoising_unet": 1431_000_000, "reference_unet": 859_000_000, "vae": 84_000_000,
               "text_encoder": 123_000_000, "audio_encoder": 94_000_000, "audioproj": 36_000_000}  # fmt: skip
    return estimate.Drawing(weights, 38_000_000, sd15(), (512, 512), "fp32", "none", True, 3, "cuda:0")


def test_each_offload_needs_less_than_the_one_before(full):
    none, cpu, sequential = (replace(full, offload=how) for how in ("none", "cpu", "sequential"))
    work = 4 * footprint.drawing(full.config, full.size, 3)
    assert estimate.need(none) == 4 * sum(full.weights.values()) + work
    assert estimate.need(cpu) == 4 * (1431_000_000 + 36_000_000) + work
    assert estimate.need(sequential) == 4 * 38_000_000 + work
    assert set(estimate.parts(cpu)) == {"denoiser", "encoders", "drawing"}
    assert estimate.need(replace(none, dtype="fp16")) == estimate.need(none) / 2


def test_offloading_saves_nothing_of_the_machine_s_own_memory(full):
    here = replace(full, own_memory=False, device="cpu")
    needs = {estimate.need(replace(here, offload=how)) for how in ("none", "cpu", "sequential")}
    assert needs == {estimate.need(full) + estimate.PROGRAM}


def test_weights_that_wait_need_room_in_the_machine_s_memory(full, monkeypatch):
    monkeypatch.setattr(estimate, "pick_device", torch.device)
    monkeypatch.setattr(estimate, "free_memory", lambda device: 24_000_000_000)
    monkeypatch.setattr(estimate, "available", lambda: 10_000_000_000)
    with pytest.raises(
        InputError, match=r"--offload cpu keeps 10\.5 GB of weights \(fp32\) .* of which 10\.0 GB are free"
    ):
        estimate.estimated(replace(full, offload="cpu"))
    assert estimate.estimated(replace(full, offload="cpu", dtype="fp16")).device == "cuda:0"
    assert estimate.estimated(full).free == 24_000_000_000


def test_it_is_said_by_part_with_what_is_free(full):
    said = str(estimate.Estimate("cuda:0", estimate.parts(replace(full, dtype="fp16")), 23_900_000_000))
    assert re.fullmatch(
        r"needs about 6\.\d GB of memory on cuda:0 \(denoiser 2\.9 GB, ReferenceNet 1\.7 GB, encoders 506 MB, "
        r"VAE 168 MB, drawing 1\.\d GB\); 23\.9 GB are free", said
    )  # fmt: skip
    assert "free" not in str(estimate.Estimate("mps", {"VAE": 1}, None))


def refusal(job: estimate.Drawing, free: float) -> str:
    with pytest.raises(InputError) as caught:
        estimate.require_room(job, int(free))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_fit_is_refused_with_everything_that_would(full):
    said = refusal(full, 9e9)
    assert "drawing at 512x512 in fp32 with --offload none needs about 13.0 GB on cuda:0 (denoiser 5.7 GB" in said
    assert "of which 9.0 GB are free; what fits: --offload cpu (8." in said and "--dtype fp16 (6." in said
    assert "--size" not in said  # the weights alone are 10.5 GB
    said = refusal(full, 12e9)
    width, height, needs = re.search(r"--size (\d+)x(\d+) \((\d+\.\d) GB\)", said).groups()
    assert width == height and int(width) % 8 == 0 and float(needs) <= 12
    assert estimate.need(replace(full, size=(int(width), int(height)))) <= 12e9
    assert estimate.need(replace(full, size=(int(width) * 10 // 9, int(height) * 10 // 9))) > 12e9


def test_when_one_change_is_not_enough_so_many_together_are_told_as_it_takes(full):
    assert "what fits: --offload sequential --dtype fp16 (1.3 GB)" in refusal(full, 2e9)
    assert re.search(r"what fits: --offload sequential --dtype fp16 --size \d+x\d+ \(\d+ MB\)", refusal(full, 3e8))
    assert re.search(r"even --offload sequential .* needs \d+ MB: use another --device", refusal(full, 1e6))


def test_what_fits_or_is_unknown_passes(full):
    estimate.require_room(full, estimate.need(full))
    estimate.require_room(full, None)


@pytest.fixture
def options(small_bundle, tmp_path) -> GenerateOptions:
    Image.effect_noise((64, 64), 90).convert("RGB").save(tmp_path / "portrait.png")
    soundfile.write(tmp_path / "speech.wav", 0.3 * np.sin(np.arange(8_000) / 20), 16_000)
    output = tmp_path / "out" / "talking.mp4"
    return GenerateOptions(tmp_path / "portrait.png", tmp_path / "speech.wav", output, "happy", model=small_bundle,
                           dtype="fp32", device="cpu")  # fmt: skip


def test_a_drawing_without_room_is_refused_before_a_network_is_loaded(options, monkeypatch):
    monkeypatch.setattr(pipeline.store, "load", lambda *_: pytest.fail("a network was loaded"))
    monkeypatch.setattr(estimate, "free_memory", lambda device: 1_000_000)
    with pytest.raises(InputError, match=r"drawing at 64x64 in fp32 .* on cpu .*, of which 1 MB are free; "):
        pipeline.generate(options)
    assert not options.output.parent.exists()


def test_a_thinker_that_stays_is_no_longer_free_memory(options, monkeypatch):
    free = iter([10**12, 1_000_000])
    monkeypatch.setattr(estimate, "free_memory", lambda device: next(free))
    monkeypatch.setattr(pipeline.store, "load", lambda *_: pytest.fail("a network was loaded"))
    with pytest.raises(InputError, match=r"on cpu .*, of which 1 MB are free; "):
        pipeline.generate(replace(options, thinker_stays=True))


def test_the_estimate_is_told_before_a_network_is_loaded(options, monkeypatch):
    told = []

    class LoadedError(Exception):
        pass

    def load(*_):
        raise LoadedError

    monkeypatch.setattr(pipeline.store, "load", load)
    with pytest.raises(LoadedError):
        pipeline.generate(options, on_estimate=told.append)
    assert len(told) == 1 and told[0].device == "cpu" and told[0].total < told[0].free


def test_the_command_line_says_memory_first_and_then_the_time_beside_its_result(options, capsys):
    given = {"portrait": options.portrait, "speech": options.speech, "output": options.output, "emotion": "happy",
             "model": options.model, "device": "cpu", "offload": "cpu"}  # fmt: skip
    code = main(["generate", "--json", *(part for key, value in given.items() for part in (f"--{key}", str(value)))])
    out, err = capsys.readouterr()
    assert code == 0 and any("gains nothing on cpu" in text for text in json.loads(out)["warnings"])
    memory_said, time_said = err.index("needs about"), err.index("to go (1 x 2 steps, ")
    assert memory_said < time_said and " of memory on cpu (" in err and " s each, measured)" in err


# Free memory.


def test_free_memory_of_the_machine_ends_at_a_container_s_limit(tmp_path, monkeypatch):
    names = (tmp_path, "memory.max", "memory.current", "inactive_file")
    monkeypatch.setattr(memory, "LIMITS", ((tmp_path / "none", *names[1:]), names))
    (tmp_path / "memory.current").write_text("3000000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 500000\n")
    (tmp_path / "memory.max").write_text("max\n")
    unlimited = memory.available()
    assert unlimited > 100_000_000
    (tmp_path / "memory.max").write_text("5000000\n")
    assert memory.available() == 2_500_000
    assert devices.free_memory(torch.device("cpu")) == 2_500_000


def test_memory_that_torch_has_put_by_counts_as_free(monkeypatch):
    gpu = SimpleNamespace(mem_get_info=lambda d: (10, 99), memory_reserved=lambda d: 7, memory_allocated=lambda d: 4)
    monkeypatch.setattr(torch, "cuda", gpu)
    assert devices.free_memory(torch.device("cuda", 0)) == 13


# Time.


def test_the_time_to_go_comes_from_the_second_step_and_is_said_once():
    pace = estimate.Pace()
    times = [pace(StepReport(clip, 3, step, 10), now) for clip, step, now in ((0, 1, 50), (0, 2, 52), (0, 3, 99))]
    assert times[0] is None and times[2] is None
    assert times[1] == "about 56 s to go (3 x 10 steps, 2.00 s each, measured) and the decoding"


def test_a_run_that_goes_on_has_only_the_rest_to_go():
    pace = estimate.Pace()
    pace(StepReport(2, 4, 1, 40), 0.0)
    assert pace(StepReport(2, 4, 2, 40), 5.0).startswith("about 7 min to go (2 x 40 steps, 5.00 s")


@pytest.mark.parametrize(("seconds", "said"), [(0.2, "1 s"), (89, "89 s"), (90, "2 min"), (5341, "1 h 30 min")])
def test_durations_are_said_in_words(seconds, said):
    assert estimate.duration(seconds) == said
