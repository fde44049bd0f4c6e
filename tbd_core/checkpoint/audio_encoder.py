"""A wav2vec 2.0 as the public tools store it → transformers' network with its weights, in place of a bundle's own.

A transformers folder, or one file with or without `wav2vec2.` before its keys. Sizes come from the shapes; what shapes
do not tell comes from config.json, and without one from what all public wav2vec 2.0 have in common.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import AudioProjectionConfig
from ..errors import InputError
from . import key_maps
from .sources import Source
from .weight_files import AGAIN, check_values


if TYPE_CHECKING:
    import torch
    from transformers import Wav2Vec2Model

WANTED = "a wav2vec 2.0, base or large: a transformers folder, or its .safetensors, .bin or .pth"
HEAD = 64  # width of an attention head in every public one
STRIDES = (5, 2, 2, 2, 2, 2, 2)  # of the convolutions of every public one
NETWORK = ("feature_extractor.", "feature_projection.", "encoder.")  # the rest of a file is heads for letters and such
FIRST = "feature_extractor.conv_layers.0.conv.weight"
# What config.json tells and shapes do not; what it leaves out is transformers' default.
TOLD = {
    "num_attention_heads": 12, "hidden_act": "gelu", "feat_extract_activation": "gelu", "layer_norm_eps": 1e-5,
    "conv_stride": STRIDES, "do_stable_layer_norm": False,
}  # fmt: skip


@dataclass(frozen=True)
class EncoderFile:
    """What is known of a wav2vec 2.0 before its weights are read."""

    path: Path
    config: dict[str, Any]  # arguments of transformers' Wav2Vec2Config
    keys: dict[str, str]  # the network's → the source's
    identity: list[Any]  # tells it from every other, for keys

    @property
    def name(self) -> str:
        return self.path.name

    def check_fits(self, wanted: AudioProjectionConfig) -> None:
        """InputError when a model's audio projection takes another number of layers or another width."""
        layers, channels = self.config["num_hidden_layers"], self.config["hidden_size"]
        if (layers, channels) != (wanted.layers, wanted.channels):
            raise InputError(
                f"{self.path} has {layers} layers of {channels} numbers, this model wants {wanted.layers} of "
                f"{wanted.channels}; give a wav2vec 2.0 of that size"
            )


def check_encoder(path: str | Path) -> EncoderFile:
    """Everything about the file but its values. InputError: it is missing, damaged, holds code, or is no whole
    wav2vec 2.0."""
    with _opened(path) as (source, found):
        del source
        return found


def read_encoder(path: str | Path, dtype: torch.dtype, device: torch.device | str = "cpu") -> Wav2Vec2Model:
    """The network, frozen, its weights as `dtype` on `device`. InputError as `check_encoder`, and when a value is not
    finite."""
    import torch

    from ..models.build import wav2vec2

    with _opened(path) as (source, found):
        with torch.device("meta"):
            network = wav2vec2(found.config)
        state = {}
        for key, theirs in found.keys.items():
            value = source.read(theirs)
            check_values(value, f"{path}: {theirs}")
            state[key] = value.to(device, dtype, copy=True)
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Source, EncoderFile]]:
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; give {WANTED}")
    source = Source("audio encoder", path)
    try:
        config = _config(source)
        yield source, EncoderFile(path, config, _keys(source, config), _identity(source))
    finally:
        source.close()


