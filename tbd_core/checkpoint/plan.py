"""Recipe + opened sources → where every tensor of the bundle comes from, decided from names and shapes alone.

`plan` builds the bundle's networks on the meta device, asks the recipe for each of their keys, and finds the key in the
source's spelling; what does not fit is told with counts, names and shapes, before anything is written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..config import ModelConfig
from ..devices import shapes_alone
from ..errors import InputError
from . import key_maps
from .fresh import can_start
from .recipe import FLOATS, Part, Recipe
from .sources import Source
from .weight_files import DTYPES


if TYPE_CHECKING:
    import torch
    from torch import nn

NAMES = {theirs: ours for ours, theirs in DTYPES.items()}

# What a folder's config.json tells and shapes do not → where our network has it. A difference means other weights.
TOLD = {
    "sd-unet": {"attention_head_dim": "num_heads", "norm_num_groups": "norm_num_groups"},
    "sd-vae": {"scaling_factor": "scaling_factor", "norm_num_groups": "norm_num_groups"},
    "clip-text": {"hidden_act": "hidden_act", "num_attention_heads": "num_attention_heads"},
    "wav2vec2": {
        key: key for key in ("num_attention_heads", "do_stable_layer_norm", "feat_extract_norm", "hidden_act")
    },
}
MODEL_TYPES = {"clip-text": ("clip_text_model", "clip"), "wav2vec2": ("wav2vec2",)}  # of a config.json, by kind

# Fields of two parts of a configuration that must be the same: (of a ModelConfig, network of the other, its field).
EQUAL = (
    ("audio_projection.layers", "audio_encoder", "num_hidden_layers"),
    ("audio_projection.channels", "audio_encoder", "hidden_size"),
)


@dataclass(frozen=True)
class Step:
    """One tensor of the bundle. `source` None: it starts fresh."""

    key: str
    shape: tuple[int, ...]
    dtype: str  # as it is stored, safetensors' name
    source: str | None = None
    source_key: str = ""

    @property
    def bytes(self) -> int:
        itemsize = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}.get(self.dtype, 1)
        return math.prod(self.shape) * itemsize


@dataclass(frozen=True)
class Plan:
    recipe: Recipe
    sources: dict[str, Source]
    networks: dict[str, nn.Module]  # on the meta device
    steps: tuple[Step, ...]  # in the order they are written: source by source, as each is closed after its last
    layouts: dict[str, dict[str, str]]  # source → kind → the spelling found
    known: dict[str, set[str]]  # source → keys that the kinds taken from it have
    missing: tuple[str, ...]
    doubts: tuple[str, ...]  # what names and shapes cannot tell
    dtype: str
    seed: int


def networks_of(config: ModelConfig) -> dict[str, nn.Module]:
    """Everything a bundle of `config` holds, {prefix: network on the meta device}."""
    from ..models.build import build

    with shapes_alone():
        return dict(build(config).items())


def checked_networks(recipe: Recipe) -> dict[str, nn.Module]:
    """`networks_of` the recipe. InputError: they cannot be built, or do not fit each other."""
    from ..models.build import unbuildable

    try:
        networks = networks_of(recipe.config)
    except unbuildable() as error:
        reason = " ".join(str(error).split())
        raise InputError(f"recipe {recipe.name}: its config describes no model ({reason}); mend its values") from error
    for field, network, theirs in EQUAL:
        table, _, name = field.partition(".")
        own, other = getattr(getattr(recipe.config, table), name), getattr(networks[network].config, theirs)
        if own != other:
            raise InputError(
                f"recipe {recipe.name}: config.{field} is {own}, config.{network}.{theirs} {other}; make them equal"
            )
    return networks


def plan(recipe: Recipe, sources: Mapping[str, Source], dtype: str = "fp16", seed: int = 0) -> Plan:
    """Where each tensor comes from. InputError: keys no part gives, or sources that do not fit, each with counts."""
    networks = checked_networks(recipe)
    wanted = {f"{name}.{key}": value for name, net in networks.items() for key, value in net.state_dict().items()}
    by_part: dict[int, list[str]] = {}
    for key in wanted:
        i = next((i for i, part in enumerate(recipe.parts) if part.fits(key)), -1)
        by_part.setdefault(i, []).append(key)
    if keys := by_part.get(-1):
        raise InputError(f"recipe {recipe.name} says of {len(keys)} keys not where from ({keys[0]} …); add a part")
    idle = [part.to for i, part in enumerate(recipe.parts) if i not in by_part]
    if idle:
        raise InputError(f"recipe {recipe.name} has parts that fit no key: {', '.join(idle)}; mend or remove them")

    steps, layouts, known, missing, faults, doubts = [], {}, {}, [], [], {}
    for i, keys in sorted(by_part.items()):
        part = recipe.parts[i]
        shapes = {key: tuple(wanted[key].shape) for key in keys}
        kinds = {key: FLOATS[dtype] if wanted[key].is_floating_point() else stored(wanted[key].dtype) for key in keys}
        found: dict[str, str] = {}
        if part.source:
            source = sources[part.source]
            nets = {key.partition(".")[0] for key in keys}
            beside = [key for key in wanted if key.partition(".")[0] in nets]
            layout = key_maps.spelling(part.take, keys, source.entries)
            layouts.setdefault(source.name, {})[part.take] = layout.name
            spelt = {layout.rename(key_maps.inside(part.take, key)) for key in beside}
            known.setdefault(source.name, set()).update(spelt)
            found, fault = fit(source, part, recipe.sources[part.source].about, layout, shapes)
            if fault:
                faults.append(fault)
            else:
                told(source, part.take, recipe.config, networks)
                doubts |= dict.fromkeys(doubtful(source, part.take, found))
            missing += [key for key in keys if key not in found]
        steps += [
            Step(key, shapes[key], kinds[key], sources[part.source].name if key in found else None, found.get(key, ""))
            if part.source
            else Step(key, shapes[key], kinds[key])
            for key in keys
        ]
    if faults:
        raise InputError("; ".join(faults))
    from_nothing = [step.key for step in steps if step.source is None]
    if never := [key for key in from_nothing if not can_start(networks[key.partition(".")[0]], key)]:
        raise InputError(f"{len(never)} keys cannot start fresh ({never[0]} …); name a source for them in the recipe")
    # Wide types first, as safetensors writes them: each tensor then lies at a multiple of its own width.
    order = {name: i for i, name in enumerate(dict.fromkeys(source.name for source in sources.values()))}
    steps.sort(key=lambda step: (step.dtype in FLOATS.values(), order.get(step.source or "", len(order))))
    return Plan(
        recipe, dict(sources), networks, tuple(steps), layouts, known, tuple(missing), tuple(doubts), dtype, seed
    )


def stored(dtype: torch.dtype) -> str:
    """safetensors' name of a torch dtype."""
    return NAMES[str(dtype).removeprefix("torch.")]


