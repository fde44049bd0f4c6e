"""What a host's fields ask of `convert`: which file for which source, and under which name the bundle is kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import InputError
from ..files import local_path
from .recipe import Recipe, load_recipe, shipped


NONE = "none"  # in a menu: this source is not given
ENDING = ".safetensors"


def known_sources() -> dict[str, str]:
    """Every source of the shipped recipes, {name: what to give}."""
    found: dict[str, str] = {}
    for recipe in map(load_recipe, shipped()):
        for name, wanted in recipe.sources.items():
            found.setdefault(name, wanted.about)
    return found


def read_lines(lines: str, folder: Path) -> dict[str, Path]:
    """Lines of NAME=PATH, a path absolute or below `folder`; blank ones are skipped. InputError names the line."""
    known, found = known_sources(), {}
    for number, line in enumerate(lines.splitlines(), start=1):
        if not line.strip():
            continue
        name, equals, path = (part.strip() for part in line.partition("="))
        if not (equals and path):
            raise InputError(f"paths line {number} is {line.strip()!r}; give NAME=PATH, such as sd=v1-5-pruned.ckpt")
        if name not in known:
            raise InputError(f"paths line {number} names source {name!r}; known are {', '.join(known)}")
        if name in found:
            raise InputError(f"paths line {number} names source {name} a second time; give each source once")
        found[name] = local_path(path, folder)
    return found


def gather(
    recipe: Recipe, chosen: Mapping[str, str], lines: str, folder: Path, find: Callable[[str], Path]
) -> tuple[dict[str, Path], tuple[str, ...]]:
    """({source of the recipe: its file or folder}, notes on what was given and is not used).

    chosen  {source: entry of its menu}, or NONE; `find` gives an entry's place
    lines   as `read_lines`; they go before the menus
    Raises InputError.
    """
    typed = read_lines(lines, folder)
    given, unused = {}, []
    for name, entry in {**chosen, **typed}.items():
        if entry == NONE:
            continue
        if name not in recipe.sources:
            unused.append(name)
        else:
            given[name] = entry if isinstance(entry, Path) else find(entry)
    notes = (f"recipe {recipe.name} takes no {', '.join(unused)}: what is given for it is not used",) if unused else ()
    return given, notes


def check_given(recipe: Recipe, given: Mapping[str, Path]) -> None:
    """InputError names the sources that the recipe wants and that were not given."""
    used = [name for name in recipe.sources if any(part.source == name for part in recipe.parts)]
    missing = [name for name in used if name not in given and recipe.sources[name].instead not in given]
    if missing:
        wanted = "; ".join(f"{name} ({recipe.sources[name].about})" for name in missing)
        raise InputError(
            f"recipe {recipe.name} lacks {len(missing)} of {len(used)} sources; choose in the menus or give in paths: "
            f"{wanted}"
        )


def bundle_file(name: str, recipe: str, dtype: str, folder: Path) -> Path:
    """Where the bundle `name` is kept: in `folder` or below it. Blank: named by recipe and type. Links are not
    followed: a folder below may be one to another disk. Raises InputError."""
    name = name.strip() or f"tbd_{recipe}_{dtype}"
    path = Path(os.path.abspath(folder / (name if name.lower().endswith(ENDING) else name + ENDING)))
    if not path.is_relative_to(Path(os.path.abspath(folder))):
        raise InputError(f"name {name!r} leads to {path.parent}, out of {folder}; give a name below it")
    if not path.name[: -len(ENDING)].strip(" ."):
        raise InputError(f"name {name!r} has 0 letters before {ENDING}; give one such as tbd_{recipe}")
    return path
