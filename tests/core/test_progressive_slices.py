"""Slices of the weight table: at every step exactly one of them is active, for every kind of model in ComfyUI.

`Discrete`, `Flow` and `Flux` say in own words what ComfyUI's noise schedules do: the levels of `simple` for S steps,
and the level of a percent. tests/comfy/test_schedules.py asks the real ones.
"""

import math

import pytest
import torch

from tbd_core.errors import InputError
from tbd_core.progressive import (
    BLENDS,
    Slice,
    boundary_percent,
    boundary_percents,
    boundary_sigma,
    boundary_sigmas,
    make_schedule,
    parse_split,
    slices,
)


class Kind:
    """A noise schedule: `table`, all levels from low to high, and the level where a part `left` of them remains."""

    def __init__(self):
        self.kept = {}

    def simple(self, steps: int) -> torch.Tensor:
        each = len(self.table) / steps
        return torch.tensor([float(self.table[-(1 + int(i * each))]) for i in range(steps)])

    def percent_to_sigma(self, percent: float) -> float:
        if percent not in self.kept:
            self.kept[percent] = self.level(1.0 - percent)
        return self.kept[percent]


class Discrete(Kind):
    """1000 timesteps (prediction of noise or velocity); between them log levels are interpolated."""

    def __init__(self, zero_snr: bool):
        super().__init__()
        signal = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0).sqrt()
        if zero_snr:
            signal = (signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])
        kept = (signal**2).clamp(min=4.9e-8)
        self.table = ((1 - kept) / kept).sqrt().float()

    def level(self, left: float) -> float:
        t = 999 * left
        low, high = self.table[math.floor(t)].log(), self.table[math.ceil(t)].log()
        return float(torch.lerp(low, high, t - math.floor(t)).exp())


class Flow(Kind):
    def __init__(self, shift: float, levels: int = 1000):
        super().__init__()
        self.shift = shift
        self.table = torch.tensor([self.level((i + 1) / levels) for i in range(levels)])

    def level(self, left: float) -> float:
        return self.shift * left / (1 + (self.shift - 1) * left)


class Flux(Flow):
    """10000 levels; an exponential shift is the same curve with shift e^mu."""

    def __init__(self, mu: float = 1.15):
        super().__init__(math.exp(mu), 10_000)


KINDS = {
    "epsilon": Discrete(zero_snr=False),
    "v, zero SNR": Discrete(zero_snr=True),
    "flow": Flow(1.0),
    "flow, shift 3": Flow(3.0),
    "flow, shift 8": Flow(8.0),
    "flux": Flux(),
}


def active(levels: torch.Tensor, bounds: list[float]) -> torch.Tensor:
    """Which slices count at each level, bool [S, slices], by ComfyUI's test: both ends of a range belong to it."""
    edges = torch.tensor(bounds, dtype=torch.float32)
    starts = torch.cat([torch.tensor([math.inf]), edges])
    ends = torch.cat([edges, torch.tensor([-math.inf])])
    return (levels[:, None] <= starts) & (levels[:, None] >= ends)


def faults(levels: torch.Tensor, bounds: list[float], schedule) -> str:
    """Steps at which not exactly the right slice is active; "" if there are none."""
    owner = [j for j, part in enumerate(slices(schedule)) for _ in range(part.first, part.last + 1)]
    found = active(levels, bounds)
    right = torch.zeros_like(found)
    right[range(len(owner)), owner] = True
    return "" if torch.equal(found, right) else str(found.ne(right).any(1).nonzero().flatten().tolist())


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_at_every_step_exactly_the_right_slice_is_active(kind, blend):
    for steps in range(1, 61):
        levels = KINDS[kind].simple(steps)
        for stages in range(1, min(4, steps) + 1):
            schedule = make_schedule(steps, stages, None, blend)
            bounds = [KINDS[kind].percent_to_sigma(p) for p in boundary_percents(schedule)]
            assert not faults(levels, bounds, schedule), (steps, stages, faults(levels, bounds, schedule))


@pytest.mark.parametrize("kind", KINDS)
def test_boundaries_of_a_hard_switch_hold_for_runs_of_other_lengths(kind):
    for stages, split in ((2, None), (3, None), (4, None), (2, (0.33,)), (3, (0.123, 0.777))):
        made = make_schedule(20, stages, split)
        bounds = [KINDS[kind].percent_to_sigma(p) for p in boundary_percents(made)]
        for steps in (set(range(10, 61)) - {38}) | {100, 250}:
            run = make_schedule(steps, stages, split)
            near = any(0 < b - math.floor(b * steps) / steps < 1e-3 for b in made.split)  # flux has finer levels
            if len(slices(run)) == stages and not (near and kind == "flux"):
                assert not faults(KINDS[kind].simple(steps), bounds, run), (steps, stages, split)


