"""Where weights wait while they are not used: on the device, or in the machine's memory, which accelerate sees to.

none        all networks stay on the device
cpu         a network is on the device only while its stage lasts (accelerate's `cpu_offload_with_hook`)
sequential  only the layer that computes is there (accelerate's `cpu_offload`): the least memory, and by far the slowest
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .devices import has_own_memory
from .errors import InputError, needed_packages


if TYPE_CHECKING:
    import torch

    from .models.build import Networks

OFFLOAD = ("none", "cpu", "sequential")


def check_offload(how: str) -> None:
    """InputError when `how` is none of `OFFLOAD`; needs no torch."""
    if how not in OFFLOAD:
        raise InputError(f"unknown offload {how!r}; choose one of {', '.join(OFFLOAD)}")


def gains_nothing(how: str, device: torch.device) -> str | None:
    """What to tell somebody who offloads from a device that computes in the machine's own memory. It does no harm and
    draws the same, so it is no error: a script may say it everywhere."""
    if how == "none" or has_own_memory(device):
        return None
    return (
        f"--offload {how} gains nothing on {device}, which computes in the machine's own memory: the same is drawn "
        "with the same memory, only slower; leave it out here"
    )


def nothing() -> None:
    """What frees a device from which nothing is offloaded."""


def arrange(networks: Networks, device: torch.device, how: str) -> Callable[[], None]:
    """Let `networks`, which lie in the machine's memory (none: on `device`), compute on `device`. Returns what a stage
    calls in its end: it sends away what the stage used. `devices.place` says from now on where a network computes."""
    if how == "none":
        return nothing
    with needed_packages():
        from accelerate import cpu_offload, cpu_offload_with_hook
        from accelerate.utils.memory import clear_device_cache

    if how == "sequential":
        for _, network in networks.items():
            cpu_offload(network, device)
        return nothing
    hooks = []
    for name, network in networks.items():
        # wav2vec 2 is not called as a whole (`conditioning.audio_features`), and hooks come with calls.
        called = [part for part in network.children() if any(True for _ in part.parameters())]
        hooks += [cpu_offload_with_hook(part, device)[1] for part in (called if name == "audio_encoder" else [network])]

    def free() -> None:
        for hook in hooks:
            hook.offload()
        clear_device_cache()

    return free
