"""Our key names → those of the public files, as tables, and what a file is by the names in it.

A *kind* is a sort of weights a recipe can take; its layouts are the spellings in which such weights are found. The one
that finds most keys is used (`spelling`). Ours are diffusers' (SD 1.5), AnimateDiff's, Hallo's and transformers' names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple


class Layout(NamedTuple):
    name: str
    rename: Callable[[str], str]  # our key without its network's name → the file's


# SD 1.5 in one file (latent diffusion's names). Four levels, two layers a block down, three up.
LDM_UNET = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    **{f"down_blocks.{i}.resnets.{j}": f"input_blocks.{3 * i + 1 + j}.0" for i in range(4) for j in range(2)},
    **{f"down_blocks.{i}.attentions.{j}": f"input_blocks.{3 * i + 1 + j}.1" for i in range(3) for j in range(2)},
    **{f"down_blocks.{i}.downsamplers.0.conv": f"input_blocks.{3 * i + 3}.0.op" for i in range(3)},
    **{f"up_blocks.{i}.resnets.{j}": f"output_blocks.{3 * i + j}.0" for i in range(4) for j in range(3)},
    **{f"up_blocks.{i}.attentions.{j}": f"output_blocks.{3 * i + j}.1" for i in range(1, 4) for j in range(3)},
    "up_blocks.0.upsamplers.0.conv": "output_blocks.2.1.conv",  # no attention before it
    "up_blocks.1.upsamplers.0.conv": "output_blocks.5.2.conv",
    "up_blocks.2.upsamplers.0.conv": "output_blocks.8.2.conv",
}  # fmt: skip
LDM_UNET_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip

LDM_VAE = {
    **{f"encoder.down_blocks.{i}.resnets.{j}": f"encoder.down.{i}.block.{j}" for i in range(4) for j in range(2)},
    **{f"encoder.down_blocks.{i}.downsamplers.0.conv": f"encoder.down.{i}.downsample.conv" for i in range(3)},
    **{f"decoder.up_blocks.{i}.resnets.{j}": f"decoder.up.{3 - i}.block.{j}" for i in range(4) for j in range(3)},
    **{f"decoder.up_blocks.{i}.upsamplers.0.conv": f"decoder.up.{3 - i}.upsample.conv" for i in range(3)},
    **{f"{side}.mid_block.resnets.{j}": f"{side}.mid.block_{j + 1}" for side in ("encoder", "decoder") for j in (0, 1)},
    **{f"{side}.mid_block.attentions.0": f"{side}.mid.attn_1" for side in ("encoder", "decoder")},
    **{f"{side}.conv_norm_out": f"{side}.norm_out" for side in ("encoder", "decoder")},
}
LDM_VAE_INSIDE = {
    "conv_shortcut": "nin_shortcut", "group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v",
    "to_out.0": "proj_out",
}  # fmt: skip
OLD_VAE_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}  # diffusers before 0.17

# AnimateDiff's own names are ours; these are those of diffusers' MotionAdapter.
MOTION_ADAPTER = {
    "temporal_transformer.": "", "attention_blocks.0.pos_encoder.pe": "pos_embed.pe",
    "attention_blocks.1.pos_encoder.pe": "pos_embed.pe", "attention_blocks.0": "attn1", "attention_blocks.1": "attn2",
    "norms.0": "norm1", "norms.1": "norm2", "ff_norm": "norm3",
}  # fmt: skip

# A second text attention beside attn2 starts as SD 1.5's own.
BESIDE = {"attn2_text": "attn2", "norm2_text": "norm2"}
WEIGHT_NORM = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}


def _blocks(table: Mapping[str, str], inside: Mapping[str, str], within: str) -> Callable[[str], str]:
    """Renames by the longest head in `table`, and what follows by `inside` where the head holds `within`."""
    heads = sorted(table, key=len, reverse=True)

    def rename(key: str) -> str:
        head = next((head for head in heads if key.startswith(f"{head}.")), None)
        if head is None:
            return key
        rest = key[len(head) :]
        return table[head] + (_parts(inside)(rest) if re.search(within, head) else rest)

    return rename


def _parts(table: Mapping[str, str]) -> Callable[[str], str]:
    """Replaces whole dotted names, in the order of the table."""

    def rename(key: str) -> str:
        for ours, theirs in table.items():
            key = re.sub(rf"(?<![^.]){re.escape(ours)}(?![^.])" if ours[-1] != "." else re.escape(ours), theirs, key)
        return key

    return rename


def _layouts(spellings: Mapping[str, tuple[Iterable[str], Callable[[str], str]]]) -> tuple[Layout, ...]:
    """{name: (prefixes under which it is found, rename)}."""
    return tuple(
        Layout(name, lambda key, prefix=prefix, rename=rename: prefix + rename(key))
        for name, (prefixes, rename) in spellings.items()
        for prefix in prefixes
    )


def _same(key: str) -> str:
    return key


def _text(key: str) -> str:
    return key.removeprefix("text_model.")  # transformers 4 has it in our own key too


ldm_unet = _blocks(LDM_UNET, LDM_UNET_RESNET, r"\.resnets\.")
ldm_vae = _blocks(LDM_VAE, LDM_VAE_INSIDE, r"\.(resnets|attentions)\.")
_beside = _parts(BESIDE)
UNET = {"diffusers": (("", "unet."), _same), "single file": (("model.diffusion_model.", ""), ldm_unet)}
LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "sd-unet": _layouts(UNET),
    "sd-text-attention": _layouts(
        {name: (places, lambda key, rename=rename: rename(_beside(key))) for name, (places, rename) in UNET.items()}
    ),
    "sd-vae": _layouts(
        {
            "diffusers": (("", "vae."), _same),
            "diffusers, old attention names": (("", "vae."), _parts(OLD_VAE_ATTENTION)),
            "single file": (("first_stage_model.", ""), ldm_vae),
        }
    ),
    "clip-text": _layouts(
        {
            "transformers": (("", "text_model.", "text_encoder.", "text_encoder.text_model."), _text),
            "single file": (("cond_stage_model.transformer.text_model.", "cond_stage_model.transformer."), _text),
        }
    ),
    "animatediff": _layouts({"AnimateDiff": (("",), _same), "diffusers": (("",), _parts(MOTION_ADAPTER))}),
    "hallo": _layouts({"net.pth": (("",), _same)}),
    "wav2vec2": _layouts(
        {
            "transformers": (("", "wav2vec2."), _same),
            "transformers, weight_g": (("", "wav2vec2."), _parts(WEIGHT_NORM)),
        }
    ),
}
WHOLE_KEY = {"hallo"}  # these files name the network too

# Held by files and never run, at inference or in training: Hallo's code skips these modules.
DEAD = ("*down_blocks.3.motion_modules.*", "*up_blocks.0.motion_modules.*")
# What stands beside the networks' own weights.
NOT_NEEDED = (
    "model_ema.*", "*position_ids", "lm_head.*", "quantizer.*", "project_hid.*", "project_q.*", "*.logit_scale",
    "*text_projection.weight", "alphas_cumprod*", "betas", "sqrt_*", "log_one_minus_*", "posterior_*",
    "first_stage_model.loss.*", "loss.*", "*logvar*", "masked_spec_embed", "wav2vec2.masked_spec_embed",
)  # fmt: skip
# Parts of a file that another source may give instead.
SCOPES = (
    "unet.", "vae.", "text_encoder.", "model.diffusion_model.", "first_stage_model.", "cond_stage_model.",
    "reference_unet.", "denoising_unet.", "face_locator.", "imageproj.", "audioproj.",
)  # fmt: skip


def matches(key: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def inside(kind: str, key: str) -> str:
    """`key` of a bundle ("vae.encoder.…") as a kind's table expects it."""
    return key if kind in WHOLE_KEY else key.partition(".")[2]