def fit(
    source: Source, part: Part, about: str, layout: key_maps.Layout, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, str], str | None]:
    """({key: the source's key}, what is wrong with the source for this part). A VAE's attention may be stored as 1 × 1
    convolutions: the same numbers."""
    found, missing, wrong = {}, [], []
    for key, shape in shapes.items():
        theirs = layout.rename(key_maps.inside(part.take, key))
        entry = source.entries.get(theirs)
        if entry is None:
            missing.append(theirs)
        elif entry.shape != shape and not (part.take == "sd-vae" and entry.shape == (*shape, 1, 1)):
            wrong.append(f"{theirs} {list(entry.shape)}, must be {list(shape)}")
        else:
            found[key] = theirs
    is_a = key_maps.identify(source.shapes)
    foreign = part.take.startswith(("sd-", "clip")) and is_a in (key_maps.SDXL, key_maps.SD2)
    if not wrong and not foreign and (not missing or part.missing == "fresh"):
        return found, None
    faults = [f"lacks {len(missing)} (first {missing[0]})"] if missing else []
    faults += [f"has {len(wrong)} of another shape (first {wrong[0]})"] if wrong else []
    faults = faults or ["has all names, but of another model"]
    name = f"{source.path} is {is_a or 'of no known kind'}"
    return found, f"{name}: of {len(shapes)} keys for {part.to} it {' and '.join(faults)}; give {about}"


def told(source: Source, take: str, config: ModelConfig, networks: Mapping[str, Any]) -> None:
    """InputError when a folder's config.json tells of another network than the recipe's."""
    theirs = config_of(source, take)
    kind = "sd-unet" if take == "sd-text-attention" else take
    ours = {
        "sd-unet": config.unet,
        "sd-vae": networks["vae"].config,
        "clip-text": networks["text_encoder"].config,
        "wav2vec2": networks["audio_encoder"].config,
    }.get(kind)
    types, model_type = MODEL_TYPES.get(kind, ()), theirs.get("model_type")
    foreign = types and model_type not in (None, *types)
    differ = [f"model_type {model_type} (must be {' or '.join(types)})"] if foreign else []
    differ += [
        f"{name} {theirs[name]} (must be {getattr(ours, own)})"
        for name, own in TOLD.get(kind, {}).items()
        if name in theirs and theirs[name] != getattr(ours, own)
    ]
    if differ:
        raise InputError(f"{source.path}: its config.json says {', '.join(differ)}; give the files the recipe names")


def config_of(source: Source, take: str) -> dict[str, Any]:
    """The config.json beside the weights of a kind; {} when there is none."""
    place = {"sd-unet": "unet", "sd-text-attention": "unet", "sd-vae": "vae", "clip-text": "text_encoder"}.get(take, "")
    return source.configs.get(place, source.configs.get("", {}))


def doubtful(source: Source, take: str, found: Mapping[str, str]) -> list[str]:
    """What nothing but a config.json tells, where there is none: another model's file has the same names and shapes."""
    if config_of(source, take):
        return []
    alone = key_maps.identify(source.shapes) != key_maps.SD1
    if take == "sd-vae" and alone:
        return [f"source {source.name} has no config.json: SDXL's autoencoder looks the same; use sd-vae-ft-mse"]
    if take == "wav2vec2" and not any(key.startswith("wav2vec2.") for key in found.values()):
        return [f"source {source.name} has no config.json: a HuBERT looks the same; use wav2vec2-base-960h"]
    return []
