"""A recipe's [config.…] tables → the preset with their changes, every value held against what it takes the place of."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from ..config import PRESETS, ModelConfig
from ..devices import shapes_alone


SORTS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
# Words of which only these are known, diffusers' and ours.
CHOICES = {
    "scheduler.beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "scheduler.prediction_type": ("epsilon", "sample", "v_prediction"),
    "scheduler.timestep_spacing": ("leading", "linspace", "trailing"),
    "defaults.blend": ("hard", "paper", "smooth"),
}


def read_config(table: Mapping[str, Any], faults: list[str]) -> ModelConfig | None:
    """The preset with the recipe's changes; None: `faults` has more entries than before."""
    preset = table.get("preset", "sd15")
    if preset not in tuple(PRESETS):
        faults.append(f"preset is {preset!r}; choose one of {', '.join(PRESETS)}")
        return None
    config, changes = PRESETS[preset](), table.get("config", {})
    if not isinstance(changes, dict):
        faults.append("config is no table")
        return None
    before = len(faults)
    for name, values in changes.items():
        old: Any = getattr(config, name, None)
        if not isinstance(values, dict) or not (is_dataclass(old) or isinstance(old, dict)):
            faults.append(f"unknown table config.{name}")
            continue
        if isinstance(old, dict):
            known, least = arguments(name), {}
        else:  # here whole numbers are sizes and counts, but for what may be left out
            known = {field.name: getattr(old, field.name) for field in fields(old)}
            least = {field.name: 0 if field.default == 0 else 1 for field in fields(old)}
        found = unknown(values, known, f"config.{name}.") or [
            fault
            for key, value in values.items()
            if (fault := _fault(f"{name}.{key}", value, known[key], least.get(key, 0)))
        ]
        if not found and isinstance(old, dict):
            config, found = _built(config, name, values)
        elif not found:
            made = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
            try:
                config = replace(config, **{name: replace(old, **made)})  # pyright: ignore[reportArgumentType]
            except ValueError as error:
                found = [f"config.{name}: {error}"]
        faults += found
    return config if len(faults) == before else None


def unknown(table: Mapping[str, Any], known: Mapping[str, Any] | set[str], before: str) -> list[str]:
    """A fault for each key of the table that is not known."""
    names = ", ".join(sorted(known))
    return [f"unknown key {before}{key} (known are {names})" for key in table if key not in known]


def arguments(name: str) -> dict[str, Any]:
    """What the class behind a table of arguments takes, {argument: its default}; not what this project gives it."""
    from ..models import build

    if name == "vae":
        from diffusers import AutoencoderKL

        kind, fixed = AutoencoderKL, {}
    elif name == "text_encoder":
        from transformers import CLIPTextConfig

        kind, fixed = CLIPTextConfig, build.TEXT_FIXED
    else:
        from transformers import Wav2Vec2Config

        kind, fixed = Wav2Vec2Config, build.HEARING_FIXED
    own = {"second_look_width": 0} if name == "vae" else {}
    found = inspect.signature(kind.__init__).parameters.values()
    return own | {one.name: one.default for one in found if one.default is not one.empty and one.name not in fixed}


def _fault(where: str, value: Any, like: Any, least: int) -> str | None:
    """What is wrong with a value that takes the place of `like`; None: nothing, or `like` does not tell. Whole numbers
    begin at `least`."""
    many = isinstance(like, (tuple, list)) and len(like) > 0
    sort = type(next(iter(like)) if many else like)
    if sort not in SORTS:
        return None
    ones = value if many and isinstance(value, list) else [value]
    if (many and ones is not value) or not ones or not all(_is(one, sort, least) for one in ones):
        wanted = SORTS[sort] + (f" from {least}" if sort is int else "")
        return f"config.{where} is {value!r}, must be {'a list, each ' if many else ''}{wanted}"
    if where in CHOICES and value not in CHOICES[where]:
        return f"config.{where} is {value!r}; choose {', '.join(CHOICES[where])}"
    return None


def _is(value: Any, sort: type, least: int) -> bool:
    if sort is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is sort and (sort is not int or value >= least)


def _built(config: ModelConfig, name: str, changes: dict[str, Any]) -> tuple[ModelConfig, list[str]]:
    """The configuration with a table's changes of a network, which is built once, without memory; and the fault when it
    cannot be: the change without which it can, or all of them."""
    from ..models import build

    make = {"vae": build.build_vae, "text_encoder": build.build_text_encoder}.get(name, build.build_audio_encoder)

    def tried(chosen: dict[str, Any]) -> tuple[ModelConfig, str | None]:
        made = replace(config, **{name: getattr(config, name) | chosen})
        try:
            with shapes_alone():
                make(made)
        except build.unbuildable() as error:
            return made, " ".join(str(error).split())
        return made, None

    made, reason = tried(changes)
    if reason is None:
        return made, []
    alone = [key for key in changes if tried({k: v for k, v in changes.items() if k != key})[1] is None]
    said = ", ".join(f"config.{name}.{key} {changes[key]!r}" for key in alone or changes)
    return made, [f"{said} cannot be built ({reason})"]
