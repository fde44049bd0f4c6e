"""The weight table against a slow transcription of the paper, and the laws of each blend."""

import subprocess
import sys

import pytest

from tbd_core.errors import InputError
from tbd_core.progressive import BLENDS, alpha, make_schedule, weights_at


def algorithm_1(t, t_s, t_e, alpha_max, alpha_min):
    """Paper, Algorithm 1, line by line."""
    p = (t - t_s) / (t_e - t_s)
    a = alpha_max - p * (alpha_max - alpha_min)
    return a


def algorithm_2(timesteps, text_s1, text_s2, t_end, total):
    """Paper, Algorithm 2, line by line, over a batch of embeddings (here plain lists of numbers)."""
    text = [[0.0] * len(row) for row in text_s1]
    for i in range(len(timesteps)):
        t = timesteps[i]
        if t < t_end:
            a = algorithm_1(t, 0, t_end, 1.0, 0.5)
            text[i] = [a * x + (1 - a) * y for x, y in zip(text_s1[i], text_s2[i], strict=True)]
        else:
            a = algorithm_1(t, t_end, total, 1.0, 0.5)
            text[i] = [a * y + (1 - a) * x for x, y in zip(text_s1[i], text_s2[i], strict=True)]
    return text


def test_alpha_is_algorithm_1_value_by_value():
    for t in range(16, 41):
        assert alpha(t, 16, 40) == pytest.approx(algorithm_1(t, 16, 40, 1.0, 0.5), abs=1e-15)
    assert (alpha(16, 16, 40), alpha(28, 16, 40), alpha(40, 16, 40)) == (1.0, 0.75, 0.5)
    assert alpha(5, 0, 10, 0.9, 0.1) == pytest.approx(0.5)


@pytest.mark.parametrize(("steps", "t_end"), [(40, 16), (20, 8), (10, 3), (7, 5), (2, 1)])
def test_paper_blend_is_algorithm_2_value_by_value(steps, t_end):
    table = make_schedule(steps, 2, (t_end / steps,), "paper").weights
    # Embeddings (1, 0) and (0, 1): what Algorithm 2 makes of them are the two weights.
    expected = algorithm_2(list(range(steps)), [[1.0, 0.0]] * steps, [[0.0, 1.0]] * steps, t_end, steps)
    assert len(table) == steps
    for row, wanted in zip(table, expected, strict=True):
        assert row == pytest.approx(wanted, abs=1e-12)


