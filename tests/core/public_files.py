"""Public weight files at any width, as the public tools write them: the real classes' own `save_pretrained` where there
is one; else the names and wrappings of the published file."""

import json
from pathlib import Path

import torch
from torch import nn

from tbd_core.checkpoint.key_maps import OLD_VAE_ATTENTION, ldm_unet, ldm_vae
from tbd_core.config import ModelConfig, replace
from tbd_core.models.build import build_audio_encoder, build_text_encoder, build_unets


State = dict[str, torch.Tensor]


def randomise(module: nn.Module, seed: int) -> nn.Module:
    """Nothing is zero or one, so that no tensor passes for another."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 8)
    return module.eval()


def sd(config: ModelConfig) -> dict[str, nn.Module]:
    """SD 1.5's parts as diffusers and transformers build them."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    unet = UNet2DConditionModel(
        block_out_channels=config.unet.block_out_channels,
        attention_head_dim=config.unet.num_heads,
        norm_num_groups=config.unet.norm_num_groups,
        cross_attention_dim=config.unet.cross_attention_dim,
    )
    parts = {"unet": unet, "vae": AutoencoderKL(**config.vae), "text_encoder": build_text_encoder(config)}
    return {name: randomise(part, seed) for seed, (name, part) in enumerate(parts.items())}


def state(module: nn.Module) -> State:
    return {key: value.detach().clone() for key, value in module.state_dict().items()}


def diffusers_folder(folder: Path, parts: dict[str, nn.Module], **options) -> Path:
    """`options` are diffusers' of `save_pretrained` for U-Net and VAE: safe_serialization, max_shard_size, variant."""
    for name, part in parts.items():
        part.save_pretrained(folder / name, **({} if name == "text_encoder" else options))
    (folder / "model_index.json").write_text("{}")
    return folder


def old_vae(parts: dict[str, nn.Module]) -> State:
    """sd-vae-ft-mse as it was published: attention called query, key, value, proj_attn."""
    made = {}
    for key, value in state(parts["vae"]).items():
        for new, old in OLD_VAE_ATTENTION.items():
            key = key.replace(f".{new}.", f".{old}.")
        made[key] = value
    return made


def ldm(parts: dict[str, nn.Module]) -> State:
    """v1-5-pruned-emaonly: latent diffusion's names, a VAE whose attention is 1 × 1 convolutions, the schedule."""
    made = {f"model.diffusion_model.{ldm_unet(key)}": value for key, value in state(parts["unet"]).items()}
    for key, value in state(parts["vae"]).items():
        name = f"first_stage_model.{ldm_vae(key)}"
        made[name] = value[:, :, None, None] if ".attn_1." in name and value.ndim == 2 else value
    for key, value in state(parts["text_encoder"]).items():
        made[f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}"] = value
    made["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    made["alphas_cumprod"], made["model_ema.decay"] = torch.rand(1000), torch.tensor(0.9999)
    return made


def lightning(path: Path, tensors: State) -> Path:
    """.ckpt as PyTorch Lightning writes it: beside the state dict stand a class of its own and numpy's numbers, under
    the names of numpy 1 and of numpy 2."""
    import sys
    import types

    import numpy as np

    places = {
        "pytorch_lightning.callbacks.model_checkpoint": "ModelCheckpoint",
        "numpy.core.multiarray": "scalar", "numpy._core.multiarray": "scalar",
    }  # fmt: skip
    kinds = {module: type(name, (), {"__module__": module}) for module, name in places.items()}

    class Number:
        def __init__(self, module: str):
            self.module = module

        def __reduce__(self):
            return kinds[self.module], (np.dtype("float64"), bytes(7) + b"\xf0")

    parents = {".".join(module.split(".")[:i]) for module in places for i in (1, 2)} - {"numpy"}
    stubs = {name: types.ModuleType("stub") for name in (*parents, *places)}
    for module, kind in kinds.items():
        setattr(stubs[module], places[module], kind)
    callback, old, new = places
    best = {"best": Number(old), "last": Number(new), "path": None}
    before = {name: sys.modules.get(name) for name in stubs}
    sys.modules.update(stubs)
    try:
        torch.save({"epoch": 0, "global_step": 1, "state_dict": tensors, "callbacks": {kinds[callback]: best}}, path)
    finally:
        for name, module in before.items():
            sys.modules.pop(name) if module is None else sys.modules.__setitem__(name, module)
    return path


def hallo_names(root: Path) -> dict[str, list[int]]:
    """Key → shape at full width."""
    return json.loads((root / "tests" / "golden" / "hallo_netpth_keys.json").read_text())


def hallo(config: ModelConfig, names: list[str]) -> State:
    """net.pth at the widths of `config`; motion modules that are never run have those of the block beside them."""
    from tbd_core.models.audio_projection import AudioProjection
    from tbd_core.models.build import build_face

    config = replace(config, unet=replace(config.unet, audio="hierarchical", context="face"))
    reference, denoiser = build_unets(config)
    nets = {"reference_unet": reference, "denoising_unet": denoiser, **build_face(config)}
    nets["audioproj"] = AudioProjection(config.audio_projection)
    own = {}
    for seed, (name, net) in enumerate(nets.items(), start=20):
        own |= {f"{name}.{key}": value for key, value in state(randomise(net, seed)).items()}
    twin = {"down_blocks.3.motion": "down_blocks.2.motion", "up_blocks.0.motion": "up_blocks.1.motion"}
    made = {}
    for name in names:
        alike = name
        for dead, alive in twin.items():
            alike = alike.replace(dead, alive)
        made[name] = own[alike] if alike == name else own[alike] + 1
    return made


def motion(net_pth: State) -> State:
    """mm_sd_v15_v2.ckpt: all motion modules of Hallo's names, other values."""
    within = "denoising_unet."
    return {
        key.removeprefix(within): value if key.endswith(".pe") else value * 0.5
        for key, value in net_pth.items()
        if key.startswith(within) and ".motion_modules." in key
    }


def wav2vec2(config: ModelConfig) -> nn.Module:
    """wav2vec2-base-960h: with the head that writes letters."""
    from transformers import Wav2Vec2ForCTC

    return randomise(Wav2Vec2ForCTC(build_audio_encoder(config).config), 5)


def weight_norm_names(tensors: State) -> State:
    """As transformers wrote them before torch's parametrizations."""
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    made = {}
    for key, value in tensors.items():
        for new, old in names.items():
            key = key.replace(new, old)
        made[key] = value
    return made
