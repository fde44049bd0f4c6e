"""What `convert` did or would do, for people and programs: every key taken and from where, and what was not."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any


SHOWN = 3  # names of a list; the JSON has all


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

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """The report in a few words, for the bundle's header: no paths, no single keys but those that start fresh."""
    sources = {
        name: {"is": source["is_a"], "layouts": source["layouts"], "taken": len(source["taken"])}
        for name, source in report["sources"].items()
    }
    return {"recipe": report["recipe"], "dtype": report["dtype"], "sources": sources, "fresh": _fresh(report["fresh"])}


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


def text(report: dict[str, Any], done: bool) -> str:
    """A few lines for people, from `Report.to_dict()`. `done`: the file was written."""
    verb = "written" if done else "not written (dry run)"
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
