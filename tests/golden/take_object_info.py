"""Asks a real ComfyUI what the nodes of the workflows look like: object_info.json beside this file.

    COMFYUI_PATH=… PYTHON tests/golden/take_object_info.py

PYTHON is one with ComfyUI's requirements. Afterwards: `python workflows/build.py` and `python locales/build.py`.
The menus of files are emptied: they are this machine's.
"""

import json
import runpy
import tempfile
from pathlib import Path


HERE = Path(__file__).resolve().parent
# The nodes of ComfyUI that a workflow of ours uses.
CORE = (
    "AudioEncoderEncode", "AudioEncoderLoader", "BatchLatentsNode", "CLIPLoader", "CLIPTextEncode", "CreateVideo",
    "ImageStitch", "KSampler", "LoadAudio", "LoadImage", "LoraLoaderModelOnly", "ModelSamplingSD3", "PreviewAny",
    "PreviewImage", "SaveVideo", "UNETLoader", "VAEDecode", "VAELoader", "WanHuMoImageToVideo", "WanSoundImageToVideo",
)  # fmt: skip
FILES = ("image_upload", "audio_upload")


def prune(object_info: dict) -> dict:
    """Only the nodes that workflows use, without what differs from one installation to the next.

    Of ComfyUI's own nodes neither descriptions nor tooltips: its words are under its licence.
    """
    kept = {name: info for name, info in object_info.items() if name in CORE or name.startswith("TBD")}
    for name, info in kept.items():
        info.pop("python_module", None)
        specs = [spec for group in ("required", "optional") for spec in info["input"].get(group, {}).values()]
        for spec in (spec for spec in specs if len(spec) > 1):
            if any(spec[1].get(upload) for upload in FILES):
                spec[0], spec[1] = "COMBO", {**spec[1], "options": []}
            if name in CORE:
                spec[1].pop("tooltip", None)
        if name in CORE:
            info.pop("description", None)
            info.pop("output_tooltips", None)
    return dict(sorted(kept.items()))


def write(object_info: dict, version: str) -> None:
    told = {"comfyui": version, "nodes": prune(object_info)}
    text = json.dumps(told, indent=1, ensure_ascii=False) + "\n"
    (HERE / "object_info.json").write_text(text, "utf-8")


def main() -> None:
    running = runpy.run_path(str(HERE.parent / "comfy" / "running.py"))
    with tempfile.TemporaryDirectory() as folder, running["Server"](Path(folder)) as server:
        version = server.get("/system_stats")["system"]["comfyui_version"]
        write(server.get("/object_info"), version)


if __name__ == "__main__":
    main()
