"""A real ComfyUI in this process, on the CPU, in folders of its own: `make test-comfy`."""

import asyncio
import atexit
import functools
import importlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest


ROOT = Path(__file__).resolve().parents[2]
CHECKOUT = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")
FOLDERS = ("custom_nodes", "input", "output", "temp", "user", "models/tbd", "models/loras")


@pytest.fixture(scope="session")
def checkout() -> Path:
    return CHECKOUT


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Before all else: pytest imports the pack's own `__init__.py` then, which asks for ComfyUI."""
    base_directory()


@functools.cache
def base_directory() -> Path:
    """Makes ComfyUI importable, as if started with `--cpu --base-directory` of a new folder, which is returned."""
    if not (CHECKOUT / "comfy" / "sd.py").is_file():
        pytest.exit(f"no ComfyUI in {CHECKOUT}; set COMFYUI_PATH to a checkout", 2)
    assert not any(Path(entry).name == "fakes" for entry in sys.path), "the stand-ins come first; add: -o pythonpath="
    base = Path(tempfile.mkdtemp(prefix="comfyui-"))
    atexit.register(shutil.rmtree, base, ignore_errors=True)
    for folder in FOLDERS:
        (base / folder).mkdir(parents=True)
    sys.path.insert(0, str(CHECKOUT))  # before the pack's own folder, which has a `nodes` as well
    own, sys.argv = sys.argv, ["main.py", "--cpu", "--base-directory", str(base)]
    try:
        import comfy.options

        comfy.options.enable_args_parsing()
        import comfy.cli_args  # noqa: F401  reads the command line when it is first imported
        import utils.extra_config  # noqa: F401  before `nodes` puts comfy/ first, whose utils.py hides this package
    finally:
        sys.argv = own
    return base


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """ComfyUI's base directory."""
    return base_directory()


@pytest.fixture(scope="session")
def pack(comfyui):
    """The pack as ComfyUI itself loads it."""
    import nodes

    link = comfyui / "custom_nodes" / "think-before-draw"
    link.symlink_to(ROOT)
    assert asyncio.run(nodes.load_custom_node(str(link))), "ComfyUI could not load the pack; its log says why"
    return sys.modules[str(link).replace(".", "_x_")]


@pytest.fixture(scope="session")
def part(pack):
    """`part("tbd_core.denoise")`: that module of the loaded pack. (A plain import would give a second one.)"""
    return lambda name: importlib.import_module(f"{pack.__name__}.{name}")


@pytest.fixture(scope="session")
def bridge(part):
    return part("nodes.comfy_bridge")


@pytest.fixture(scope="session")
def load(bridge):
    """`load(path, dtype)`: its `model`, `clip`, `vae` and `audio_encoder`, loaded as a node loads them."""
    import torch

    def load(path, dtype="fp32"):
        with torch.inference_mode():
            model, clip, vae, audio_encoder = bridge.load_bundle(path, dtype)
        return SimpleNamespace(model=model, clip=clip, vae=vae, audio_encoder=audio_encoder)

    return load


@pytest.fixture(scope="session")
def loaded(load, small_bundle):
    """The small random bundle."""
    return load(small_bundle)


@pytest.fixture(scope="session")
def drawn(bridge, loaded, face, sound):
    """`drawn(...)`: scaled latents of all clips, [F, C, h, w], through ComfyUI's sampling."""
    import torch

    def draw(seconds=0.5, steps=4, positive=None, negative=None, over=loaded, **options):
        with torch.inference_mode():
            reference, _ = bridge.see_portrait(over.model, over.vae, face, (64, 64))
            audio = bridge.listen(over.audio_encoder, sound(seconds))
            words = [bridge.encode_text(over.clip, "a happy person") if positive is None else positive]
            words.append(bridge.encode_text(over.clip, "blurry") if negative is None else negative)
            options = bridge.DrawOptions(seed=3, steps=steps, **options)
            clips = list(bridge.draw_clips(over.model, reference, audio, *words, options))
            return torch.cat(clips) * over.model.get_model_object("latent_format").scale_factor

    return draw


@pytest.fixture
def shelve(comfyui):
    """`shelve("tbd", "a.safetensors", file)`: a link below models/, for one test."""
    import folder_paths

    links = []

    def put(folder, name, file):
        links.append(comfyui / "models" / folder / name)
        links[-1].symlink_to(file)
        return links[-1]

    yield put
    for link in links:
        link.unlink()
    folder_paths.filename_list_cache.clear()


class Page:
    """Who watches: a browser that keeps what it is told."""

    client_id, last_node_id, last_prompt_id = None, None, None

    def __init__(self):
        self.sockets_metadata: dict = {}
        self.said: list[tuple] = []

    def send_sync(self, event, data, sid=None):
        self.said.append((event, data))

    def send_progress_text(self, text, node_id, sid=None):
        self.said.append((text, node_id))


@pytest.fixture
def queue(pack):
    """`queue(prompt) -> set of the nodes that ran`: one prompt, by ComfyUI's own executor and its cache."""
    import execution

    page = Page()
    executor = execution.PromptExecutor(page, cache_type=execution.CacheType.CLASSIC, cache_args={"lru": 0, "ram": 0})
    names = iter(range(1_000_000))

    def run(prompt: dict) -> set[str]:
        name = f"prompt {next(names)}"
        valid, error, wanted, faults = asyncio.run(execution.validate_prompt(name, prompt, None))
        assert valid, (error, faults)
        page.said.clear()
        executor.execute(prompt, name, {"client_id": "test"}, wanted)
        said = dict(page.said)
        assert "execution_error" not in said, said["execution_error"]["exception_message"]
        return {data["node"] for event, data in page.said if event == "executing" and data["node"]}

    run.page, run.executor = page, executor
    return run
