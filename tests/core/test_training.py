"""The training loop and its objective: resuming, what is told, what is weighted, and the whole recipe once."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from tbd_core.config import SchedulerConfig
from tbd_core.data.plans import AU_NUMBERS, random_plans, unit_levels
from tbd_core.denoise import make_scheduler
from tbd_core.facs.emotions import units_for
from tbd_core.facs.rules import hard_conflicts
from tbd_core.training import run as whole_run
from tbd_core.training.loop import Recipe, Run, fit, learning_rate
from tbd_core.training.objective import add_noise, draw_drop, telling_cells, told, v_loss


RECIPE = Recipe(steps=12, batch=1, learning_rate=0.05, warmup=2, save_every=4, ema=0.5)


def a_run(folder) -> Run:
    return Run(folder, torch.device("cpu"))


def line(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(3, 1)


def line_loss(module, stop_at: int | None = None):
    steps = []

    def loss(generator):
        steps.append(generator.initial_seed())
        if stop_at is not None and len(steps) > stop_at:
            raise KeyboardInterrupt
        x = torch.randn(8, 3, generator=generator)
        return {"loss": (module(x) - x.sum(1, keepdim=True)).pow(2).mean()}

    return loss, steps


def test_training_descends(tmp_path):
    module = line()
    loss, _ = line_loss(module)
    before = loss(torch.Generator().manual_seed(9))["loss"].item()
    fit(a_run(tmp_path), "line", {"line": module}, loss, replace(RECIPE, steps=200), "key")
    assert loss(torch.Generator().manual_seed(9))["loss"].item() < before / 10


def test_a_broken_run_ends_as_an_unbroken_one(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "broken").mkdir()
    whole, broken = line(), line()
    fit(a_run(tmp_path / "whole"), "line", {"line": whole}, line_loss(whole)[0], RECIPE, "key")
    with pytest.raises(KeyboardInterrupt):
        fit(a_run(tmp_path / "broken"), "line", {"line": broken}, line_loss(broken, stop_at=6)[0], RECIPE, "key")
    broken = line(seed=5)  # a new process begins with other weights
    loss, steps = line_loss(broken)
    fit(a_run(tmp_path / "broken"), "line", {"line": broken}, loss, RECIPE, "key")
    assert len(steps) == 8  # from the checkpoint at step 4
    assert torch.allclose(whole.weight, broken.weight, atol=1e-6)


def test_a_finished_part_is_not_trained_again_unless_its_key_changes(tmp_path):
    module = line()
    fit(a_run(tmp_path), "line", {"line": module}, line_loss(module)[0], RECIPE, "key")
    again = line(seed=3)
    loss, steps = line_loss(again)
    fit(a_run(tmp_path), "line", {"line": again}, loss, RECIPE, "key")
    assert steps == [] and torch.equal(module.weight, again.weight)
    fit(a_run(tmp_path), "line", {"line": again}, loss, replace(RECIPE, steps=3), "another")
    assert len(steps) == 3


def test_only_what_is_named_learns(tmp_path):
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    before = module[0].weight.clone()
    fit(a_run(tmp_path), "two", {"two": module}, line_loss(module)[0], RECIPE, "key", lambda key: key.startswith("1."))
    assert torch.equal(module[0].weight, before)


def test_every_log_line_is_json_with_step_and_loss(tmp_path):
    module = line()
    fit(a_run(tmp_path), "line", {"line": module}, line_loss(module)[0], replace(RECIPE, steps=40), "key")
    lines = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in lines] == [20, 40] and all(entry["loss"] > 0 for entry in lines)


def test_learning_rate_warms_up_and_comes_down():
    recipe = Recipe(steps=100, batch=1, learning_rate=1.0, warmup=10)
    rates = [learning_rate(recipe, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(1.0) and rates[-1] < 0.03
    assert rates[10:] == sorted(rates[10:], reverse=True)


# The objective.


def test_weight_is_one_at_pure_noise_and_five_over_snr_plus_one_when_clean():
    scheduler = make_scheduler(SchedulerConfig())
    latents, noise = torch.zeros(1, 4, 2, 2), torch.ones(1, 4, 2, 2)
    cells = torch.ones(2, 2)
    for t in (0, 300, 700, 999):
        alpha = float(scheduler.alphas_cumprod[t])
        snr = alpha / (1 - alpha)
        expected = min(snr + 1, 5) / (snr + 1) * alpha  # the target is sqrt(alpha) times the noise
        got = v_loss(scheduler, torch.zeros(1, 4, 2, 2), latents, noise, torch.tensor([t]), cells)
        assert float(got) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert float(scheduler.alphas_cumprod[999]) < 1e-6


def test_noise_and_target_agree_with_diffusers():
    scheduler = make_scheduler(SchedulerConfig())
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(3, 4, 2, 2, generator=generator) for _ in range(2))
    timesteps = torch.tensor([0, 500, 999])
    assert torch.allclose(
        add_noise(scheduler, latents, noise, timesteps), scheduler.add_noise(latents, noise, timesteps)
    )
    velocity = scheduler.get_velocity(latents, noise, timesteps)
    assert float(v_loss(scheduler, velocity, latents, noise, timesteps, torch.ones(2, 2))) < 1e-10


def test_shares_of_what_is_told_are_as_stated():
    count = 4_000
    coarse, fine, label = (torch.full((count, 1, 1), v) for v in (1.0, 2.0, 4.0))
    timesteps = torch.full((count,), 599)  # u = 0.4: the second stage begins, the fine prompt alone
    generator = torch.Generator().manual_seed(0)
    out = told(coarse, fine, label, torch.ones(count, dtype=torch.bool), timesteps, 1000, (0.4,), generator).flatten()
    shares = {value: float((out == value).float().mean()) for value in (1.0, 2.0, 4.0)}
    assert shares[1.0] == pytest.approx(0.15, abs=0.02)
    assert shares[2.0] == pytest.approx(0.70, abs=0.03)  # blend 50 % (all fine here) + pure fine 20 %
    assert shares[4.0] == pytest.approx(0.15, abs=0.02)


def test_at_pure_noise_the_blend_is_all_coarse():
    coarse, fine, label = torch.ones(200, 1, 1), torch.zeros(200, 1, 1), torch.full((200, 1, 1), 9.0)
    out = told(coarse, fine, label, torch.zeros(200, dtype=torch.bool), torch.full((200,), 999), 1000, (0.4,),
               torch.Generator().manual_seed(1)).flatten()  # fmt: skip
    # A plan that is not exactly its emotion's is never told by coarse or label alone: blend (all coarse) or fine.
    assert set(out.tolist()) == {0.0, 1.0} and 0.4 < float(out.mean()) < 0.6


def test_conditions_are_dropped_together_and_alone_as_often_as_stated():
    generator = torch.Generator().manual_seed(0)
    drops = [draw_drop(generator) for _ in range(6_000)]
    share = {drop: drops.count(drop) / len(drops) for drop in set(drops)}
    assert share[(True, True, True)] == pytest.approx(0.10, abs=0.015)
    for alone in ((True, False, False), (False, True, False), (False, False, True)):
        assert share[alone] == pytest.approx(0.05, abs=0.01)


def test_cells_that_expressions_change_weigh_more_and_the_mean_is_one():
    portraits = torch.zeros(5, 4, 4, 4)
    faces = portraits.clone()
    faces[:, :, 1, 2] = 1.0
    cells = telling_cells(portraits, faces)
    assert float(cells.mean()) == pytest.approx(1.0) and cells.argmax() == 1 * 4 + 2


# The autoencoder's start.


def test_the_start_keeps_the_colour_of_every_cell():
    from tbd_core.models.build import build_vae
    from tbd_core.synthetic.portrait import neutral_face, random_identity, render
    from tbd_core.training.vae_start import start_with_colours

    torch.manual_seed(0)
    vae = build_vae(whole_run.tiny())
    picture = render(neutral_face(random_identity(torch.Generator().manual_seed(1), 1)), 128) * 2 - 1

    def agreement() -> float:
        """Correlation of the cells' colours, drawn against true."""
        with torch.no_grad():
            drawn = vae.decode(vae.encode(picture).latent_dist.mean).sample
        return float(
            torch.corrcoef(torch.stack([nn.functional.avg_pool2d(x, 16).flatten() for x in (drawn, picture)]))[0, 1]
        )

    plain = agreement()
    start_with_colours(vae, 4)
    assert agreement() > 0.9 > plain
    with pytest.raises(ValueError, match="2 channels a group; 5 are needed; take fewer groups than 16"):
        start_with_colours(vae, 16)


