"""`python tests/golden/check_parity.py FILE`: our networks against golden values of the reference implementation.

FILE is a safetensors whose header describes widths, sizes and keys; weights are not stored but follow from each key
(see `weights_of`). The last line is `max_abs_diff <number>`; the exit code is 1 above 1e-4.
"""

import json
import math
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tbd_core.config import AudioProjectionConfig, UNetConfig
from tbd_core.models.attention import AudioMasks, Context, KVCache
from tbd_core.models.audio_projection import AudioProjection, ImageProjection
from tbd_core.models.face_locator import FaceLocator
from tbd_core.models.unet import UNet


TOLERANCE = 1e-4


def weights_of(key: str, shape: list[int]) -> torch.Tensor:
    """The fixed value of one parameter: a function of its key alone."""
    if key.endswith(".pe"):
        position = np.arange(shape[1])[:, None]
        frequency = np.exp(np.arange(0, shape[2], 2) * (-math.log(10_000.0) / shape[2]))
        table = np.zeros(shape[1:])
        table[:, 0::2], table[:, 1::2] = np.sin(position * frequency), np.cos(position * frequency)
        return torch.from_numpy(table[None]).float()
    u = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).random(math.prod(shape)) - 0.5
    if len(shape) >= 2:
        u = u * math.sqrt(12 / math.prod(shape[1:]))
    else:
        u = 1 + 0.2 * u if key.endswith("weight") else 0.2 * u
    return torch.from_numpy(u.reshape(shape)).float()


def load(module: torch.nn.Module, prefix: str) -> torch.nn.Module:
    state = {k: weights_of(f"{prefix}.{k}", list(v.shape)) for k, v in module.state_dict().items()}
    module.load_state_dict(state)
    return module.eval()


def read(path: str | Path) -> tuple[dict[str, torch.Tensor], dict]:
    """All tensors of a file, and its description."""
    with safe_open(str(path), "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        return tensors, json.loads(file.metadata()["description"])


@torch.no_grad()
def outputs(path: str | Path, cached: bool = False) -> dict[str, torch.Tensor]:
    """What our networks make of the inputs in a file, named as the golden outputs are."""
    given, about = read(path)
    config = UNetConfig(
        block_out_channels=tuple(about["block_out_channels"]),
        num_heads=about["heads"],
        norm_num_groups=about["norm_num_groups"],
        cross_attention_dim=about["cross_attention_dim"],
        audio_attention_dim=about["audio_attention_dim"],
        motion_num_heads=about["heads"],
        audio="hierarchical",
    )
    plain = UNetConfig(**{**config.__dict__, "audio": "none", "motion": False})
    projection = AudioProjectionConfig(
        **about["audio_proj"], tokens=about["audio_tokens"], width=config.audio_attention_dim
    )
    denoiser = load(UNet(config), "denoising_unet")
    reference = load(UNet(plain, head=False), "reference_unet")
    locator = load(FaceLocator(config.block_out_channels[0]), "face_locator")
    audio_projection = load(AudioProjection(projection), "audioproj")
    image_projection = load(
        ImageProjection(about["face_embedding_dim"], about["face_tokens"], config.cross_attention_dim), "imageproj"
    )

    face = image_projection(given["face_embedding"])
    audio = audio_projection(given["audio_features"])
    frames = given["latents"].shape[2]
    mask = given["face_mask_image"].transpose(1, 2).flatten(0, 1)
    located = locator(mask)
    seen = reference.features(given["reference_latents"], face.expand(len(given["reference_latents"]), -1, -1))
    ctx = Context(
        text=face,
        num_frames=frames,
        reference={k: v[:1] for k, v in seen.items()},
        motion={k: v[1:].unsqueeze(0) for k, v in seen.items()},
        audio=audio,
        audio_masks=AudioMasks(*([given[f"{m}_mask.{i}"] for i in range(4)] for m in ("full", "face", "lip"))),
        audio_scale=tuple(about["motion_scale"]),
        located=located,
        cache=KVCache() if cached else None,
    )
    latents = given["latents"].transpose(1, 2).flatten(0, 1)
    timestep = torch.tensor([about["timestep"]])
    for _ in range(2 if cached else 1):  # the second forward reads what the first one kept
        noise_pred = denoiser(latents, timestep, ctx)

    return {
        "out.face_tokens": face,
        "out.audio_tokens": audio,
        "out.face_locator": located.unflatten(0, (-1, frames)).transpose(1, 2),
        "out.noise_pred": noise_pred.unflatten(0, (-1, frames)).transpose(1, 2),
    }


def run(path: str | Path, cached: bool = False) -> dict[str, float]:
    """Largest absolute difference of every stored output."""
    given, _ = read(path)
    if "out.noise_pred" not in given:
        raise SystemExit(f"{path} holds no out.noise_pred to compare with")
    ours = outputs(path, cached)
    return {name: difference(value, given[name]) for name, value in ours.items() if name in given}


def difference(ours: torch.Tensor, golden: torch.Tensor) -> float:
    """Largest absolute difference; infinite when the shapes differ (they must not be broadcast)."""
    return float((ours - golden).abs().max()) if ours.shape == golden.shape else math.inf


def main() -> int:
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python tests/golden/check_parity.py FILE\n")
        return 2
    differences = run(sys.argv[1])
    for name, value in differences.items():
        sys.stdout.write(f"{name} {value:.3g}\n")
    worst = math.nan if any(map(math.isnan, differences.values())) else max(differences.values())
    sys.stdout.write(f"max_abs_diff {worst:.6g}\n")
    return 0 if worst <= TOLERANCE else 1  # NaN is not below anything


if __name__ == "__main__":
    sys.exit(main())
