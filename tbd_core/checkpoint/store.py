"""One self-describing safetensors ↔ all networks of a bundle.

The header's `tbd` entry (JSON) holds the format version, the ModelConfig, and how the weights came about; the key
prefixes are the field names of `Networks`. Reading the header needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import ModelConfig
from ..devices import shapes_alone
from ..errors import InputError
from ..files import atomic, require_file, write_error
from ..units import TEXT_TOKENS


if TYPE_CHECKING:
    import torch

    from ..models.build import Networks

FORMAT = 1
LONGEST_HEADER = 100_000_000  # bytes, safetensors' own limit
BUNDLE = "a bundle written by `tbd train`, or take the bundled one (the default)"
WAY_OUT = f"give {BUNDLE}"


def read_header(path: Path, wanted: str = BUNDLE) -> dict[str, Any]:
    """The whole safetensors header, sizes checked against the file. InputError, whose way out is to give `wanted`, when
    it is no sound safetensors."""
    path = require_file(path, wanted)
    size = path.stat().st_size
    try:
        with open(path, "rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
            if not 0 < length <= min(size - 8, LONGEST_HEADER):
                raise ValueError("no header")
            header = json.loads(file.read(length))
        tensors = [value for key, value in header.items() if key != "__metadata__"]
        if not all(map(_sound, tensors)) or not isinstance(header.get("__metadata__", {}), dict):
            raise ValueError("another form of header")
        ends = [value["data_offsets"][1] for value in tensors]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise InputError(f"{path} ({size} bytes) is not a safetensors file; give {wanted}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give {wanted}") from error
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise InputError(f"{path} has {size} bytes but its header promises {expected}; copy or download it again")
    return header


def _sound(entry: dict[str, Any]) -> bool:
    """Whether a tensor's entry in a header has the form it must have."""
    begin, end = entry["data_offsets"]
    numbers = (*entry["shape"], begin, end)
    whole = all(type(n) is int and n >= 0 for n in numbers)  # (True is an int too)
    return whole and begin <= end and isinstance(entry["dtype"], str) and isinstance(entry["shape"], list)


def identity(path: Path) -> list[Any]:
    """What tells a bundle from every other, for keys: [SHA-256 of its header, bytes, time of the last change in ns].
    InputError as `read_header`."""
    header = json.dumps(read_header(path)).encode()
    file = Path(path).stat()
    return [hashlib.sha256(header).hexdigest(), file.st_size, file.st_mtime_ns]


def read_about(path: Path) -> dict[str, Any]:
    """The `tbd` entry of a bundle's header: format, config, name, training. InputError when it is another's file."""
    header = read_header(path)
    entry = header.get("__metadata__", {}).get("tbd")
    if entry is None:
        tensors = len(header) - ("__metadata__" in header)
        raise InputError(f"{path} has {tensors} tensors but no Think-Before-Draw header; {WAY_OUT}")
    try:
        about = json.loads(entry)
        version = about.get("format")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} has an unreadable Think-Before-Draw header ({error}); {WAY_OUT}") from error
    if version != FORMAT:
        raise InputError(f"{path} has bundle format {version}; this version reads {FORMAT}; {WAY_OUT}")
    return about


def read_config(path: Path) -> ModelConfig:
    """What the bundle says it is built of. InputError when an entry is missing or impossible."""
    try:
        return ModelConfig.from_dict(read_about(path)["config"])
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} describes no model that can be built ({error!r}); {WAY_OUT}") from error


def header_entry(config: ModelConfig, about: dict[str, Any]) -> str:
    """The `tbd` entry as it stands in the header."""
    return json.dumps({"format": FORMAT, "config": config.to_dict(), **about})


def read_drawable(path: Path) -> ModelConfig:
    """`read_config` of a bundle with this project's own conditions, to train or judge. InputError for one of Hallo's
    weights: drawn faces come without face tokens and masks."""
    config = read_config(path)
    if config.unet.wants_face:
        raise InputError(
            f"{path} wants Hallo's face tokens and face masks (context {config.unet.context}, audio "
            f"{config.unet.audio}), for which `generate` draws but neither training nor evaluation do; choose a bundle "
            "with context text and audio single"
        )
    return config


