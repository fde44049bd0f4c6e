"""A bundle's header and sizes → the memory that a drawing needs, part by part, before a network is loaded; and from a
measured step the time it takes (all of it ours).

Weights are counted in the header; what networks hold at work is `models/footprint.py`. Space that kernels take for
themselves is not in it: docs/full_size.md says what was measured beside it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .checkpoint import store
from .config import GenerateOptions, ModelConfig
from .devices import free_memory, has_own_memory, name_of, pick_device, pick_dtype
from .errors import InputError
from .flow import StepReport
from .memory import available
from .models import footprint
from .offload import OFFLOAD
from .units import LATENT_SCALE


ITEMSIZE = {"fp32": 4, "fp16": 2, "bf16": 2}
PROGRAM = 600_000_000  # bytes that Python and its libraries hold (measured, docs/performance.md)
NO_NETWORK = "portraits"  # tensors of a bundle that stay in its file (`likeness.py`)
LEAST_SIDE, SHRINK = 64, 0.9  # px, and by how much a smaller size is looked for

NAMES = {"denoising_unet": "denoiser", "reference_unet": "ReferenceNet", "vae": "VAE"}
SMALL = "encoders"  # all other networks
STAGES = (("denoising_unet", "audioproj"), ("reference_unet",), ("vae",))  # others are stages of their own


@dataclass(frozen=True)
class Drawing:
    """What the need of memory depends on."""

    weights: Mapping[str, int]  # numbers of each network
    largest: int  # numbers of the largest layer
    config: ModelConfig
    size: tuple[int, int]  # (W, H) pixels
    dtype: str  # fp32, fp16 or bf16
    offload: str
    own_memory: bool  # the device's is not the machine's
    texts: int  # kept at once: K stages and the negative
    device: str

    @classmethod
    def of(cls, options: GenerateOptions, config: ModelConfig, size: tuple[int, int], texts: int) -> Drawing:
        """By the bundle's header and the machine; no network is loaded. InputError as `store.read_header` and
        `pick_device`."""
        device = pick_device(options.device)
        weights, largest = count(store.read_header(options.model))
        dtype = name_of(pick_dtype(options.dtype, device))
        own = has_own_memory(device)
        return cls(weights, largest, config, size, dtype, options.offload, own, texts, str(device))


@dataclass(frozen=True)
class Estimate:
    """Bytes on a device when it holds most."""

    device: str
    parts: dict[str, int]
    free: int | None  # None: nobody tells

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {amount(size)}" for name, size in self.parts.items())
        free = "" if self.free is None else f"; {amount(self.free)} are free"
        return f"needs about {amount(self.total)} of memory on {self.device} ({parts}){free}"


def amount(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 0.95e9 else f"{math.ceil(size / 1e6)} MB"


def count(header: Mapping[str, Any]) -> tuple[dict[str, int], int]:
    """A safetensors header → (numbers of each network, those of the largest layer)."""
    networks: dict[str, int] = {}
    layers: dict[str, int] = {}
    for key, value in header.items():
        network, layer = key.split(".")[0], key.rpartition(".")[0]
        if key == "__metadata__" or network == NO_NETWORK:
            continue
        size = math.prod(value["shape"])
        networks[network] = networks.get(network, 0) + size
        layers[layer] = layers.get(layer, 0) + size
    return networks, max(layers.values(), default=0)


def parts(job: Drawing) -> dict[str, int]:
    """{part: bytes} when the device holds most."""
    item = ITEMSIZE[job.dtype]
    work = {
        "denoising_unet": footprint.drawing(job.config, job.size, job.texts) * item,
        "reference_unet": footprint.seeing(job.config, job.size) * item,
        "vae": footprint.decoding(job.config, job.size) * item,
    }
    if not job.own_memory:
        return {**_named(job.weights, item), "drawing": max(work.values()), "program": PROGRAM}
    if job.offload == "sequential":
        return {"largest layer": job.largest * item, "drawing": max(work.values())}
    if job.offload == "cpu":
        rest = tuple((name,) for name in job.weights if not any(name in stage for stage in STAGES))
        cases = []
        for stage in (*STAGES, *rest):
            there = {name: job.weights[name] for name in stage if name in job.weights}
            cases.append({**_named(there, item), "drawing": work.get(stage[0], 0)})
        return max(cases, key=lambda case: sum(case.values()))
    return {**_named(job.weights, item), "drawing": max(work.values())}


def _named(weights: Mapping[str, int], item: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for network, numbers in sorted(weights.items(), key=lambda pair: -pair[1]):
        name = NAMES.get(network, SMALL)
        found[name] = found.get(name, 0) + numbers * item
    return found


def need(job: Drawing) -> int:
    return sum(parts(job).values())


def estimated(job: Drawing) -> Estimate:
    """What `job` needs of what is free now. InputError when it cannot fit."""
    free = free_memory(pick_device(job.device))
    require_room(job, free)
    waiting, left = sum(job.weights.values()) * ITEMSIZE[job.dtype], available()
    if job.own_memory and job.offload != "none" and left is not None and waiting > left:
        raise InputError(
            f"--offload {job.offload} keeps {amount(waiting)} of weights ({job.dtype}) in the machine's memory, of "
            f"which {amount(left)} are free; close other programs or take --offload none"
            f"{' or --dtype fp16' if job.dtype == 'fp32' else ''}"
        )
    return Estimate(job.device, parts(job), free)


def require_room(job: Drawing, free: int | None) -> None:
    """InputError when `job` needs more than `free` bytes: by how much, and what would fit, each with its own need."""
    if free is None or need(job) <= free:
        return
    fitting = (next((way for way in group if need(way[1]) <= free), None) for group in others(job))
    ways = [f"{text} ({amount(need(other))})" for text, other in filter(None, fitting)]
    if not ways:
        text, least = together(job, free)
        out = f"even {text} needs {amount(need(least))}: use another --device"
        if need(least) <= free:
            ways = [f"{text} ({amount(need(least))})"]
    if ways:
        out = f"what fits: {', '.join(ways)}"
    said = ", ".join(f"{name} {amount(size)}" for name, size in parts(job).items())
    width, height = job.size
    raise InputError(
        f"drawing at {width}x{height} in {job.dtype} with --offload {job.offload} needs about {amount(need(job))} on "
        f"{job.device} ({said}), of which {amount(free)} are free; {out}"
    )


Way = tuple[str, Drawing]  # what the command line would say


def others(job: Drawing) -> tuple[list[Way], list[Way], list[Way]]:
    """Ways to need less by one option alone, each list from the least change on: --offload, --dtype, --size."""
    after = OFFLOAD[OFFLOAD.index(job.offload) + 1 :] if job.own_memory else ()
    half = "fp16" if job.own_memory else "bf16"
    dtypes = [half] if job.dtype == "fp32" else []
    return (
        [(f"--offload {how}", replace(job, offload=how)) for how in after],
        [(f"--dtype {dtype}", replace(job, dtype=dtype)) for dtype in dtypes],
        [(f"--size {w}x{h}", replace(job, size=(w, h))) for w, h in _smaller(job.size)],
    )


def together(job: Drawing, free: int) -> Way:
    """One option after the other, until it fits or all are as far as they go."""
    said = []
    for place in range(3):
        if need(job) > free and (ways := others(job)[place]):
            text, job = next((way for way in ways if need(way[1]) <= free), ways[-1])
            said.append(text)
    return " ".join(said) or "this", job


def _smaller(size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Sizes of about the same shape, each a tenth smaller than the one before."""
    factor = SHRINK
    while min(size) * factor >= LEAST_SIDE:
        width, height = (round(side * factor / LATENT_SCALE) * LATENT_SCALE for side in size)
        yield width, height
        factor *= SHRINK


