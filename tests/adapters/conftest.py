"""The nodes on stand-ins for ComfyUI (tests/fakes): listed as ComfyUI lists them, run as it runs them."""

import asyncio
import json
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="session")
def node_classes(pack) -> dict[str, type]:
    """Every node of the pack by its class name, from the entry point."""

    async def listed():
        return await (await pack.comfy_entrypoint()).get_node_list()

    return {node.__name__: node for node in asyncio.run(listed())}


@pytest.fixture(autouse=True)
def fresh_host():
    """A host that is neither cancelled, nor holds models, nor has a page open; again so after each test."""
    import comfy.model_management
    import comfy.utils
    from server import PromptServer

    yield
    comfy.model_management.interrupt_current_processing(False)
    comfy.model_management.current_loaded_models.clear()
    comfy.utils.set_progress_bar_global_hook(None)
    if hasattr(PromptServer, "instance"):
        del PromptServer.instance


@pytest.fixture
def folders(tmp_path, monkeypatch, pack):
    """ComfyUI's folders, new and empty: `input`, `output`, `temp`, `models/tbd` and
    `models/audio_encoders` under the path returned."""
    import folder_paths

    from tbd_pack.nodes import comfy_bridge  # noqa: F401  its first import adds models/tbd, for good

    for kind in ("input", "output", "temp"):
        (tmp_path / kind).mkdir()
        monkeypatch.setitem(folder_paths._directories, kind, str(tmp_path / kind))
    bundles = tmp_path / "models" / "tbd"
    bundles.mkdir(parents=True)
    monkeypatch.setattr(folder_paths, "models_dir", str(bundles.parent))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "tbd", ([str(bundles)], {".safetensors"}))
    encoders = tmp_path / "models" / "audio_encoders"
    encoders.mkdir()
    endings = folder_paths.supported_pt_extensions
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "audio_encoders", ([str(encoders)], endings))
    return tmp_path


def locked(node: type) -> type:
    """The class as `execute` gets it in ComfyUI: nothing can be kept on it."""

    class Locked(type(node)):
        def __setattr__(cls, name, value):
            raise AttributeError(f"{node.__name__}.{name} cannot be set: ComfyUI locks the class")

    return Locked(node.__name__, (node,), {})


@pytest.fixture(scope="session")
def run():
    """`run(node, **inputs) -> io.NodeOutput`: one execution by ComfyUI's rules, each of them asserted."""
    import torch

    def run(node: type, **inputs):
        schema = node.GET_SCHEMA()
        known = {one.id: one for one in schema.inputs}
        assert not inputs.keys() - known.keys(), f"no such inputs: {inputs.keys() - known.keys()}"
        # Absent from the call where nothing is linked to it: optional inputs and empty Autogrows.
        needed = {id for id, one in known.items() if not one.optional and not hasattr(one, "template")}
        assert not needed - inputs.keys(), f"inputs missing: {needed - inputs.keys()}"
        with torch.inference_mode():
            output = node.execute.__func__(locked(node), **inputs)
        assert output.block_execution is None, "without values ComfyUI ignores it: return one ExecutionBlocker each"
        assert len(output.args) == len(schema.outputs), f"{len(output.args)} values for {len(schema.outputs)} outputs"
        ui = output.ui.as_dict() if hasattr(output.ui, "as_dict") else output.ui or {}
        assert all(isinstance(value, (list, tuple)) for value in ui.values()), "ComfyUI takes a bare text apart"
        json.dumps(ui)
        return output

    return run


@pytest.fixture(scope="session")
def bundle(pack, small_bundle):
    """The small random bundle as Load TBD Model gives it: `model`, `clip`, `vae` and `audio_encoder`, in fp32."""
    import torch

    from tbd_pack.nodes import comfy_bridge

    with torch.inference_mode():
        model, clip, vae, audio_encoder = comfy_bridge.load_bundle(small_bundle, "fp32")
    return SimpleNamespace(model=model, clip=clip, vae=vae, audio_encoder=audio_encoder)


@pytest.fixture(scope="session")
def wires(bundle, face, sound):
    """What is linked to a sampler, and its widgets: two clips of two steps, guided."""
    import torch

    from tbd_pack.nodes import comfy_bridge

    with torch.inference_mode():
        return dict(
            model=bundle.model,
            reference=comfy_bridge.see_portrait(bundle.model, bundle.vae, face, (64, 64))[0],
            audio=comfy_bridge.listen(bundle.audio_encoder, sound(0.8)),
            positive=comfy_bridge.encode_text(bundle.clip, "a happy person"),
            negative=comfy_bridge.encode_text(bundle.clip, "blurry"),
            seed=7,
            steps=2,
            guidance=2.0,
            sampler="euler",
            scheduler="trailing",
            text_scale=-1.0,
            audio_scale=-1.0,
        )
