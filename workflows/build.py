"""Writes the workflows of this folder from graphs.py: for the page here, and for the API, under the same name, in api/.

    python workflows/build.py [--object-info FILE]

What the nodes look like comes from tests/golden/object_info.json (tests/golden/take_object_info.py asks a ComfyUI for
it). `tests/adapters/test_workflows.py` builds them again and compares, so they cannot go stale.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from graphs import GRAPHS
from page import Graph


HERE = Path(__file__).resolve().parent
OBJECT_INFO = HERE.parent / "tests" / "golden" / "object_info.json"


def versions(told: dict[str, Any]) -> dict[str, str]:
    """By the registry's name of a pack: what the page shows when its nodes are missing."""
    source = (HERE.parent / "tbd_core" / "__init__.py").read_text("utf-8")
    found = re.search(r'__version__ = "([^"]+)"', source)
    assert found, "tbd_core/__init__.py tells no version"
    return {"comfy-core": told["comfyui"], "comfyui-think-before-draw": found[1]}


def build(told: dict[str, Any]) -> dict[str, str]:
    """By path below this folder: the text of every file. `told`: {"comfyui": version, "nodes": object_info}."""
    files = {}
    for name, draw in GRAPHS.items():
        graph = Graph(name, told["nodes"], versions(told))
        draw(graph)
        files[f"{name}.json"] = as_text(graph.page()) + "\n"
        files[f"api/{name}.json"] = as_text(graph.api()) + "\n"
    return files


def as_text(value: Any, indent: int = 0) -> str:
    """JSON, what fits on a line on one, so that a change can be read in a diff."""
    line = json.dumps(value, ensure_ascii=False)
    if not value or not isinstance(value, (dict, list)) or len(line) + indent <= 116:
        return line
    pairs = value.items() if isinstance(value, dict) else ((None, one) for one in value)
    parts = [("" if key is None else f"{json.dumps(key)}: ") + as_text(one, indent + 2) for key, one in pairs]
    inside = ",\n".join(" " * (indent + 2) + part for part in parts)
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n{inside}\n{' ' * indent}{closing}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--object-info", type=Path, default=OBJECT_INFO)
    told = json.loads(options.parse_args().object_info.read_text("utf-8"))
    for name, text in build(told).items():
        path = HERE / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