# Plans.


def test_random_plans_have_no_hard_conflicts_and_pure_ones_are_the_emotions():
    plans = random_plans(300, seed=4)
    assert all(not hard_conflicts(plan.units) for plan in plans)
    assert all(plan.units == units_for(plan.emotion, plan.intensity) for plan in plans if plan.pure)
    assert 0.5 < sum(plan.pure for plan in plans) / 300 < 0.7
    assert plans == random_plans(300, seed=4) != random_plans(300, seed=5)


def test_levels_follow_the_plan_on_each_side():
    plans = random_plans(200, seed=6)
    levels = unit_levels(plans)
    for row, plan in zip(levels, plans, strict=True):
        for unit in plan.units:
            if unit.number not in AU_NUMBERS:
                continue
            left, right = row[AU_NUMBERS.index(unit.number)].tolist()
            value = "ABCDE".index(unit.level) / 5 + 0.2
            assert left == pytest.approx(0 if unit.side == "right" else value)
            assert right == pytest.approx(0 if unit.side == "left" else value)


def test_the_whole_recipe_makes_a_bundle_that_draws(tmp_path, small_config):
    """Every part for two steps; then the bundle is loaded and says what it is."""
    from tbd_core.checkpoint import store

    config = replace(small_config, defaults=replace(small_config.defaults, size=64))
    about = whole_run.train(tmp_path / "run", tmp_path / "out.safetensors", whole_run.smoke(), "cpu", config)
    networks, loaded = store.load(tmp_path / "out.safetensors")
    assert set(about["training"]["losses"]) == {"vae", "text", "audio", "stage1", "stage2"}
    assert loaded.vae["scaling_factor"] == networks.vae.config.scaling_factor != 1.0
    log = [json.loads(text)["part"] for text in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert log == ["vae", "text", "audio", "stage1", "stage2"]
    # Again: everything is there, nothing is trained.
    whole_run.train(tmp_path / "run", tmp_path / "again.safetensors", whole_run.smoke(), "cpu", config)
    again, first = (tmp_path / name for name in ("again.safetensors", "out.safetensors"))
    assert again.stat().st_size == first.stat().st_size
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 5
