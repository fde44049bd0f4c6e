"""A recipe (TOML) → which part of a bundle comes from which source, checked before any source is opened.

name, about        what the bundle is called, and one line for people
preset             tiny or sd15; [config.unet], [config.scheduler], … change single fields of it
[sources]          NAME = "what to give", or { about = …, instead = "the source that serves when this is not given" }
[[parts]]          to = "glob on the bundle's keys"; the first that fits a key decides. Then either
                   source = NAME, take = a kind of `key_maps.LAYOUTS` (missing = "fresh": what the file lacks starts
                   fresh; otherwise it is an error), or start = "fresh" (as a new network starts; see `fresh.py`)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..config import ModelConfig
from ..errors import InputError, needed_packages
from ..files import require_file
from .recipe_config import read_config, unknown


FLOATS = {"fp16": "F16", "bf16": "BF16", "fp32": "F32"}  # types that a bundle may have: our names -> safetensors'
MOST_SEED = 2**31 - 1  # of what starts fresh
FOLDER = Path(__file__).parent / "recipes"
TOP = {"name", "about", "preset", "config", "sources", "parts"}
PART = {"to", "source", "take", "missing", "start"}
SOURCE = {"about", "instead"}


@dataclass(frozen=True)
class Wanted:
    """A source that a recipe asks for."""

    about: str
    instead: str | None = None


@dataclass(frozen=True)
class Part:
    """Where the keys that match `to` come from. `source` and `take`, or neither: they start fresh."""

    to: str
    source: str | None = None
    take: str = ""
    missing: str = "refuse"

    def fits(self, key: str) -> bool:
        return fnmatchcase(key, self.to)


@dataclass(frozen=True)
class Recipe:
    name: str
    about: str
    config: ModelConfig
    sources: dict[str, Wanted]
    parts: tuple[Part, ...]

    def part(self, key: str) -> Part | None:
        """The first part that fits a bundle's key."""
        return next((part for part in self.parts if part.fits(key)), None)


def shipped() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_recipe(name: str | Path) -> Recipe:
    """A shipped recipe by its name, or a .toml file. InputError lists everything that is wrong with it at once."""
    if str(name) in shipped():
        path = FOLDER / f"{name}.toml"
    elif Path(name).suffix == ".toml":
        path = require_file(name, "a recipe, a .toml file")
    else:
        raise InputError(f"unknown recipe {str(name)!r}; choose {', '.join(shipped())}, or give a .toml file")
    with needed_packages():
        try:
            import tomllib
        except ModuleNotFoundError:  # Python 3.10
            import tomli as tomllib  # pyright: ignore[reportMissingImports]
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML ({error}); see the recipes in {FOLDER.name}/") from error
    return read_recipe(table, path.name)


def read_recipe(table: Mapping[str, Any], where: str) -> Recipe:
    """InputError lists every fault of the table."""
    faults = unknown(table, TOP, "")
    needed = (("name", str, "a text"), ("sources", dict, "a table"), ("parts", list, "a list"))
    broken = [f"{key} is missing or not {what}" for key, kind, what in needed if not isinstance(table.get(key), kind)]
    if broken:
        raise _refused(where, faults + broken)
    sources = _sources(table["sources"], faults)
    parts = [_part(f"parts[{i}]", part, sources, faults) for i, part in enumerate(table["parts"], start=1)]
    config = read_config(table, faults)
    if faults or config is None:
        raise _refused(where, faults)
    made = tuple(part for part in parts if part)
    return Recipe(table["name"], str(table.get("about", "")), config, sources, made)


def _refused(where: str, faults: list[str]) -> InputError:
    return InputError(f"recipe {where} has {len(faults)} faults: {'; '.join(faults)}; mend them and try again")


def _sources(table: Mapping[str, Any], faults: list[str]) -> dict[str, Wanted]:
    made = {}
    for name, value in table.items():
        value = {"about": value} if isinstance(value, str) else value
        if not isinstance(value, dict):
            faults.append(f"sources.{name} is neither a text nor a table")
            continue
        faults += unknown(value, SOURCE, f"sources.{name}.")
        if "instead" in value and value["instead"] not in tuple(table):
            faults.append(f"sources.{name}.instead is {value['instead']!r}, which is no source of this recipe")
        made[name] = Wanted(str(value.get("about", "")), value.get("instead"))
    return made


def _part(where: str, table: Any, sources: Mapping[str, Wanted], faults: list[str]) -> Part | None:
    if not isinstance(table, dict) or not isinstance(table.get("to"), str):
        faults.append(f'{where} has no `to`, such as "denoising_unet.*"')
        return None
    from .key_maps import LAYOUTS

    before = len(faults)
    faults += unknown(table, PART, f"{where}.")
    if "start" in table:
        if table["start"] != "fresh" or "source" in table or "take" in table:
            faults.append(f'{where}: start is "fresh" alone, without source and take')
    else:
        if table.get("source") not in tuple(sources):
            faults.append(f"{where}.source is {table.get('source')!r}; choose one of {', '.join(sources)}")
        if table.get("take") not in tuple(LAYOUTS):
            faults.append(f"{where}.take is {table.get('take')!r}; choose one of {', '.join(LAYOUTS)}")
    if table.get("missing", "refuse") not in ("refuse", "fresh"):
        faults.append(f"{where}.missing is {table['missing']!r}; choose refuse or fresh")
    if len(faults) > before:
        return None
    return Part(table["to"], table.get("source"), table.get("take", ""), table.get("missing", "refuse"))