def out_of_memory(job: Drawing, finished: int, num_clips: int, error: BaseException) -> InputError:
    """Where memory ran out, what is kept, and what needs less. Where weights wait is no part of what is drawn, so that
    clips of one --offload serve another."""
    offload, dtype, size = ([text for text, _ in ways[:1]] for ways in others(job))
    said = " ".join(str(error).split())[:200] or type(error).__name__
    again = (
        f"the same command with {offload[0]} goes on" if offload else "free some memory, and the same command goes on"
    )
    return InputError(
        f"memory of {job.device} ran out after {finished} of {num_clips} clips ({said}); what is finished is kept: "
        f"{again}; {' or '.join(dtype + size) or 'another --device'} begins anew and needs less"
    )


# Time.


class Pace:
    """Told of every step, says once how long the drawing takes: by the run's second step, since its first one also
    warms the device up and projects what is kept. Finished clips of an earlier run are not counted."""

    def __init__(self) -> None:
        self._first: float | None = None
        self._said = False

    def __call__(self, report: StepReport, now: float | None = None) -> str | None:
        """`now`: seconds of a monotonic clock."""
        now = time.monotonic() if now is None else now
        if self._first is None:
            self._first = now
        elif not self._said:
            self._said = True
            step = now - self._first
            clips = report.num_clips - report.clip
            left = clips * report.num_steps - report.step
            steps = f"{clips} x {report.num_steps} steps, {step:.2f} s each, measured"
            return f"about {duration(left * step)} to go ({steps}) and the decoding"
        return None


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
