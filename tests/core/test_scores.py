"""The scores' laws on made-up numbers."""

import numpy as np
import pytest
import torch

from tbd_core.evaluation import scores


def test_pearson_is_one_on_a_line_and_zero_for_who_never_moves():
    asked = [0, 1, 2, 4, 5]
    assert scores.pearson(asked, [2 * a + 1 for a in asked]) == pytest.approx(1)
    assert scores.pearson(asked, [-a for a in asked]) == pytest.approx(-1)
    assert scores.pearson(asked, [3] * 5) == 0
    assert scores.pearson([1, 1], [1, 2]) is None and scores.pearson([1], [1]) is None


@pytest.mark.parametrize("late", [-3, 0, 2])
def test_the_best_lag_is_how_late_the_reading_comes(late):
    asked = np.random.default_rng(0).random(80)
    curve = scores.lag_curve(asked, np.roll(asked, late))
    assert scores.best_lag([curve]) == late and curve[late] == pytest.approx(1)
    assert scores.best_lag([]) is None


def test_rises_is_strict():
    assert scores.rises([0.1, 0.2, 0.3])
    assert not scores.rises([0.1, 0.2, 0.2]) and not scores.rises([0.2, 0.1, 0.3])


def test_projection_is_zero_at_rest_and_one_at_the_plan():
    plan = torch.rand(4, 2)
    assert scores.projection(torch.zeros(4, 2), plan) == 0
    assert scores.projection(plan, plan) == pytest.approx(1) and scores.projection(plan / 2, plan) == pytest.approx(0.5)


def test_determination_is_one_when_exact_and_zero_for_the_mean():
    truth = np.array([0.0, 1.0, 2.0])
    assert scores.determination(truth, truth) == 1 and scores.determination(truth, [1, 1, 1]) == 0


def test_psnr_of_a_tenth_is_20_decibel():
    assert scores.psnr(torch.zeros(3, 4, 4), torch.full((3, 4, 4), 0.1)) == pytest.approx(20)


def test_seam_ratio_is_two_when_seams_change_twice_as_much():
    assert scores.seam_ratio([1, 1, 2, 1, 1, 2, 1], [2, 5]) == 2
    assert scores.seam_ratio([1, 1], []) is None and scores.seam_ratio([0, 1, 0], [1]) is None


def test_the_bootstrap_interval_holds_the_mean_and_narrows_with_more_cases():
    values = np.random.default_rng(1).normal(3, 1, 400)
    low, high = scores.interval(values)
    assert low < values.mean() < high and high - low < 0.3
    few = scores.interval(values[:20])
    assert few[1] - few[0] > high - low and scores.interval([]) is None
