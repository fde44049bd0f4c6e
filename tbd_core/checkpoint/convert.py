"""Recipe + sources → one self-describing bundle, tensor after tensor, and a report of every key.

`plan` decides from names and shapes alone; `write` then holds one tensor at a time, so that the memory taken does not
grow with the bundle. Nothing is written before the whole plan holds.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import InputError
from ..files import atomic, check_new_file, write_error
from . import key_maps, store
from .fresh import fresh, how
from .plan import Plan, Step, plan
from .recipe import FLOATS, MOST_SEED, Recipe, load_recipe
from .report import Report, SourceReport, summary
from .sources import Source, state
from .weight_files import DTYPES, check_values


EXISTING = ("replace", "keep", "renew")
Progress = Callable[[int, int], None]  # tensors written, tensors in all


def convert(
    recipe: str | Path | Recipe, given: Mapping[str, str | Path], output: str | Path, dtype: str = "fp16",
    seed: int = 0, dry_run: bool = False, on_tensor: Progress | None = None, existing: str = "keep",
) -> Report:  # fmt: skip
    """Write the bundle `output` (.safetensors), whole or not at all, and tell what is in it.

    recipe   a shipped one's name, a .toml file, or a Recipe
    given    {source of the recipe: file or folder}
    dtype    fp16, bf16 or fp32: what all floats are stored as
    seed     of what starts fresh, 0 to 2³¹-1
    dry_run  only plan and tell
    existing what becomes of a file `output` that is there: replace (write anew), keep (leave it if it was made of the
             same, else InputError) or renew (leave it if it was made of the same, else replace)
    InputError: a source is not what the recipe takes, damaged, holds code, NaN or infinity, or is `output` itself; the
    disk is full.
    """
    if existing not in EXISTING:
        raise ValueError(f"existing is {existing!r}; choose {', '.join(EXISTING)}")
    if dtype not in FLOATS:
        raise InputError(f"unknown dtype {dtype!r}; choose {', '.join(FLOATS)}")
    if not 0 <= seed <= MOST_SEED:
        raise InputError(f"seed is {seed}; give a whole number from 0 to {MOST_SEED}")
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    output = check_new_file(output, ".safetensors")
    with opened(recipe, given) as (sources, warnings):
        check_no_source(output, sources, given)
        made = plan(recipe, sources, dtype, seed)
        report = tell(made, output, warnings)
        if dry_run:
            return report
        there = output.exists()
        if there and existing != "replace" and made_of(output) == trace(made):
            return replace(report, outcome="kept")
        if there and existing == "keep":
            raise InputError(
                f"{output} is there already, and of other files or settings; give another name, remove it, or set "
                "replace"
            )
        write(made, output, report, on_tensor)
    return replace(report, outcome="replaced" if there else "written")


def trace(made: Plan) -> str:
    """What the bundle is made of and how, as a digest: recipe, types, seed, and each file's name, size and time of the
    last change. Equal traces, equal bundles."""
    files = {
        name: [[state(file.path) for file in source.files], source.configs] for name, source in made.sources.items()
    }
    settings = [__version__, repr(made.recipe), made.dtype, made.seed]
    return hashlib.sha256(json.dumps([*settings, files]).encode()).hexdigest()


def made_of(path: Path) -> str | None:
    """The `trace` of a converted bundle; None for any other file."""
    try:
        return store.read_about(path)["converted"]["trace"]
    except (InputError, KeyError, TypeError):
        return None


@contextmanager
def opened(recipe: Recipe, given: Mapping[str, str | Path]) -> Iterator[tuple[dict[str, Source], list[str]]]:
    """The recipe's sources that are used, open, and what was substituted. InputError: one is missing or not known."""
    unknown = [name for name in given if name not in recipe.sources]
    if unknown:
        raise InputError(
            f"recipe {recipe.name} has no source {', '.join(map(repr, unknown))}; it has {', '.join(recipe.sources)}"
        )
    used = [name for name in recipe.sources if any(part.source == name for part in recipe.parts)]
    missing = [name for name in used if name not in given and recipe.sources[name].instead not in given]
    if missing:
        wanted = "; ".join(f"--source {name}=PATH ({recipe.sources[name].about})" for name in missing)
        raise InputError(f"recipe {recipe.name} lacks {len(missing)} of {len(used)} sources; give {wanted}")
    warnings, sources = [], {}
    with ExitStack() as stack:
        for name in used:
            place = name
            if name not in given:
                place = str(recipe.sources[name].instead)
                warnings.append(f"source {name} was not given; it is taken from {place}")
            if place not in sources:
                sources[place] = Source(place, given[place])
                stack.callback(sources[place].close)
            sources[name] = sources[place]
        yield sources, warnings


