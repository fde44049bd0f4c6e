"""A weight table as ComfyUI's CONDITIONING: a list of [embedding, values], each valid for a range of the run.

Nothing of ComfyUI is imported; of its form only this is used. The embedding is a tensor [B, N, D]. Of the values,
`start_percent`/`end_percent` (0 .. 1 of the noise levels) or `timestep_start`/`timestep_end` (sigmas) are the
range; a missing end is open. Every other value is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .errors import InputError
from .flow import Schedule
from .progressive import Slice, boundary_percents, boundary_sigmas, make_schedule, slices


Entry = list  # [Tensor, dict]
Conditioning = list  # of Entry

SCHEDULE = "tbd_schedule"  # the Progressive that an entry was cut from
ONCE = "tbd_once"  # the slice is one step long: keeping its keys and values would not pay
PERCENTS = ("start_percent", "end_percent")
SIGMAS = ("timestep_start", "timestep_end")
WHOLE = {"start_percent": 0.0, "end_percent": 1.0, "clip_start_percent": 0.0, "clip_end_percent": 1.0}
RANGE = (*WHOLE, *SIGMAS)

# What text encoders of ComfyUI give beside the embedding; it is mixed as the embedding is.
BLENDED = ("pooled_output", "conditioning_")
MASKS = ("attention_mask", "attention_mask_mt5xl")  # [B, N], 1 where there is a word


@dataclass(frozen=True, eq=False)
class Progressive:
    """What a scheduled conditioning was made of, so that it can be cut again for another run."""

    stages: tuple[Conditioning, ...]  # K, coarse to fine, without ranges
    schedule: Schedule
    progress: str
    sigmas: tuple[float, ...] | None  # S + 1 falling noise levels; None: boundaries in percent

    def __repr__(self) -> str:
        known = "percent" if self.sigmas is None else "sigmas"
        return f"Progressive({self.schedule.stages} stages, {self.schedule.steps} steps, by {known})"

    def cut(self) -> Conditioning:
        """One entry for each slice; for a slice of one stage alone, all of its entries as they are."""
        parts = slices(self.schedule)
        if self.sigmas is None:
            names, bounds = PERCENTS, boundary_percents(self.schedule)
        else:
            names, bounds = SIGMAS, boundary_sigmas(self.schedule, self.sigmas)
        found = []
        for i, part in enumerate(parts):
            values: dict[str, Any] = {SCHEDULE: self, ONCE: part.first == part.last}
            if i > 0:
                values[names[0]] = bounds[i - 1]
            if i < len(bounds):
                values[names[1]] = bounds[i]
            found += [[tensor, {**kept, **values}] for tensor, kept in _mixed(part, self.stages)]
        return found


def schedule_conditioning(
    stages: Sequence[Conditioning],
    steps: int,
    split: Sequence[float] | None = None,
    blend: str = "hard",
    progress: str = "denoise",
    sigmas: Sequence[float] | Tensor | None = None,
) -> tuple[Conditioning, Schedule]:
    """(timed conditioning, its table) of K stages. With `sigmas` [S + 1] their count says S, not `steps`.

    Raises InputError: as `make_schedule`, and for stages that have a range, or that cannot be mixed.
    """
    levels = None if sigmas is None else tuple(float(sigma) for sigma in sigmas)
    if levels is not None:
        steps = len(levels) - 1
        if steps < 1:
            raise InputError(f"sigmas holds {len(levels)} values; a run of one step has 2: choose more steps")
    schedule = make_schedule(steps, len(stages), split, blend, progress)
    plain = tuple(_without_range(number, stage) for number, stage in enumerate(stages, start=1))
    return Progressive(plain, schedule, progress, levels).cut(), schedule


def exact_slices(conditioning: Conditioning, sigmas: Sequence[float] | Tensor) -> Conditioning:
    """`conditioning` with every schedule in it cut again for a run along `sigmas` [S + 1].

    What later nodes added to all slices alike stays (a mask, a reference). Slices they made unlike, gave other
    embeddings or another range to, and entries that are not ours, stay as they are.
    """
    found: Conditioning = []
    for plan, run in _runs(conditioning):
        added = None if plan is None else _added(plan, run)
        if plan is None or added is None:
            found += run
            continue
        old = plan.schedule
        again, _ = schedule_conditioning(plan.stages, old.steps, old.split, old.blend, plan.progress, sigmas)
        found += [[tensor, {**values, **added}] for tensor, values in again]
    return found


def blend_entries(weights: Sequence[float], entries: Sequence[Entry]) -> Entry:
    """One entry: Σ weights · embeddings, [B, N, D]; shorter ones are filled up with zeros at their end.

    Values that text encoders give beside it are mixed too; all others are those of the largest weight.
    Raises InputError for embeddings that differ in more than their length.
    """
    lead = max(range(len(entries)), key=lambda j: weights[j])
    mixed = _blend(weights, [tensor for tensor, _ in entries])
    if mixed is None:
        shapes = " and ".join(" x ".join(map(str, tensor.shape)) for tensor, _ in entries)
        raise InputError(f"the stages' embeddings are {shapes} (batch x tokens x width); encode all with the same CLIP")
    values = dict(entries[lead][1])
    for name, value in values.items():
        if name.startswith(BLENDED):
            others = [kept.get(name) for _, kept in entries]
            together = _blend(weights, others) if all(map(_mixable, others)) else None
            values[name] = value if together is None else together
    for name in MASKS:
        masks = [kept.get(name) for _, kept in entries]
        if any(mask is not None for mask in masks):
            values[name] = _either(masks, [tensor for tensor, _ in entries])
    return [mixed, values]


def _mixed(part: Slice, stages: Sequence[Conditioning]) -> Conditioning:
    active = [j for j, weight in enumerate(part.weights) if weight > 0]
    if len(active) == 1:
        return stages[active[0]]
    for j in active:
        if len(stages[j]) != 1:
            raise InputError(
                f"stage {j + 1} has {len(stages[j])} entries (areas or masks), a blend mixes 1 with 1; "
                "choose hard, or put areas and masks behind this node"
            )
    return [blend_entries([part.weights[j] for j in active], [stages[j][0] for j in active])]


def _without_range(number: int, stage: Conditioning) -> Conditioning:
    if not stage:
        raise InputError(f"stage {number} has 0 entries; link a conditioning that holds at least 1")
    for _, values in stage:
        for name in RANGE:
            if name in values and values[name] != WHOLE.get(name):
                raise InputError(
                    f"stage {number} is already limited to a part of the run ({name} is {values[name]:g}); "
                    "link it as it was before it got a range or a schedule"
                )
    return [[tensor, {name: v for name, v in values.items() if name not in RANGE}] for tensor, values in stage]


def _runs(conditioning: Conditioning) -> Iterator[tuple[Progressive | None, Conditioning]]:
    """Neighbouring entries of the same schedule together, others one by one."""
    run: Conditioning = []
    for entry in conditioning:
        if run and (run[-1][1].get(SCHEDULE) is not entry[1].get(SCHEDULE) or SCHEDULE not in entry[1]):
            yield run[-1][1].get(SCHEDULE), run
            run = []
        run.append(entry)
    if run:
        yield run[-1][1].get(SCHEDULE), run


def _added(plan: Progressive, run: Conditioning) -> dict[str, Any] | None:
    """The values that every entry of `run` has beyond those of `plan`; None if they are not one and the same."""
    made = plan.cut()
    if len(made) != len(run):
        return None
    found: list[dict[str, Any]] = []
    for (tensor, values), (given, kept) in zip(made, run, strict=True):
        if not _same(tensor, given) or values.keys() - kept.keys():
            return None
        found.append({n: v for n, v in kept.items() if n not in values or not _same(values[n], v)})
    first = found[0]
    alike = all(d.keys() == first.keys() and all(_same(first[n], v) for n, v in d.items()) for d in found)
    return first if alike and not first.keys() & set(RANGE) else None


def _same(a: Any, b: Any) -> bool:
    """Equal without asking objects that cannot say (tensors in them): those are the same only if identical."""
    if a is b:
        return True
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.device == b.device and torch.equal(a, b)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    return isinstance(a, (bool, int, float, str)) and type(a) is type(b) and a == b


def _mixable(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _blend(weights: Sequence[float], tensors: Sequence[Tensor]) -> Tensor | None:
    """Σ weights · tensors in float32, returned in the leader's dtype; tokens are axis -2 of three or more axes.

    None if their shapes differ in more than the number of tokens.
    """
    lead = tensors[max(range(len(tensors)), key=lambda j: weights[j])]
    tokens = lead.ndim - 2 if lead.ndim >= 3 else None
    shapes = [[n for axis, n in enumerate(tensor.shape) if axis != tokens] for tensor in tensors]
    if any(tensor.ndim != lead.ndim for tensor in tensors) or any(shape != shapes[0] for shape in shapes):
        return None
    longest = max(tensor.shape[tokens] for tensor in tensors) if tokens is not None else 0
    total = None
    for weight, tensor in zip(weights, tensors, strict=True):
        part = weight * tensor.to(lead.device, torch.float32)
        if tokens is not None:
            part = torch.nn.functional.pad(part, (0, 0, 0, longest - part.shape[tokens]))
        total = part if total is None else total + part
    return None if total is None else total.to(lead.dtype)


def _either(masks: Sequence[Tensor | None], tensors: Sequence[Tensor]) -> Tensor:
    """A word of any stage counts. Without a mask all words of a stage count; behind its end there are none."""
    like = next(mask for mask in masks if mask is not None)
    whole = [
        torch.ones(tensor.shape[:-1], dtype=like.dtype, device=like.device) if mask is None else mask.to(like.device)
        for mask, tensor in zip(masks, tensors, strict=True)
    ]
    longest = max(mask.shape[-1] for mask in whole)
    total = torch.nn.functional.pad(whole[0], (0, longest - whole[0].shape[-1]))
    for mask in whole[1:]:
        total = torch.maximum(total, torch.nn.functional.pad(mask.to(like.dtype), (0, longest - mask.shape[-1])))
    return total