def save(
    path: Path, networks: Networks, config: ModelConfig, about: dict[str, Any], dtype: torch.dtype,
    besides: dict[str, torch.Tensor] | None = None,
) -> None:  # fmt: skip
    """Write everything under its final name at once, the networks' floats as `dtype`; `besides` are tensors by their
    full names. InputError when the disk does not take it."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = dict(besides or {})
    for prefix, module in networks.items():
        for key, value in module.state_dict().items():
            value = value.to(dtype) if value.is_floating_point() else value
            tensors[f"{prefix}.{key}"] = value.contiguous().cpu()
    entry = header_entry(config, about)
    try:
        with atomic(Path(path)) as partial:
            partial.touch()
            mode = partial.stat().st_mode  # what the umask allows; safetensors itself would leave 0600
            save_file(tensors, str(partial), {"tbd": entry})
            partial.chmod(mode)
    except (OSError, SafetensorError) as error:
        raise write_error(path, error) from error


def load(
    path: Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> tuple[Networks, ModelConfig]:
    """Build the networks a bundle describes, fill and freeze them. InputError names missing or unknown keys."""
    import torch

    from ..models.build import build

    config = read_config(path)
    with shapes_alone():
        networks = build(config)
    for prefix, module in networks.items():
        _fill(path, prefix, module, read(path, prefix))
    return networks.to(device, dtype or torch.float32).eval(), config


def read(path: Path, prefix: str, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    """The tensors of one network, {key without `prefix.`: on the CPU, floats as `dtype`}; None: as they are stored.
    InputError when the file is gone or damaged."""
    from safetensors import SafetensorError, safe_open

    state = {}
    try:
        with safe_open(str(path), framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (no dict)
                if key.startswith(f"{prefix}."):
                    value = file.get_tensor(key)
                    state[key[len(prefix) + 1 :]] = value.to(dtype) if dtype and value.is_floating_point() else value
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged ({error}); {WAY_OUT}") from error
    return state


def fill(
    path: Path,
    prefix: str,
    module: torch.nn.Module,
    dtype: torch.dtype | None = None,
    beside: tuple[str, ...] = (),
    newer: tuple[str, ...] = (),
) -> None:
    """Fill and freeze one network, also one built on the meta device: nothing else of the bundle is read.

    `module` then lies on the CPU, its floats as `dtype` (None: as they are stored). `beside`: children of it that are
    networks of their own in the bundle, each under its own name. `newer`: children that stay as they are (not on
    the meta device, then) when an older bundle lacks them. InputError names missing or unknown keys.
    """
    state = read(path, prefix, dtype)
    for name in beside:
        state |= {f"{name}.{key}": value for key, value in read(path, name, dtype).items()}
    state = {key: value for key, value in module.state_dict().items() if key.partition(".")[0] in newer} | state
    _fill(path, prefix, module, state)
    module.eval().requires_grad_(False)


def make(path: Path, prefix: str, dtype: torch.dtype, build: Callable[[], Any], beside: tuple[str, ...] = ()) -> Any:
    """What `build` gives, filled (`fill`), in channels-last memory: on a CPU its convolutions are 2.4 times as fast."""
    import torch

    with shapes_alone():
        network = build()
    fill(path, prefix, network, dtype, beside)
    # (nn.Module's own `to`: diffusers' warns about layers to be kept in fp32 even when there are none.)
    return torch.nn.Module.to(network, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def _fill(path: Path, prefix: str, module: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Load `state` strictly. transformers 5 drops the `text_model.` of transformers 4: a file of either fits both."""
    import torch

    own = module.state_dict()
    names = {key.removeprefix("text_model."): key for key in own}
    state = {names.get(key.removeprefix("text_model."), key): value for key, value in state.items()}
    missing, unknown = own.keys() - state.keys(), state.keys() - own.keys()
    wrong = [key for key in own.keys() & state.keys() if own[key].shape != state[key].shape]
    if wrong or missing or unknown:
        raise InputError(
            f"{path} does not fit its own description: {prefix} lacks {len(missing)} keys, has {len(unknown)} "
            f"unknown and {len(wrong)} of another shape; {WAY_OUT}"
        )
    module.load_state_dict(state, assign=True)
    for part in module.modules():
        if hasattr(part, "position_ids"):  # CLIP's, 0, 1, 2 ... : no file holds them
            part.position_ids = torch.arange(TEXT_TOKENS).unsqueeze(0)