def spelling(kind: str, keys: Iterable[str], found: Iterable[str]) -> Layout:
    """The layout of `kind` which finds most of `keys` (a bundle's) among `found` (a file's)."""
    found, keys = set(found), [inside(kind, key) for key in keys]
    return max(LAYOUTS[kind], key=lambda layout: sum(layout.rename(key) in found for key in keys))


# What a file is: the first that fits. Each: (name, test on {key: shape}).
TEXT_KEYS = (
    "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight",
)
SDXL, SD2, SD1 = "SDXL", "SD 2.x", "an SD 1.x checkpoint"


def _any(pattern: str) -> Callable[[Mapping[str, tuple[int, ...]]], bool]:
    found = re.compile(pattern)
    return lambda shapes: any(found.match(key) for key in shapes)


def _sd2(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    wide = any(shapes[key][1:2] == (1024,) for key in TEXT_KEYS if key in shapes)
    return wide or _any(r"cond_stage_model\.model\.")(shapes)


def _motion(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return _any(r".*motion_modules\.")(shapes) and not _any(r".*(resnets|input_blocks)\.")(shapes)


KINDS_OF_FILE: tuple[tuple[str, Callable[[Mapping[str, tuple[int, ...]]], bool]], ...] = (
    ("a LoRA", _any(r".*(lora_|\.lora\.)")),
    ("a ControlNet", _any(r"control_model\.|controlnet_")),
    (SDXL, _any(r"conditioner\.|(unet\.)?add_embedding\.|model\.diffusion_model\.label_emb\.")),
    (SD2, _sd2),
    ("a Think-Before-Draw bundle", lambda s: _any(r"audio_encoder\.")(s) and _any(r"denoising_unet\.")(s)),
    ("Hallo's net.pth", lambda s: _any(r"denoising_unet\.")(s) and _any(r"audioproj\.")(s)),
    ("a portrait animation's network", _any(r"(denoising_unet|reference_unet)\.")),
    (
        "AnimateDiff's v1 or v3 motion module (no mid_block)",
        lambda s: _motion(s) and not _any(r"(.*\.)?mid_block\.")(s),
    ),
    ("a motion module", _motion),
    (SD1, _any(r"model\.diffusion_model\.")),
    ("a diffusers folder", _any(r"(unet|vae|text_encoder)\.")),
    ("a U-Net", lambda s: _any(r"(up_blocks|output_blocks)\.")(s) and not _any(r"encoder\.")(s)),
    ("a VAE", _any(r"(encoder|decoder)\.(mid|down|up)")),
    ("a HuBERT, WavLM or data2vec", _any(r"(hubert|wavlm|data2vec_audio)\.")),
    ("a Whisper", _any(r"(model\.)?encoder\.embed_positions\.")),
    ("a wav2vec2", _any(r"(wav2vec2\.)?feature_extractor\.")),
    ("a CLIP text encoder", _any(r"(text_model\.)?embeddings\.token_embedding")),
)


def identify(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """What a file with these keys is, in words; None: not known."""
    return next((name for name, fits in KINDS_OF_FILE if fits(shapes)), None)
