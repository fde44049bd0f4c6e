"""Where files lie. A test points the folders at its own place: see `folders` in tests/adapters/conftest.py."""

from __future__ import annotations

import os
import tempfile


base_path = os.path.join(tempfile.gettempdir(), "no-comfyui-here")
models_dir = os.path.join(base_path, "models")
supported_pt_extensions = {".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft"}
folder_names_and_paths: dict[str, tuple[list[str], set[str]]] = {
    "audio_encoders": ([os.path.join(models_dir, "audio_encoders")], supported_pt_extensions),
    "embeddings": ([os.path.join(models_dir, "embeddings")], {".safetensors", ".pt", ".bin"}),
}
_directories = {kind: os.path.join(base_path, kind) for kind in ("input", "output", "temp")}


def get_input_directory() -> str:
    return _directories["input"]


def get_output_directory() -> str:
    return _directories["output"]


def get_temp_directory() -> str:
    return _directories["temp"]


def set_input_directory(input_dir: str) -> None:
    _directories["input"] = input_dir


def set_output_directory(output_dir: str) -> None:
    _directories["output"] = output_dir


def set_temp_directory(temp_dir: str) -> None:
    _directories["temp"] = temp_dir


def add_model_folder_path(folder_name: str, full_folder_path: str, is_default: bool = False) -> None:
    """A name that is new has no list of file endings: every file counts, as in ComfyUI."""
    paths, _ = folder_names_and_paths.setdefault(folder_name, ([], set()))
    if full_folder_path not in paths:
        paths.insert(0 if is_default else len(paths), full_folder_path)


def get_folder_paths(folder_name: str) -> list[str]:
    return list(folder_names_and_paths[folder_name][0])


def get_filename_list(folder_name: str) -> list[str]:
    paths, endings = folder_names_and_paths[folder_name]
    found = {
        os.path.relpath(os.path.join(folder, name), path)
        for path in paths
        for folder, _, names in os.walk(path)
        for name in names
    }
    return sorted(name for name in found if not endings or os.path.splitext(name)[1].lower() in endings)


def get_full_path(folder_name: str, filename: str) -> str | None:
    paths, _ = folder_names_and_paths.get(folder_name, ([], set()))
    inside = os.path.relpath(os.path.join("/", filename), "/")  # no way out by `..`
    return next((full for path in paths if os.path.isfile(full := os.path.join(path, inside))), None)


def get_full_path_or_raise(folder_name: str, filename: str) -> str:
    full = get_full_path(folder_name, filename)
    if full is None:
        raise FileNotFoundError(f"no file {filename!r} in the folders of {folder_name!r}")
    return full


def get_annotated_filepath(name: str, default_dir: str | None = None) -> str:
    """`a.png [output]` lies in the output folder; without the mark in `default_dir`, or the input folder."""
    for kind, directory in _directories.items():
        if name.endswith(f" [{kind}]"):
            return os.path.join(directory, name.removesuffix(f" [{kind}]"))
    return os.path.join(default_dir or get_input_directory(), name)


def exists_annotated_filepath(name) -> bool:
    return os.path.exists(get_annotated_filepath(name))


def get_save_image_path(
    filename_prefix: str, output_dir: str, image_width=0, image_height=0
) -> tuple[str, str, int, str, str]:
    """(folder, file name, next free number, folder below `output_dir`, the prefix)."""
    subfolder, name = os.path.split(os.path.normpath(filename_prefix))
    folder = os.path.abspath(os.path.join(output_dir, subfolder))
    if os.path.commonpath((output_dir, folder)) != output_dir:
        raise Exception(f"{folder} lies outside {output_dir}")
    os.makedirs(folder, exist_ok=True)
    taken = (file.removeprefix(f"{name}_").split("_")[0] for file in os.listdir(folder) if file.startswith(f"{name}_"))
    return folder, name, max((int(one) for one in taken if one.isdigit()), default=0) + 1, subfolder, filename_prefix
