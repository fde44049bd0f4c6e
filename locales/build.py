"""Writes what is said about the nodes in English where it is told twice: locales/en and the tables of web/docs.

    python locales/build.py

The words are those of the nodes' own schemas, by way of tests/golden/object_info.json. A help page keeps all that is
written outside its two markers; its picture is web/docs/img/<node id>.jpg, once there is one.
`tests/adapters/test_web.py` writes them again and compares, and holds the translations against the same inputs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "web" / "docs"
BEGIN, END = "<!-- from the schema -->", "<!-- up to here -->"
LONG_MENU = 8  # more choices than these are not listed
GROWING = "COMFY_AUTOGROW_V3"

Info = dict[str, Any]


def own_nodes() -> dict[str, Info]:
    """Our nodes as ComfyUI tells them, by id."""
    told = json.loads((ROOT / "tests" / "golden" / "object_info.json").read_text("utf-8"))
    return {name: info for name, info in told["nodes"].items() if name.startswith("TBD")}


def inputs(info: Info) -> dict[str, tuple[str, dict[str, Any], bool]]:
    """By id: kind, options, and whether it may be left out."""
    groups = [(group == "optional", info["input"].get(group, {})) for group in ("required", "optional")]
    return {id: (spec[0], spec[1], optional) for optional, group in groups for id, spec in group.items()}


def english(nodes: dict[str, Info]) -> dict[str, Any]:
    """locales/en/nodeDefs.json: the words of the schemas, in the page's order of keys."""
    return {
        name: {
            "display_name": info["display_name"],
            "description": info["description"],
            "inputs": {
                id: {"name": options.get("display_name", id), "tooltip": options["tooltip"]}
                for id, (_, options, _) in inputs(info).items()
            },
            "outputs": {
                str(slot): {"name": label, "tooltip": tooltip}
                for slot, (label, tooltip) in enumerate(zip(info["output_name"], info["output_tooltips"], strict=True))
            },
        }
        for name, info in nodes.items()
    }


def _kind(kind: str, options: dict[str, Any], optional: bool) -> str:
    if kind == GROWING:
        template = options["template"]
        (inner, *_), *_ = template["input"]["required"].values()
        return f"{inner}, up to {template['max']}"
    limits = f" {options['min']:g} … {options['max']:g}" if "min" in options and "max" in options else ""
    if kind == "COMBO":
        choices = options["options"]
        kind = " / ".join(choices) if len(choices) <= LONG_MENU else f"menu of {len(choices)}"
        kind = kind or "menu of files"  # this machine has none
    return kind.replace("*", "any") + limits + (", optional" if optional else "")


def _default(options: dict[str, Any]) -> str:
    default = options.get("default")
    return "" if default is None or default == "" else f"`{default}`"


def parameters(name: str, info: Info) -> str:
    """The part of a help page that the schema writes: picture, inputs, outputs."""
    lines = []
    if (DOCS / "img" / f"{name}.jpg").is_file():
        lines += [f"![{info['display_name']}](img/{name}.jpg)", ""]
    rows = [
        (f"**{id}**", _kind(kind, options, optional), _default(options), options["tooltip"])
        for id, (kind, options, optional) in inputs(info).items()
    ]
    if rows:
        lines += ["## Inputs", "", *_table(("input", "kind", "default", "what it does"), rows), ""]
    outputs = zip(info["output_name"], info["output"], info["output_tooltips"], strict=True)
    rows = [(f"**{label}**", kind.replace("*", "any"), tooltip) for label, kind, tooltip in outputs]
    lines += ["## Outputs", "", *_table(("output", "kind", "what it is"), rows)]
    return "\n".join(lines)


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    cells = [heads, tuple("---" for _ in heads), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in cells]


def page(text: str, name: str, info: Info) -> str:
    """A help page with its schema's part written anew."""
    before, begun, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (begun and ended):
        raise ValueError(f"web/docs/{name}.md lacks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{parameters(name, info)}\n{END}{after}"


def main() -> None:
    nodes = own_nodes()
    text = json.dumps(english(nodes), indent=2, ensure_ascii=False) + "\n"
    (ROOT / "locales" / "en" / "nodeDefs.json").write_text(text, "utf-8")
    for name, info in nodes.items():
        path = DOCS / f"{name}.md"
        path.write_text(page(path.read_text("utf-8"), name, info), "utf-8")


if __name__ == "__main__":
    main()