def check_no_source(output: Path, sources: Mapping[str, Source], given: Mapping[str, str | Path]) -> None:
    """InputError when `output` is a file that a source is read from, by whatever name or link."""
    if not output.exists():
        return
    places = {name: [Path(path)] for name, path in given.items()}
    for name, source in sources.items():
        places.setdefault(name, []).extend(file.path for file in source.files)
    for name, paths in places.items():
        same = next((path for path in paths if path.exists() and output.samefile(path)), None)
        if same:
            raise InputError(f"output {output} is a file of source {name} ({same}); choose another output")


def tell(made: Plan, output: Path, warnings: Sequence[str]) -> Report:
    """The plan as a report."""
    reports = {}
    for source in dict.fromkeys(made.sources.values()):
        taken = {step.key: step.source_key for step in made.steps if step.source == source.name}
        left = sorted(source.entries.keys() - set(taken.values()))
        dead = [key for key in left if key_maps.matches(key, key_maps.DEAD)]
        known = made.known[source.name]
        # A part of the file that nothing was asked of; in one that was, every key must be known.
        asked = {scope for scope in key_maps.SCOPES if any(key.startswith(scope) for key in taken.values())}
        other = tuple(scope for scope in key_maps.SCOPES if scope not in asked)
        spare = [
            key
            for key in left
            if key not in dead and (key in known or key.startswith(other) or key_maps.matches(key, key_maps.NOT_NEEDED))
        ]
        strange = sorted(set(left) - {*dead, *spare})
        is_a = key_maps.identify(source.shapes)
        reports[source.name] = SourceReport(
            str(source.path), is_a, made.layouts[source.name], taken, spare, dead, strange
        )
    unexpected = {name: len(report.unexpected) for name, report in reports.items() if report.unexpected}
    warnings = [
        *warnings,
        *made.doubts,
        *(f"source {name} has {n} keys that fit nothing known; they are left out" for name, n in unexpected.items()),
    ]
    starts = {step.key: how(step.key, made.seed) for step in made.steps if step.source is None}
    random = sorted({key.partition(".")[0] for key, start in starts.items() if start.startswith("random")})
    if random:
        warnings.append(f"{', '.join(random)} start at random in part: train before you judge what is drawn")
    size = sum(step.bytes for step in made.steps)
    return Report(
        made.recipe.name, str(output), made.dtype, size, len(made.steps), reports, starts, list(made.missing), warnings
    )


def write(made: Plan, output: Path, report: Report, on_tensor: Progress | None = None) -> None:
    """The bundle under its final name at once. InputError: no room, or a value that is not a finite number."""
    told = {**summary(report.to_dict()), "version": __version__, "trace": trace(made)}
    about = {"name": made.recipe.name, "converted": told}
    header: dict[str, Any] = {"__metadata__": {"tbd": store.header_entry(made.recipe.config, about)}}
    end = 0
    for step in made.steps:
        header[step.key] = {"dtype": step.dtype, "shape": step.shape, "data_offsets": (end, end + step.bytes)}
        end += step.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    try:
        there = next(folder for folder in output.absolute().parents if folder.exists())
        free = shutil.disk_usage(there).free
        if free < 8 + len(text) + end:
            raise InputError(
                f"{output} needs {(8 + len(text) + end) / 1e9:.2f} GB, {free / 1e9:.2f} GB are free; "
                "free some space or choose another output"
            )
        output.parent.mkdir(parents=True, exist_ok=True)
        last = {step.source: i for i, step in enumerate(made.steps, start=1)}
        with atomic(output) as partial, open(partial, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for i, step in enumerate(made.steps, start=1):
                file.write(value_of(made, step))
                if step.source and last[step.source] == i:
                    made.sources[step.source].close()
                if on_tensor:
                    on_tensor(i, len(made.steps))
    except OSError as error:
        raise write_error(output, error) from error


def value_of(made: Plan, step: Step) -> memoryview:
    """The bytes of one tensor as they are stored. InputError when a value is not finite, before or after rounding."""
    import torch

    if step.source:
        source = made.sources[step.source]
        value, where = source.read(step.source_key), f"{source.path}: {step.source_key}"
    else:
        value, where = fresh(made.networks[step.key.partition(".")[0]], step.key, made.seed), step.key
    value = value.reshape(step.shape)
    check_values(value, where, step.dtype in FLOATS.values())
    kept = value.to(getattr(torch, DTYPES[step.dtype])).contiguous()
    if kept.is_floating_point() and not bool(torch.isfinite(kept).all()):
        largest = float(value.abs().max())
        raise InputError(f"{where} has values up to {largest:.3g}, too large for {made.dtype}; choose bf16 or fp32")
    return memoryview(kept.reshape(-1).view(torch.uint8).numpy())  # pyright: ignore[reportArgumentType]