def test_the_checker_sees_two_active_slices_where_a_boundary_falls_on_a_step():
    kind, schedule = KINDS["flow"], make_schedule(20, 2)
    assert active(kind.simple(20), [kind.percent_to_sigma(0.4)]).sum(1).tolist() == [1] * 8 + [2] + [1] * 11
    assert faults(kind.simple(20), [kind.percent_to_sigma(0.4)], schedule) == "[8]"
    assert faults(kind.simple(20), [kind.percent_to_sigma(0.42)], schedule) == "[8]"


def test_literal_progress_is_sliced_by_its_own_table():
    for steps in (5, 20, 38, 47):
        schedule = make_schedule(steps, 3, None, "hard", "literal")
        for kind in KINDS.values():
            bounds = [kind.percent_to_sigma(p) for p in boundary_percents(schedule)]
            assert not faults(kind.simple(steps), bounds, schedule)


def falling(steps: int, seed: int) -> list[float]:
    """S + 1 noise levels that no scheduler has thought of, the last one 0."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.rand(steps, generator=generator, dtype=torch.float64).add(1e-3).cumsum(0).exp()
    return [*levels.flip(0).tolist(), 0.0]


@pytest.mark.parametrize("blend", BLENDS)
def test_with_known_noise_levels_every_step_and_every_stop_between_two_has_exactly_one_slice(blend):
    for steps in range(1, 61):
        sigmas = falling(steps, steps)
        for stages in range(1, min(4, steps) + 1):
            schedule = make_schedule(steps, stages, None, blend)
            bounds = list(boundary_sigmas(schedule, sigmas))
            assert not faults(torch.tensor(sigmas[:-1]), bounds, schedule), (steps, stages)
            pairs = list(zip(sigmas[:-2], sigmas[1:-1], strict=True))
            between = [m for a, b in pairs for m in ((a * b) ** 0.5, (a + b) / 2)]  # second-order samplers stop here
            assert active(torch.tensor(between), bounds).sum(1).eq(1).all()


def test_equal_rows_are_one_slice_and_every_step_is_in_one():
    assert slices(make_schedule(40)) == (Slice(0, 15, (1.0, 0.0)), Slice(16, 39, (0.0, 1.0)))
    assert len(slices(make_schedule(40, 2, None, "paper"))) == 40
    assert slices(make_schedule(7, 1)) == (Slice(0, 6, (1.0,)),)
    parts = slices(make_schedule(33, 3, (0.2, 0.9), "smooth"))
    assert [part.first for part in parts[1:]] == [part.last + 1 for part in parts[:-1]]
    assert (parts[0].first, parts[-1].last) == (0, 32)


def test_a_boundary_lies_half_a_timestep_before_its_step():
    t = [999 * (1 - boundary_percent(first, 1000)) for first in (1, 400, 999)]
    assert [round(x, 2) for x in t] == [998.5, 599.7, 1.0] and t[2] < 1
    assert boundary_percent(8, 20, 0.4) == boundary_percent(400, 1000)
    assert boundary_percent(19, 38) == boundary_percent(499, 1000)  # as ComfyUI rounds 19 * (1000 / 38)


def test_a_split_that_would_part_the_known_steps_wrongly_gives_way():
    assert boundary_percent(400, 1000, 0.3997) == boundary_percent(400, 1000)
    assert boundary_percent(8, 20, 0.36) == boundary_percent(360, 1000)


def test_noise_levels_between_two_steps_are_at_neither_mean():
    level = boundary_sigma(10.0, 2.0)
    assert 2.0 < level < 10.0 and abs(level - 6.0) > 0.5 and abs(level - 20**0.5) > 0.5


@pytest.mark.parametrize(
    ("sigmas", "message"),
    [
        ([1.0, 0.5, 0.5, 0.0], r"step 2 has 0\.5 and the next level is 0\.5"),
        ([1.0, 1.5, 0.5, 0.0], r"step 1 has 1 and the next level is 1\.5"),
        ([1.0, float("nan"), 0.5, 0.0], "step 1 has 1 and the next level is nan"),
    ],
)
def test_noise_levels_that_do_not_fall_are_refused_where_there_is_a_boundary(sigmas, message):
    with pytest.raises(InputError, match=message):
        boundary_sigmas(make_schedule(3, 2), sigmas)
    assert boundary_sigmas(make_schedule(3, 1), sigmas) == ()


def test_a_split_is_read_from_words():
    assert [parse_split(text) for text in ("", "  ", "0.4", " 0.3, .6 ")] == [None, None, (0.4,), (0.3, 0.6)]
    for text in ("0.4;0.5", "half", "0.4,"):
        with pytest.raises(InputError, match=rf"split '{text}' is not made of numbers; .* 0\.3,0\.6"):
            parse_split(text)
