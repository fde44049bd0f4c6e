"""What `convert` did or would do, for people and programs: every key taken and from where, and what was not."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any


SHOWN = 3  # names of a list in a summary
MOST = 1000  # of a list where every key is told; the JSON has all
OUTCOMES = {
    "planned": "not written (dry run)",
    "written": "written",
    "replaced": "written in place of the file that was there",
    "kept": "there already, made of the same files; not written again",
}


@dataclass(frozen=True)
class SourceReport:
    """One source. `taken`: {key of the bundle: key of the file}; one key of a file may serve several."""

    path: str
    is_a: str | None
    layouts: dict[str, str]  # kind → the spelling found
    taken: dict[str, str]
    not_needed: list[str]  # known, and not asked for
    dead: list[str]  # held by the file, but never run by the code that trained it
    unexpected: list[str]  # fit nothing that is known


@dataclass(frozen=True)
class Report:
    recipe: str
    output: str
    dtype: str
    bytes: int  # of the bundle
    tensors: int
    sources: dict[str, SourceReport]
    fresh: dict[str, str]  # key → how it starts
    missing: list[str]  # of `fresh`: asked of a source which lacks them
    warnings: list[str]
    outcome: str = "planned"  # of OUTCOMES

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


COUNTED = ("taken", "dead", "not_needed", "unexpected")  # of a source, in the header


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """The report in a few words, for the bundle's header: no paths, no single keys but those that start fresh."""
    sources = {
        name: {"is": source["is_a"], "layouts": source["layouts"]} | {key: len(source[key]) for key in COUNTED}
        for name, source in report["sources"].items()
    }
    made = {key: report[key] for key in ("recipe", "dtype")}
    return {**made, "sources": sources, "fresh": _fresh(report["fresh"]), "missing": len(report["missing"])}


def _fresh(fresh: dict[str, str]) -> dict[str, int]:
    """{"audioproj, random, seed 0": keys}."""
    return dict(Counter(f"{_where(key)}, {how}" for key, how in fresh.items()))


def _where(key: str) -> str:
    """The network, and for the U-Nets the sort of module."""
    parts = key.split(".")
    inner = next((part for part in parts[1:] if part.endswith("_modules") or part == "attentions"), None)
    return f"{parts[0]} {inner}" if inner else parts[0]


def _names(keys: list[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (f", and {len(keys) - SHOWN} more" if len(keys) > SHOWN else "")


def text(report: dict[str, Any]) -> str:
    """A few lines for people, from `Report.to_dict()`."""
    verb = OUTCOMES[report["outcome"]]
    lines = [
        f"{report['output']}: {report['recipe']}, {report['tensors']} tensors as {report['dtype']}, "
        f"{report['bytes'] / 1e9:.2f} GB, {verb}"
    ]
    for name, source in report["sources"].items():
        layouts = ", ".join(f"{kind} ({layout})" for kind, layout in source["layouts"].items())
        lines.append(f"  {name}: {source['path']}, {source['is_a'] or 'of no known name'}; read as {layouts}")
        counts = Counter(key.partition(".")[0] for key in source["taken"])
        lines.append("    taken: " + ", ".join(f"{part} {count}" for part, count in counts.items()))
        for kind, title in (("dead", "dead (never run)"), ("not_needed", "not needed"), ("unexpected", "unexpected")):
            if source[kind]:
                lines.append(f"    {title}: {len(source[kind])} keys ({_names(source[kind])})")
    for what, count in _fresh(report["fresh"]).items():
        lines.append(f"  starts fresh: {what}: {count} keys")
    if report["missing"]:
        lines.append(f"  missing, starts fresh: {len(report['missing'])} keys ({_names(report['missing'])})")
    return "\n".join(lines + [f"warning: {warning}" for warning in report["warnings"]])


def every_key(report: dict[str, Any]) -> str:
    """One line for each key that is dead, unexpected or missing, from `Report.to_dict()`: what `text` only counts."""
    lists = {
        f"{kind} in {name}": source[kind]
        for name, source in report["sources"].items()
        for kind in ("dead", "unexpected")
    }
    lines = []
    for title, keys in {**lists, "missing, starts fresh": report["missing"]}.items():
        lines += [f"{title}: {key}" for key in keys[:MOST]]
        if len(keys) > MOST:
            lines.append(f"{title}: {len(keys) - MOST} more; `tbd convert --dry-run --json` tells all {len(keys)}")
    return "\n".join(lines)


def origin(converted: dict[str, Any]) -> list[str]:
    """The `converted` entry of a bundle's header (`summary`) in lines for people; one of an older version has less."""
    lines = [f"converted by recipe {converted.get('recipe')} as {converted.get('dtype')}"]
    for name, source in converted.get("sources", {}).items():
        counts = ", ".join(f"{source[key]} {key.replace('_', ' ')}" for key in COUNTED if source.get(key))
        lines.append(f"  {name}: {source.get('is') or 'of no known name'}; keys: {counts}")
    lines += [f"  started fresh: {what}: {count} keys" for what, count in converted.get("fresh", {}).items()]
    if converted.get("missing"):
        lines.append(f"  missing from the sources, started fresh: {converted['missing']} keys")
    return lines
