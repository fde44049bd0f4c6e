"""The pack as ComfyUI, pytest and a plain Python process import it."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "diffusers", "transformers", "librosa", "scipy", "PIL")
# Modules that `prompts`, `schedule` and `info` need: they start without any heavy library.
LIGHT = ("errors", "units", "flow", "config", "facs", "cot_fa", "progressive", "cli")

# What ComfyUI does (nodes.py, load_custom_node): the package's name is its path, each dot written `_x_`.
LOAD_AS_COMFYUI = """
import importlib, importlib.util, sys
folder = sys.argv[1]
name = folder.replace(".", "_x_")
spec = importlib.util.spec_from_file_location(name, folder + "/__init__.py")
module = importlib.util.module_from_spec(spec)
sys.modules[name] = module
spec.loader.exec_module(module)
config = importlib.import_module(name + ".tbd_core.config")
assert config.__name__ == name + ".tbd_core.config"
assert "tbd_core" not in sys.modules, "something inside the pack imports tbd_core absolutely"
assert folder not in sys.path
"""


def python(*args: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONPATH": str(path)} if path else None
    return subprocess.run([sys.executable, *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=60)


def assert_silent(result: subprocess.CompletedProcess) -> None:
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.fixture
def folder(root, tmp_path) -> Path:
    """A copy of the pack as it may lie in `custom_nodes`."""
    folder = tmp_path / "comfyui-think-before-draw.v0.1"
    for part in ("nodes", "tbd_core"):
        shutil.copytree(root / part, folder / part, ignore=shutil.ignore_patterns("assets", "__pycache__"))
    shutil.copy(root / "__init__.py", folder)
    return folder


def test_pack_loads_silently_from_a_folder_with_dashes_and_dots(folder, root, tmp_path):
    assert_silent(python("-c", LOAD_AS_COMFYUI, str(folder), cwd=tmp_path, path=root / "tests" / "fakes"))


@pytest.mark.parametrize(
    ("api", "version", "found"),
    [(None, None, "an older one"), ("class ComfyExtension: ...\nclass io: ...", "0.7.0", "0.7.0")],
    ids=["no node API", "node API of 0.7.0"],
)
def test_pack_tells_an_old_comfyui_what_it_needs(folder, tmp_path, api, version, found):
    host = tmp_path / "host"
    (host / "comfy_api" / "latest").mkdir(parents=True)
    if api:
        (host / "comfy_api" / "latest" / "__init__.py").write_text(api)
    told = f"import sys, types; sys.modules['comfyui_version'] = types.SimpleNamespace(__version__={version!r})\n"
    result = python("-c", (told if version else "") + LOAD_AS_COMFYUI, str(folder), cwd=tmp_path, path=host)
    message = f"Think-Before-Draw found ComfyUI {found}; its nodes need 0.8.0 or newer: update ComfyUI"
    assert result.returncode == 1
    assert result.stderr.splitlines()[0] == message
    assert result.stderr.splitlines()[-1] == f"ImportError: {message}"


def test_pack_fixture_loads_the_same_pack(pack, root):
    assert Path(pack.__file__) == root / "__init__.py"
    assert pack.nodes.__name__ == "tbd_pack.nodes"


def test_bare_import_of_the_root_does_not_fail(root):
    spec = importlib.util.spec_from_file_location("__init__", root / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert not module.__package__
    assert not hasattr(module, "nodes")


def exists(name: str) -> bool:
    return any((ROOT / "tbd_core" / file).exists() for file in (f"{name}.py", f"{name}/__init__.py"))


@pytest.mark.parametrize("name", [name for name in LIGHT if exists(name)])
def test_import_is_silent_and_loads_no_heavy_library(name, root, tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r}); import tbd_core.{name};"
        f"heavy = [m for m in {HEAVY!r} if m in sys.modules]; assert not heavy, heavy"
    )
    assert_silent(python("-c", code, cwd=tmp_path))
