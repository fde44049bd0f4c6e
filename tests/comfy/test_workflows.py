"""The bundled workflows before a real ComfyUI's own judge, with what it tells about its nodes today.

What needs public weights is judged, not run: empty files stand in the places of the models.
"""

import asyncio
import json
import shutil
from pathlib import Path

import pytest


pytestmark = pytest.mark.comfy

ROOT = Path(__file__).resolve().parents[2]
TWINS = sorted((ROOT / "workflows" / "api").glob("*.json"))
TOLD = json.loads((ROOT / "tests" / "golden" / "object_info.json").read_text("utf-8"))
# Menus of ours that list files: other tests put bundles into models/tbd, `known` weights into the others.
OF_THE_MODEL_FOLDERS = {
    "TBDModelLoader": ("model",),
    "TBDAudioEncoderLoader": ("audio_encoder_name",),
    "TBDConvert": ("sd", "vae", "text", "motion", "hallo", "wav2vec2"),
}
FILES_OF_THIS_MACHINE = ("unet_name", "clip_name", "vae_name", "audio_encoder_name", "lora_name", "image", "audio")


@pytest.fixture(scope="module")
def known(pack, comfyui) -> dict:
    """Every node's class by its id, ComfyUI's extra ones too, and the files that the workflows name."""
    import nodes

    asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
    for name in ("portrait.png", "speech.wav"):
        shutil.copyfile(ROOT / "tbd_core" / "assets" / "sample" / name, comfyui / "input" / name)
    for path in (ROOT / "workflows").glob("*.json"):
        for node in json.loads(path.read_text("utf-8"))["nodes"]:
            for model in node["properties"].get("models", ()):
                file = comfyui / "models" / model["directory"] / model["name"]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch()
    return nodes.NODE_CLASS_MAPPINGS


def info_of(cls) -> dict:
    """`/object_info`'s entry, as far as a graph depends on it."""
    if hasattr(cls, "GET_NODE_INFO_V1"):
        return json.loads(json.dumps(cls.GET_NODE_INFO_V1()))
    outputs = getattr(cls, "RETURN_NAMES", cls.RETURN_TYPES)
    return json.loads(
        json.dumps({"input": cls.INPUT_TYPES(), "output": cls.RETURN_TYPES, "output_name": list(outputs)})
    )


@pytest.mark.parametrize("twin", TWINS, ids=lambda path: path.stem)
def test_a_workflow_is_valid(known, twin):
    import execution

    prompt = json.loads(twin.read_text("utf-8"))
    valid, error, wanted, faults = asyncio.run(execution.validate_prompt("workflow", prompt, None))
    assert valid, (error, faults)
    ends = {id for id, node in prompt.items() if getattr(known[node["class_type"]], "OUTPUT_NODE", False)}
    assert set(wanted) == ends and faults == {}


@pytest.mark.parametrize("name", TOLD["nodes"])
def test_a_node_is_still_as_the_workflows_were_built_on(known, name):
    """Further inputs may have come at the end; what was there has its place and its kind."""
    told, now = TOLD["nodes"][name], info_of(known[name])
    for group in ("required", "optional"):
        before = list(told["input"].get(group, {}).items())
        today = list(now["input"].get(group, {}).items())[: len(before)]
        assert [id for id, _ in before] == [id for id, _ in today]
        for (id, was), (_, is_) in zip(before, today, strict=True):
            kinds = ["COMBO" if isinstance(spec[0], list) else spec[0] for spec in (was, is_)]
            assert kinds[0] == kinds[1], id
            menus = [
                spec[0] if isinstance(spec[0], list) else dict(*spec[1:]).get("options", []) for spec in (was, is_)
            ]
            if id not in FILES_OF_THIS_MACHINE and not (name == "TBDModelLoader" and id == "model"):
                assert set(menus[0]) <= set(menus[1]), id
    assert told["output"] == now["output"][: len(told["output"])]
    if name.startswith("TBD"):
        for id in OF_THE_MODEL_FOLDERS.get(name, ()):
            now["input"]["required"][id][1]["options"] = told["input"]["required"][id][1]["options"]
        assert told == {key: now[key] for key in told}, "run: tests/golden/take_object_info.py"
