"""Our networks against others': Hallo's golden values and key table, diffusers' blocks and whole U-Net."""

import importlib.util
import json
import math
import re
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tbd_core.config import UNetConfig, replace, sd15
from tbd_core.models.attention import Context, SpatialTransformer, TransformerBlock
from tbd_core.models.audio_projection import AudioProjection, ImageProjection
from tbd_core.models.build import build_unets
from tbd_core.models.face_locator import FaceLocator
from tbd_core.models.unet import Downsample, ResnetBlock, UNet, Upsample, timestep_embedding


# Hallo holds these and never runs them at inference; they are not built here.
NEVER_RUN = ("denoising_unet.down_blocks.3.motion_modules.", "denoising_unet.up_blocks.0.motion_modules.")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def golden(root):
    return root / "tests" / "golden" / "hallo_parity_a.safetensors"


@pytest.fixture(scope="module")
def parity(root):
    """`tests/golden/check_parity.py` as a module."""
    spec = importlib.util.spec_from_file_location("check_parity", root / "tests" / "golden" / "check_parity.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    weights_of, made = module.weights_of, {}

    def once(key, shape):
        """A weight follows from its key and shape; copying it is faster than drawing it again."""
        place = (key, *shape)
        if place not in made:
            made[place] = weights_of(key, shape)
        return made[place]

    module.weights_of = once
    return module


@pytest.fixture
def check(parity, monkeypatch, capsys):
    """Runs the script on a file; returns its exit code and the number in its last line."""

    def check(path) -> tuple[int, float]:
        monkeypatch.setattr(sys, "argv", ["check_parity.py", str(path)])
        code = parity.main()
        name, number = capsys.readouterr().out.splitlines()[-1].split()
        assert name == "max_abs_diff"
        return code, float(number)

    return check


# Hallo.


OUTPUTS = ["out.face_tokens", "out.audio_tokens", "out.face_locator", "out.noise_pred"]


@pytest.fixture(scope="module")
def found(parity, golden):
    return parity.run(golden)


def test_every_golden_value_is_found_within_1e_4(found):
    assert list(found) == OUTPUTS and all(0 <= worst <= 1e-4 for worst in found.values())


@pytest.mark.slow  # another process imports torch
def test_the_script_finds_every_golden_value_within_1e_4(root, golden):
    script = root / "tests" / "golden" / "check_parity.py"
    done = subprocess.run([sys.executable, script, golden], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    found = re.fullmatch(r"max_abs_diff (\S+)", last)
    assert found and 0 <= float(found[1]) <= 1e-4
    assert [line.split()[0] for line in lines] == OUTPUTS


def test_golden_values_hold_with_cached_keys_and_values(parity, golden, found):
    cached = parity.run(golden, cached=True)
    assert max(cached.values()) <= 1e-4
    assert cached["out.noise_pred"] == pytest.approx(found["out.noise_pred"], abs=1e-5)


@pytest.mark.parametrize("wrong", [0.01, math.nan])
def test_the_script_refuses_one_changed_value(parity, check, golden, tmp_path, wrong):
    tensors, about = parity.read(golden)
    tensors["out.noise_pred"].flatten()[77] += wrong
    path = tmp_path / "tampered.safetensors"
    save_file(tensors, path, {"description": json.dumps(about)})
    code, number = check(path)
    assert code == 1
    assert math.isnan(number) if math.isnan(wrong) else number == pytest.approx(wrong, abs=1e-4)


def test_the_script_refuses_an_output_of_another_shape(parity, check, golden, tmp_path):
    tensors, about = parity.read(golden)
    tensors["out.face_tokens"] = tensors["out.face_tokens"][:, :1].contiguous()  # would broadcast
    tensors["out.noise_pred"] = tensors["out.noise_pred"][..., :1].contiguous()
    path = tmp_path / "narrow.safetensors"
    save_file(tensors, path, {"description": json.dumps(about)})
    assert check(path) == (1, math.inf)


def other_form(about: dict) -> dict:
    """Inputs at other widths, frames, windows and token counts than the shipped file's."""
    about |= {
        "block_out_channels": [16, 16, 48, 48], "cross_attention_dim": 24, "audio_attention_dim": 56, "heads": 4,
        "norm_num_groups": 8, "frames": 6, "latent_size": 16, "timestep": 999, "audio_tokens": 5, "face_tokens": 3,
        "motion_frames": 1, "motion_scale": [0.5, 1.0, 2.0], "face_embedding_dim": 12,
        "audio_proj": {"window": 3, "layers": 2, "channels": 8, "intermediate": 12},
    }  # fmt: skip
    generator = torch.Generator().manual_seed(3)
    random = lambda *shape: torch.rand(shape, generator=generator)  # noqa: E731
    F, size = about["frames"], about["latent_size"]
    given = {
        "audio_features": random(1, F, 3, 2, 8),
        "face_embedding": random(1, 12),
        "face_mask_image": random(1, 3, F, 8 * size, 8 * size),
        "latents": random(1, 4, F, size, size),
        "reference_latents": random(2, 4, size, size),
    }
    for branch in ("full", "face", "lip"):
        given |= {f"{branch}_mask.{i}": random(F, (size >> i) ** 2) for i in range(4)}
    return given


def test_the_script_reads_files_of_other_widths_frames_and_token_counts(parity, check, golden, tmp_path):
    _, about = parity.read(golden)
    given = other_form(about)
    path = tmp_path / "other.safetensors"
    given["out.noise_pred"] = torch.zeros_like(given["latents"])  # no truth yet: only says how far ours are from zero
    save_file(given, path, {"description": json.dumps(about)})
    code, number = check(path)
    assert code == 1 and 0.01 < number < math.inf

    # The same file, now with our own outputs: the script finds nothing to say, twice.
    given |= parity.outputs(path)
    assert given["out.audio_tokens"].shape == (1, 6, 5, 56) and given["out.face_tokens"].shape == (1, 3, 24)
    assert given["out.face_locator"].shape == (1, 16, 6, 16, 16)
    save_file({k: v.contiguous() for k, v in given.items()}, path, {"description": json.dumps(about)})
    code, number = check(path)
    assert code == 0 and number < 1e-5  # threads add in another order each time
    assert max(parity.run(path, cached=True).values()) <= 1e-5


def shapes(modules: dict[str, nn.Module]) -> dict[str, list[int]]:
    return {f"{name}.{key}": list(v.shape) for name, m in modules.items() for key, v in m.state_dict().items()}


@pytest.fixture(scope="module")
def full_width():
    """Key -> shape of our networks as Hallo's weights need them."""
    config = sd15()
    with torch.device("meta"):
        reference, denoiser = build_unets(replace(config, unet=replace(config.unet, audio="hierarchical")))
        return shapes(
            {
                "reference_unet": reference,
                "denoising_unet": denoiser,
                "face_locator": FaceLocator(),
                "imageproj": ImageProjection(),
                "audioproj": AudioProjection(config.audio_projection),
            }
        )


def test_keys_and_shapes_at_full_width_are_those_of_net_pth(root, full_width):
    table = json.loads((root / "tests" / "golden" / "hallo_netpth_keys.json").read_text())
    assert len(table) == 2656
    left_out = {key for key in table if key.startswith(NEVER_RUN)}
    assert len(left_out) == 140
    assert full_width == {key: shape for key, shape in table.items() if key not in left_out}


def test_the_paper_s_form_differs_from_hallo_s_only_in_its_audio_modules(full_width):
    with torch.device("meta"):
        reference, denoiser = build_unets(sd15())
    ours = shapes({"reference_unet": reference, "denoising_unet": denoiser})
    theirs = {key: shape for key, shape in full_width.items() if "_unet." in key}
    different = {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
    assert different and all(".audio_modules." in key for key in different)


# diffusers. Weights go over by name, strictly; faint inputs, so that each norm's epsilon counts.


@pytest.mark.parametrize("channels", [(32, 32), (32, 48)])
def test_resnet_block_equals_diffusers(fill, channels):
    from diffusers.models.resnet import ResnetBlock2D

    into, out = channels
    ours = fill(ResnetBlock(into, out, 64, 16))
    theirs = ResnetBlock2D(in_channels=into, out_channels=out, temb_channels=64, groups=16, eps=1e-5).eval()
    theirs.load_state_dict(ours.state_dict())
    hidden, time = 0.01 * torch.randn(2, into, 6, 5), torch.randn(2, 64)
    assert torch.allclose(ours(hidden, time), theirs(hidden, time), atol=1e-5)


def test_transformer_block_equals_diffusers(fill):
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    ours = fill(SpatialTransformer(48, 48, 16, TransformerBlock(48, 4, 24)))
    theirs = Transformer2DModel(
        num_attention_heads=4,
        attention_head_dim=12,
        in_channels=48,
        num_layers=1,
        norm_num_groups=16,
        cross_attention_dim=24,
        use_linear_projection=False,
    ).eval()
    theirs.load_state_dict(ours.state_dict())
    hidden, text = 0.01 * torch.randn(2, 48, 6, 5), torch.randn(2, 7, 24)
    (expected,) = theirs(hidden, encoder_hidden_states=text, return_dict=False)
    assert torch.allclose(ours(hidden, Context(text=text), "here"), expected, atol=1e-5)


def test_samplers_equal_diffusers(fill):
    from diffusers.models.downsampling import Downsample2D
    from diffusers.models.upsampling import Upsample2D

    hidden = torch.randn(2, 16, 5, 6)
    down, up = fill(Downsample(16)), fill(Upsample(16))
    theirs = Downsample2D(16, use_conv=True, padding=1, name="op")
    theirs.load_state_dict(down.state_dict(), strict=False)
    theirs.conv.load_state_dict(down.conv.state_dict())
    assert torch.allclose(down(hidden), theirs(hidden), atol=1e-6)
    theirs = Upsample2D(16, use_conv=True)
    theirs.load_state_dict(up.state_dict())
    for size in ((10, 12), (9, 11)):
        assert torch.allclose(up(hidden, size), theirs(hidden, output_size=size), atol=1e-6)


@pytest.mark.parametrize("dim", [32, 320])
def test_timestep_embedding_equals_diffusers(dim):
    from diffusers.models.embeddings import get_timestep_embedding

    timestep = torch.tensor([0, 1, 501, 999])
    expected = get_timestep_embedding(timestep, dim, flip_sin_to_cos=True, downscale_freq_shift=0)
    assert torch.allclose(timestep_embedding(timestep, dim), expected, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("size", [(16, 8), (9, 13)])
def test_the_plain_unet_equals_diffusers(fill, size):
    from diffusers import UNet2DConditionModel

    widths = (32, 64, 96, 128)
    ours = fill(UNet(UNetConfig(widths, 4, 16, cross_attention_dim=24, audio="none", motion=False)))
    theirs = UNet2DConditionModel(
        block_out_channels=widths, attention_head_dim=4, norm_num_groups=16, cross_attention_dim=24
    ).eval()
    theirs.load_state_dict(ours.state_dict())
    latents, timestep, text = torch.randn(2, 4, *size), torch.tensor([7, 801]), torch.randn(2, 5, 24)
    expected = theirs(latents, timestep, encoder_hidden_states=text).sample
    assert expected.std() > 0.1
    assert torch.allclose(ours(latents, timestep, Context(text=text)), expected, atol=1e-4)
