"""The layer order of docs/design.md, held over the imports of every module (those inside functions too)."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest


# A module or package imports only from those above it, or from inside its own package without a circle.
ORDER = [
    "errors", "units", "flow", "config", "files", "locks", "memory", "devices", "models", "checkpoint", "facs",
    "cot_fa", "portrait", "detectors", "faces", "crops", "embedding", "masks", "soundcheck", "speech", "loudness",
    "conditioning", "progressive", "slicing", "plots", "face_guide", "offload", "denoise", "guide", "frames", "preview",
    "likeness", "host", "cutouts", "video", "parts", "render", "batch", "estimate", "planning", "pipeline",
    "synthetic", "data", "evaluation", "training", "cli", "__main__",
]  # fmt: skip
COMFY = {"comfy", "comfy_api", "comfy_extras", "folder_paths", "nodes", "execution", "server"}
BRIDGE = "nodes/comfy_bridge.py"
PUBLIC_COMFY = {"comfy_api"}  # the versioned API that node files may use


def imports(path: Path) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Each import of a file: leading dots, the module after them, and the names taken from it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield 0, alias.name, ()
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or "", tuple(alias.name for alias in node.names)


def module_name(path: Path, core: Path) -> str:
    """`core/models/unet.py` -> `models.unet`; the core's own `__init__.py` -> ``."""
    parts = path.relative_to(core).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def edges(core: Path) -> dict[str, set[str]]:
    """For every module under `core`: those that it imports relatively; `^` marks a way out of `core`."""
    names = {module_name(path, core): path for path in core.rglob("*.py")}
    graph = {}
    for name, path in names.items():
        package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        package = [part for part in package if part]
        graph[name] = set()
        for level, module, taken in imports(path):
            if level == 0:
                continue
            if level - 1 > len(package):
                graph[name].add("^" + module)
                continue
            base = package[: len(package) - level + 1] + [part for part in module.split(".") if part]
            for item in taken:
                deeper = ".".join([*base, item])
                graph[name].add(deeper if deeper in names else ".".join(base))
        graph[name].discard(name)
    return graph


def order_faults(core: Path) -> list[str]:
    """Every import of `core` that goes down the order, out of the core, or in a circle."""
    graph, faults = edges(core), []
    for name, targets in graph.items():
        layer = name.split(".")[0]
        if layer and layer not in ORDER:
            faults.append(f"{name}: not in the layer order; give it its place in ORDER and docs/design.md")
            continue
        for target in targets:
            below = target.split(".")[0]
            if target.startswith("^") or (below and below not in ORDER):
                faults.append(f"{name} imports {target}, which is no layer of tbd_core")
            elif not layer and below:
                faults.append(f"tbd_core/__init__.py imports {target}; it stands above every layer")
            elif below and below != layer and ORDER.index(below) > ORDER.index(layer):
                faults.append(f"{name} imports {target}, which stands below it")
    inside = {
        name: {t for t in targets if t.split(".")[0] == name.split(".")[0] and t != name.split(".")[0]}
        for name, targets in graph.items()
    }
    try:
        TopologicalSorter(inside).prepare()
    except CycleError as error:
        faults.append("circle: " + " -> ".join(error.args[1]))
    return sorted(faults)


def border_faults(root: Path) -> list[str]:
    """Every import of ComfyUI outside the bridge, and every absolute import of `tbd_core` inside the pack."""
    files = [root / "__init__.py", *(root / "nodes").rglob("*.py"), *(root / "tbd_core").rglob("*.py")]
    faults = []
    for path in files:
        where = path.relative_to(root).as_posix()
        allowed = COMFY if where == BRIDGE else PUBLIC_COMFY if where.startswith("nodes/") else set()
        for level, module, _ in imports(path):
            top = module.split(".")[0]
            if level:
                continue
            if top == "tbd_core":
                faults.append(f"{where} imports {module} absolutely; inside the pack import relatively")
            elif top in COMFY - allowed:
                faults.append(f"{where} imports {module}; only {BRIDGE} talks to ComfyUI")
    return sorted(faults)


def test_every_module_imports_only_from_layers_above_it(root):
    assert order_faults(root / "tbd_core") == []


def test_only_the_bridge_knows_comfyui_and_all_imports_of_the_core_are_relative(root):
    assert border_faults(root) == []


@pytest.mark.parametrize(
    ("file", "code", "fault"),
    [
        ("units.py", "from .cli import main", "units imports cli, which stands below it"),
        ("units.py", "def f():\n    from . import cli", "units imports cli, which stands below it"),
        ("facs/rules.py", "from ..cot_fa.think import x", "facs.rules imports cot_fa.think, which"),
        ("facs/rules.py", "from ... import nodes", "facs.rules imports ^, which is no layer of tbd_core"),
        ("helper.py", "", "helper: not in the layer order; give it its place in ORDER and docs/design.md"),
        ("__init__.py", "from .cli import main", "tbd_core/__init__.py imports cli; it stands"),
        ("cot_fa/think.py", "from .prompts import x", "circle: "),
    ],
)
def test_a_planted_import_against_the_order_is_found(tmp_path, file, code, fault):
    plant(tmp_path, {"cot_fa/prompts.py": "from . import think\nfrom ..units import FPS", file: code})
    found = order_faults(tmp_path)
    assert len(found) == 1 and found[0].startswith(fault), found


def test_the_allowed_directions_are_no_fault(tmp_path):
    code = "from ..facs import rules\nfrom .. import __version__\nimport torch"
    plant(tmp_path, {"cot_fa/prompts.py": code})
    assert order_faults(tmp_path) == []


@pytest.mark.parametrize(
    ("file", "code", "faults"),
    [
        ("tbd_core/video.py", "import comfy.utils", 1),
        ("tbd_core/video.py", "def f():\n    import folder_paths", 1),
        ("tbd_core/video.py", "from tbd_core.units import FPS", 1),
        ("nodes/drawing.py", "import nodes", 1),
        ("nodes/drawing.py", "from comfy_api.latest import io", 0),
        ("nodes/comfy_bridge.py", "import comfy, folder_paths", 0),
    ],
)
def test_a_planted_import_over_the_border_is_found(tmp_path, file, code, faults):
    plant(tmp_path, {"__init__.py": "", file: code})
    assert len(border_faults(tmp_path)) == faults


def plant(folder: Path, files: dict[str, str]) -> None:
    """Write a small tree of modules; those that the planted imports name exist too."""
    empty = dict.fromkeys(["__init__.py", "units.py", "cli.py", "facs/rules.py", "cot_fa/think.py"], "")
    for name, code in (empty | files).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")
        if not (path.parent / "__init__.py").exists():
            (path.parent / "__init__.py").write_text("", encoding="utf-8")