def test_literal_progress_is_algorithm_2_at_the_ddpm_timestep():
    steps, total, t_end = 20, 1000, 400
    timesteps = [total - i * total // steps for i in range(steps)]  # falls while denoising
    expected = algorithm_2(timesteps, [[1.0, 0.0]] * steps, [[0.0, 1.0]] * steps, t_end, total)
    table = make_schedule(steps, 2, (0.4,), "paper", progress="literal").weights
    for row, wanted in zip(table, expected, strict=True):
        assert row == pytest.approx(wanted, abs=1e-12)
    assert table[0] == (0.5, 0.5)


def test_literal_progress_begins_with_the_last_stage():
    table = make_schedule(10, 2, (0.4,), "hard", progress="literal").weights
    assert [row.index(1.0) for row in table] == [1] * 7 + [0] * 3


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("stages", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("progress", ["denoise", "literal"])
def test_rows_sum_to_one_at_every_step(blend, stages, progress):
    for steps in (stages, 20, 33, 40):
        schedule = make_schedule(steps, stages, None, blend, progress)
        assert (schedule.steps, schedule.stages, schedule.blend) == (steps, stages, blend)
        assert len(schedule.split) == stages - 1
        for row in schedule.weights:
            assert sum(row) == pytest.approx(1.0, abs=1e-12)
            assert all(0.0 <= w <= 1.0 for w in row)


@pytest.mark.parametrize("blend", BLENDS)
def test_one_stage_is_all_ones(blend):
    assert make_schedule(5, 1, None, blend).weights == ((1.0,),) * 5
    assert weights_at(1.0, 1, None, blend) == (1.0,)


def test_hard_switches_exactly_at_the_boundary():
    table = make_schedule(40).weights
    assert table[15] == (1.0, 0.0)
    assert table[16] == (0.0, 1.0)
    assert sum(row[0] for row in table) == 16


def test_equal_stages_get_equal_steps():
    table = make_schedule(40, 4, None, "hard").weights
    assert [sum(row[j] for row in table) for j in range(4)] == [10, 10, 10, 10]


def test_paper_blend_jumps_at_the_boundary_and_ends_half_and_half():
    assert weights_at(0.0, 2, (0.4,), "paper") == (1.0, 0.0)
    assert weights_at(0.4 - 1e-9, 2, (0.4,), "paper") == pytest.approx((0.5, 0.5), abs=1e-6)
    assert weights_at(0.4, 2, (0.4,), "paper") == (0.0, 1.0)
    assert weights_at(1.0, 2, (0.4,), "paper") == pytest.approx((0.5, 0.5))


def test_paper_blend_of_more_stages_gives_the_rest_to_the_next_and_in_the_last_to_the_one_before():
    split = (0.25, 0.75)
    assert weights_at(0.125, 3, split, "paper") == pytest.approx((0.75, 0.25, 0.0))
    assert weights_at(0.5, 3, split, "paper") == pytest.approx((0.0, 0.75, 0.25))
    assert weights_at(0.875, 3, split, "paper") == pytest.approx((0.0, 0.25, 0.75))


def test_smooth_is_half_and_half_at_boundaries_and_peaks_at_ends_and_middles():
    split = (0.2, 0.6)
    assert weights_at(0.0, 3, split, "smooth") == (1.0, 0.0, 0.0)
    assert weights_at(0.2, 3, split, "smooth") == pytest.approx((0.5, 0.5, 0.0))
    assert weights_at(0.4, 3, split, "smooth") == pytest.approx((0.0, 1.0, 0.0))
    assert weights_at(0.6, 3, split, "smooth") == pytest.approx((0.0, 0.5, 0.5))
    assert weights_at(1.0, 3, split, "smooth") == pytest.approx((0.0, 0.0, 1.0))
    assert weights_at(0.1, 3, split, "smooth") == pytest.approx((0.75, 0.25, 0.0))


@pytest.mark.parametrize("stages", [2, 3, 5])
def test_smooth_never_jumps(stages):
    rows = [weights_at(i / 2000, stages, None, "smooth") for i in range(2001)]
    steps = [
        abs(a - b) for before, after in zip(rows, rows[1:], strict=False) for a, b in zip(before, after, strict=True)
    ]
    assert max(steps) < 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(steps=0), "steps is 0; at least 1"),
        (dict(steps=-3), "steps is -3"),
        (dict(steps=4, stages=0), "stages is 0"),
        (dict(steps=2, stages=3), "3 stages do not fit into 2 steps"),
        (dict(steps=9, split=(0.0,)), "contains 0; each boundary lies between 0 and 1"),
        (dict(steps=9, split=(1.0,)), "contains 1;"),
        (dict(steps=9, split=(1.5,)), "contains 1.5"),
        (dict(steps=9, split=(float("nan"),)), "contains nan"),
        (dict(steps=9, stages=3, split=(0.6, 0.3)), r"0\.6,0\.3 does not rise \(0.6 is followed by 0.3\)"),
        (dict(steps=9, stages=3, split=(0.3, 0.3)), "does not rise"),
        (dict(steps=9, stages=3, split=(0.4,)), "has 1 boundaries; 3 stages need 2"),
        (dict(steps=9, stages=1, split=(0.4,)), "has 1 boundaries; 1 stage needs 0"),
        (dict(steps=9, blend="soft"), "blend is 'soft'; choose hard, paper, smooth"),
        (dict(steps=9, progress="back"), "progress is 'back'; choose denoise or literal"),
    ],
)
def test_unusable_schedules_are_refused_with_their_numbers(arguments, message):
    with pytest.raises(InputError, match=message):
        make_schedule(**arguments)


def test_positions_outside_the_run_are_refused():
    with pytest.raises(InputError, match=r"progress is 1\.2"):
        weights_at(1.2)


def test_schedules_need_no_torch():
    code = "import sys, tbd_core.progressive; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
