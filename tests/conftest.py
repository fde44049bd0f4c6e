"""What several tests share: where the pack lies, and the pack as ComfyUI would load it."""

import importlib.util
import signal
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard():
    """Also in a shell's background job, which begins with SIGINT ignored."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the pack."""
    return ROOT


@pytest.fixture(scope="session")
def pack():
    """The pack as ComfyUI loads it, under a legal alias: `from tbd_pack.nodes… import …` works afterwards."""
    spec = importlib.util.spec_from_file_location("tbd_pack", ROOT / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["tbd_pack"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def result_keys() -> list[str]:
    """What `generate` tells, in this order: a promise to programs that read its JSON."""
    return [
        "output", "frames", "fps", "seconds", "width", "height", "seed", "model", "wall_seconds", "peak_mb", "prompts",
        "warnings", "face",
    ]  # fmt: skip


@pytest.fixture
def seed() -> None:
    """torch draws the same in each test."""
    import torch

    torch.manual_seed(0)


@pytest.fixture
def no_grad():
    import torch

    with torch.no_grad():
        yield


@pytest.fixture(scope="session")
def fill():
    """`fill(module, seed)` gives every parameter a fixed random value, those that start as zero too."""
    import torch

    @torch.no_grad()
    def fill(module, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.1 * noise + (1.0 if name.endswith("weight") else 0.0))
        return module.eval()

    return fill


@pytest.fixture(scope="session")
def small_config():
    """All networks of a bundle at widths that build and run in well under a second."""
    from tbd_core.config import AudioProjectionConfig, ModelConfig, SamplingDefaults, UNetConfig

    return ModelConfig(
        preset="small",
        unet=UNetConfig(
            block_out_channels=(20, 20, 20, 20),  # unlike the widths of text and sound
            num_heads=2,
            norm_num_groups=4,
            cross_attention_dim=16,
            audio_attention_dim=24,
            motion_num_heads=2,
            reference_in=True,
            reference_out=1000,
        ),
        audio_projection=AudioProjectionConfig(layers=2, channels=16, intermediate=24, tokens=4, width=24),
        vae=dict(
            block_out_channels=[12] * 4,
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=2,
            sample_size=64,
            scaling_factor=0.5,
            second_look_width=4,
        ),
        text_encoder=dict(
            hidden_size=16, intermediate_size=32, projection_dim=16, num_hidden_layers=1, num_attention_heads=2
        ),
        audio_encoder=dict(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            conv_dim=[8] * 7,
            feat_extract_norm="layer",
            do_stable_layer_norm=True,
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
        ),
        defaults=SamplingDefaults(steps=2, guidance=2.0, size=64),
    )


@pytest.fixture(scope="session")
def small_bundle(small_config, fill, tmp_path_factory) -> Path:
    """A whole bundle of small networks with fixed random weights (nothing in them is zero), fp16."""
    import torch

    from tbd_core.checkpoint import store
    from tbd_core.models.build import build

    networks = build(small_config)
    for seed, (_, module) in enumerate(networks.items()):
        fill(module, seed)
    path = tmp_path_factory.mktemp("bundle") / "small.safetensors"
    about = {"name": "small", "training": {"command": "none", "preliminary": True}}
    store.save(path, networks, small_config, about, torch.float16)
    return path


@pytest.fixture(scope="session")
def load_anew():
    """`store.load` itself, where `loaded_once` stands in front of it."""
    from tbd_core.checkpoint import store

    return store.load


@pytest.fixture(scope="session")
def load_once(load_anew):
    """`store.load` that gives of the same file the networks it gave before."""
    from tbd_core.checkpoint import store

    loaded = {}

    def load(path, device="cpu", dtype=None):
        key = (str(path), *store.identity(path), str(device), str(dtype))
        if key not in loaded:
            loaded[key] = load_anew(path, device, dtype)
        return loaded[key]

    return load


@pytest.fixture(scope="module")
def loaded_once(load_once):
    """For tests that draw and change nothing of the networks: opening the small bundle takes as long as drawing with
    it. (Offloading hangs its hooks on networks; it wants `load_anew`.)"""
    from tbd_core.checkpoint import store

    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(store, "load", load_once)
        yield


@pytest.fixture(scope="session")
def sound():
    """`sound(seconds)`: a wavering tone as AUDIO."""
    import torch

    def make(seconds: float, rate: int = 16_000) -> dict:
        time = torch.arange(round(seconds * rate)) / rate
        wave = 0.3 * torch.sin(2 * torch.pi * 220 * time) * (0.6 + 0.4 * torch.sin(2 * torch.pi * 3 * time))
        return {"waveform": wave[None, None], "sample_rate": rate}

    return make


@pytest.fixture(scope="session")
def face():
    """A picture of 96 x 80 pixels as IMAGE: smooth, and no two places of it alike."""
    import torch

    rows, columns = torch.linspace(0, 1, 80)[:, None], torch.linspace(0, 1, 96)[None]
    red, green = (rows + columns) / 2, (6 * rows).sin() * 0.4 + 0.5 + 0 * columns
    return torch.stack([red, green, (9 * rows * columns).cos() * 0.4 + 0.5], dim=2)[None]