def _config(source: Source) -> dict[str, Any]:
    """Wav2Vec2Config's arguments."""
    prefix = next((prefix for prefix in ("", "wav2vec2.") if prefix + FIRST in source.entries), None)
    told = source.configs.get("", {})
    kind = told.get("model_type", "wav2vec2")
    if prefix is None or kind != "wav2vec2":
        what = f"a {kind} by its config.json" if kind != "wav2vec2" else key_maps.identify(source.shapes)
        raise InputError(
            f"{source.path} is {what or 'of no known kind'}: {len(source.entries)} keys, {FIRST} "
            f"{'is not among them' if prefix is None else 'is, but of another network'}; give {WANTED}"
        )
    shapes = {key[len(prefix) :]: shape for key, shape in source.shapes.items() if key.startswith(prefix)}
    sizes = _sizes(source, shapes)
    for key in ("num_hidden_layers", "hidden_size", "intermediate_size"):
        if key in told and told[key] != sizes[key]:
            raise InputError(
                f"{source.path}: its config.json says {key} {told[key]}, its weights have {sizes[key]}; {AGAIN}"
            )
    if told:
        return sizes | {key: told.get(key, default) for key, default in TOLD.items()}
    width, convolutions = sizes["hidden_size"], len(sizes["conv_dim"])
    if width % HEAD or convolutions != len(STRIDES):
        raise InputError(
            f"{source.path} is {width} wide and has {convolutions} convolutions; without config.json only multiples of "
            f"{HEAD} and {len(STRIDES)} can be read: give its transformers folder"
        )
    # Those of fairseq that normalise every convolution also normalise before each layer's work: large-lv60 and after.
    stable = sizes["feat_extract_norm"] == "layer"
    return sizes | TOLD | {"num_attention_heads": width // HEAD, "do_stable_layer_norm": stable}


def _sizes(source: Source, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """What the shapes tell."""
    convolutions = [
        shapes[key] for i in range(len(shapes)) if (key := f"feature_extractor.conv_layers.{i}.conv.weight") in shapes
    ]
    layers = {int(found[1]) for key in shapes if (found := re.match(r"encoder\.layers\.(\d+)\.", key))}
    positions = [f"encoder.pos_conv_embed.conv.{end}" for end in ("parametrizations.weight.original1", "weight_v")]
    position = next((list(shapes[key]) for key in positions if key in shapes), [])
    projection = shapes.get("feature_projection.projection.weight", ())
    inner = shapes.get("encoder.layers.0.feed_forward.intermediate_dense.weight", ())
    if [len(position), len(projection), len(inner)] != [3, 2, 2] or any(len(shape) != 3 for shape in convolutions):
        raise InputError(
            f"{source.path} has {len(convolutions)} convolutions and {len(layers)} layers of a wav2vec 2.0, but not "
            f"the weights between them; give {WANTED}"
        )
    return {
        "hidden_size": projection[0],
        "num_hidden_layers": len(layers),
        "intermediate_size": inner[0],
        "conv_dim": [shape[0] for shape in convolutions],
        "conv_kernel": [shape[2] for shape in convolutions],
        "conv_bias": "feature_extractor.conv_layers.0.conv.bias" in shapes,
        "feat_extract_norm": "layer" if "feature_extractor.conv_layers.1.layer_norm.weight" in shapes else "group",
        "num_conv_pos_embeddings": position[2],
        "num_conv_pos_embedding_groups": projection[0] // max(1, position[1]),
        "mask_time_prob": 0.0,  # a training's mask: its embedding is no part of listening
    }


def _keys(source: Source, config: dict[str, Any]) -> dict[str, str]:
    """The network's keys → the source's, every one of them, and none of the source's network left over."""
    import torch

    from ..models.build import unbuildable, wav2vec2

    try:
        with torch.device("meta"):
            wanted = {key: tuple(value.shape) for key, value in wav2vec2(config).state_dict().items()}
    except unbuildable() as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{source.path} describes no network that can be built ({reason}); {AGAIN}") from error
    inside = {f"audio_encoder.{key}": key for key in wanted}
    layout = key_maps.spelling("wav2vec2", inside, source.entries)
    keys = {key: layout.rename(key) for key in wanted}
    prefix = keys[FIRST].removesuffix(FIRST)
    missing = [theirs for theirs in keys.values() if theirs not in source.entries]
    wrong = [
        f"{theirs} {list(source.entries[theirs].shape)}, must be {list(wanted[key])}"
        for key, theirs in keys.items()
        if theirs in source.entries and source.entries[theirs].shape != wanted[key]
    ]
    network = tuple(prefix + part for part in NETWORK)
    strange = sorted(key for key in source.entries.keys() - set(keys.values()) if key.startswith(network))
    faults = [
        f"{count} {len(found)}{what} (first {found[0]})"
        for count, what, found in (
            ("lacks", "", missing), ("has", " of another shape", wrong), ("has", " that fit nothing known", strange)
        )
        if found
    ]  # fmt: skip
    if faults:
        raise InputError(f"{source.path}: of the {len(keys)} keys of a wav2vec 2.0 it {' and '.join(faults)}; {AGAIN}")
    return keys


def _identity(source: Source) -> list[Any]:
    """Each file's name, size and time of the last change; of config.json, which is short, all."""
    files = [(file.path.name, (about := file.path.stat()).st_size, about.st_mtime_ns) for file in source.files]
    told = json.dumps(source.configs, sort_keys=True).encode()
    return [*map(list, files), hashlib.sha256(told).hexdigest()]
