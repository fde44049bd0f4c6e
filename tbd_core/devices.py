"""Which device computes, in what type, and what memory it has left. The only place that says `cuda`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .errors import InputError
from .memory import available


if TYPE_CHECKING:
    import torch
    from torch import nn

DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}  # our names -> torch's


def check_device(name: str) -> None:
    """InputError when `name` is no device's; needs no torch."""
    if not DEVICE.fullmatch(name):
        raise InputError(f"unknown device {name!r}; choose one of auto, cpu, mps, cuda or cuda:N")


def pick_device(name: str) -> torch.device:
    """`auto`: CUDA, then MPS, then the CPU. InputError when the device asked for is not there."""
    import torch

    check_device(name)
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    there = [*cuda[:1], *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]
    if name == "auto":
        name = there[0]
    if name not in (*there, *cuda) and not (name == "cuda" and cuda):
        raise InputError(f"device {name!r} is not available here; this machine has {', '.join((*there, *cuda[1:]))}")
    return torch.device(name)


def multiplies_bf16(device: torch.device) -> bool:
    """Whether `device` has instructions for bf16; a CPU without them takes twice as long with it as with fp32."""
    import torch

    return device.type != "cpu" or getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto`: fp16 on CUDA and MPS; on the CPU bf16 where it multiplies bf16 itself, else fp32."""
    import torch

    if name == "auto":
        if device.type != "cpu":
            return torch.float16
        return torch.bfloat16 if multiplies_bf16(device) else torch.float32
    return getattr(torch, DTYPES[name])


@contextmanager
def shapes_alone() -> Iterator[None]:
    """What is built inside lies on the meta device, and no initialisation of torch's runs: a file gives the values. (On
    that device each runs through Python: all of them take longer there than on the CPU.) For this thread alone."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Uninitialised(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if getattr(func, "__module__", None) == "torch.nn.init":
                return kwargs["tensor"] if kwargs and "tensor" in kwargs else args[0]
            return func(*args, **(kwargs or {}))

    with torch.device("meta"), Uninitialised():
        yield


def name_of(dtype: torch.dtype) -> str:
    """Our name of torch's `dtype`: fp32, fp16 or bf16."""
    return next(ours for ours, theirs in DTYPES.items() if theirs == str(dtype).removeprefix("torch."))


def has_own_memory(device: torch.device) -> bool:
    """Whether `device` computes in memory that is not the machine's."""
    return device.type not in ("cpu", "mps")


def place(network: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where `network` computes, and in what type: there its inputs belong. Its weights need not lie there now: when
    they wait elsewhere (`offload.py`), accelerate's hooks know the place."""
    parameter = next(network.parameters())
    hooks = (getattr(module, "_hf_hook", None) for module in network.modules())
    told = (getattr(hook, "execution_device", None) for hook in hooks)
    return next((device for device in told if device is not None), parameter.device), parameter.dtype


@contextmanager
def at_hand(network: nn.Module) -> Iterator[None]:
    """`network`'s weights lie where it computes, though it is not called as a whole, upon which they would come."""
    waiting = [(part, hook) for part in network.modules() if (hook := getattr(part, "_hf_hook", None)) is not None]
    for part, hook in waiting:
        hook.pre_forward(part)
    try:
        yield
    finally:
        for part, hook in waiting:
            hook.post_forward(part, None)


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be had on `device`; None where nobody tells."""
    import torch

    if device.type == "cuda":
        # What torch itself has put by counts as free.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    return available()
