"""Our slices inside ComfyUI's own samplers: small random models of every kind say which embedding each call got."""

import functools
import itertools

import pytest
import torch

from tbd_core.errors import InputError
from tbd_core.progressive import BLENDS, slices
from tbd_core.slicing import exact_slices, schedule_conditioning


pytestmark = pytest.mark.comfy

LINEAR = {"beta_schedule": "linear", "linear_start": 0.00085, "linear_end": 0.012}
KINDS = {
    "epsilon": ("EPS", LINEAR),
    "v, zero SNR": ("V_PREDICTION", LINEAR | {"zsnr": True}),
    "flow": ("FLOW", {"shift": 1.0}),
    "flow, shift 3": ("FLOW", {"shift": 3.0}),
    "flow, shift 8": ("FLOW", {"shift": 8.0}),
    "flux": ("FLUX", {"shift": 1.15}),
}
# Those that stop between two steps of the run among them; not dpm_fast and dpm_adaptive, which make their own steps.
SAMPLERS = ("euler", "heun", "dpm_2", "dpmpp_2m", "dpmpp_sde", "res_multistep", "uni_pc")
SCHEDULERS = ("simple", "normal", "sgm_uniform", "ddim_uniform", "beta", "karras", "exponential")
WIDTH, TOKENS = 8, 4


class Recorder(torch.nn.Module):
    """A small random network that keeps the first word's embedding of each row that it is called with."""

    def __init__(self, dtype=None, device=None, operations=None, **_):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.mix = torch.nn.Parameter(torch.randn(4, 4, 1, 1, generator=generator) / 4, requires_grad=False)
        self.pull = torch.nn.Parameter(torch.randn(WIDTH, 4, generator=generator) / 9, requires_grad=False)
        self.dtype, self.calls = dtype, []

    def forward(self, x, timesteps, context=None, transformer_options=None, **_):
        self.calls.append((float(transformer_options["sigmas"][0]), context[:, 0].clone()))
        return torch.tanh(torch.nn.functional.conv2d(x, self.mix) + (context.mean(1) @ self.pull)[:, :, None, None])


@functools.cache
def random_model(kind: str):
    """An ordinary MODEL of this kind."""
    import comfy.latent_formats
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models_base

    name, settings = KINDS[kind]

    class Recipe(comfy.supported_models_base.BASE):
        unet_extra_config: dict = {}
        sampling_settings = settings
        latent_format = comfy.latent_formats.SD15

    recipe, cpu = Recipe({}), torch.device("cpu")
    recipe.set_inference_dtype(torch.float32, None)
    type_ = comfy.model_base.ModelType[name]
    model = comfy.model_base.BaseModel(recipe, type_, device=cpu, unet_model=Recorder)
    return comfy.model_patcher.ModelPatcher(model, cpu, cpu)


def stages(count: int, longer: int = 0) -> list:
    """Embeddings whose first word is a unit vector, so that a blend's first word is its weights."""
    return [[[torch.eye(WIDTH)[j].expand(1, TOKENS + longer * j, WIDTH).clone(), {}]] for j in range(count)]


def levels(kind: str, scheduler: str, steps: int) -> torch.Tensor:
    import comfy.samplers

    return comfy.samplers.calculate_sigmas(random_model(kind).get_model_object("model_sampling"), scheduler, steps)


def drawn(kind: str, conditioning: list, sigmas: torch.Tensor, sampler: str = "euler") -> list[tuple]:
    """(sigma, embeddings [rows, WIDTH]) of each call of the network in one run."""
    import comfy.sample

    model = random_model(kind)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    negative = [[torch.zeros(1, TOKENS, WIDTH), {}]]  # guidance 1: ComfyUI leaves the negative out
    model.model.diffusion_model.calls = calls = []
    latents = comfy.sample.sample(
        model, noise, len(sigmas) - 1, 1.0, sampler, "simple", conditioning, negative, torch.zeros_like(noise),
        sigmas=sigmas, disable_pbar=True, seed=1,
    )  # fmt: skip
    assert latents.isfinite().all()
    return calls


def assert_table(calls: list[tuple], schedule) -> None:
    assert [len(rows) for _, rows in calls] == [1] * schedule.steps, "one embedding at each step, and one call"
    heard = torch.cat([rows for _, rows in calls])[:, : schedule.stages]
    assert torch.allclose(heard, torch.tensor(schedule.weights), atol=1e-6)


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_by_percent_a_simple_run_hears_the_table_step_by_step(kind, blend):
    for steps, count in ((1, 1), (7, 2), (20, 2), (20, 3), (38, 2), (40, 4)):
        conditioning, schedule = schedule_conditioning(stages(count), steps, None, blend)
        assert_table(drawn(kind, conditioning, levels(kind, "simple", steps)), schedule)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("kind", KINDS)
def test_with_noise_levels_every_scheduler_hears_the_table_step_by_step(kind, scheduler):
    for steps, count, blend in ((8, 2, "hard"), (12, 3, "smooth"), (25, 2, "paper")):
        sigmas = levels(kind, scheduler, steps)
        conditioning, schedule = schedule_conditioning(stages(count, longer=3), 1000, None, blend, sigmas=sigmas)
        assert schedule.steps == len(sigmas) - 1
        assert_table(drawn(kind, conditioning, sigmas), schedule)


@pytest.mark.parametrize("kind", KINDS)
def test_cut_again_for_another_run_it_hears_that_runs_table(kind):
    conditioning, _ = schedule_conditioning(stages(3), 40, (0.2, 0.7), "smooth")
    _, wanted = schedule_conditioning(stages(3), 11, (0.2, 0.7), "smooth")
    sigmas = levels(kind, "normal", 11)
    again = exact_slices(conditioning, sigmas)
    if len(sigmas) == 12:
        assert_table(drawn(kind, again, sigmas), wanted)
    else:
        assert_table(drawn(kind, again, sigmas), again[0][1]["tbd_schedule"].schedule)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("kind", ["epsilon", "v, zero SNR", "flow, shift 3"])
def test_no_sampler_ever_hears_two_slices_or_none(kind, sampler):
    sigmas = levels(kind, "simple", 10)
    for blend in BLENDS:
        conditioning, schedule = schedule_conditioning(stages(3), 10, None, blend, sigmas=sigmas)
        calls = drawn(kind, conditioning, sigmas, sampler)
        assert len(calls) >= 10 and all(len(rows) == 1 for _, rows in calls)
        table = torch.tensor([part.weights for part in slices(schedule)])
        for _, rows in calls:
            assert (table - rows[:, :3]).abs().amax(1).min() < 1e-6, "an embedding that is no slice's"


def queued(kind: str, conditioning: list, steps: int, sampler: str, scheduler: str) -> list[tuple]:
    """As `drawn`, by what ComfyUI's KSampler node calls: the noise levels are of its own making."""
    import nodes

    model, negative = random_model(kind), [[torch.zeros(1, TOKENS, WIDTH), {}]]
    model.model.diffusion_model.calls = calls = []
    empty = {"samples": torch.zeros(1, 4, 8, 8)}
    nodes.common_ksampler(model, 1, steps, 1.0, sampler, scheduler, conditioning, negative, empty)
    return calls


@pytest.mark.parametrize("sampler", (*SAMPLERS, "dpm_2_ancestral", "uni_pc_bh2"))
@pytest.mark.parametrize("kind", ["epsilon", "v, zero SNR", "flow, shift 3"])
def test_told_a_ksamplers_own_widgets_it_is_heard_there_step_by_step(part, kind, sampler):
    node, linked = part("nodes.scheduling").TBDProgressiveScheduler, stages(3)
    entries = {f"conditioning_{i}": linked[i] for i in range(3)}
    for scheduler, steps in (("simple", 10), ("normal", 20)):
        widgets = dict(steps=steps, split="", blend="smooth", progress="denoise", scheduler=scheduler, sampler=sampler)
        conditioning = node.execute(**widgets, conditionings=entries, model=random_model(kind)).args[0]
        plan = conditioning[0][1]["tbd_schedule"]
        levels, table = torch.tensor(plan.sigmas[:-1]), torch.tensor(plan.schedule.weights)
        met = set()
        for sigma, rows in queued(kind, conditioning, steps, sampler, scheduler):
            assert len(rows) == 1, "an embedding of two slices, or of none"
            for step in ((levels - sigma).abs() <= 1e-4 * levels).nonzero().flatten().tolist():  # else: between two
                assert torch.allclose(rows[0, :3], table[step], atol=1e-6), (scheduler, step)
                met.add(step)
        assert met == set(range(plan.schedule.steps)), "KSampler's steps are at other noise levels"


def test_samplers_that_leave_a_noise_level_out_have_others(bridge):
    of = {name: bridge.model_sigmas(random_model("flow, shift 8"), "simple", 20, name) for name in SAMPLERS}
    assert {len(found) for found in of.values()} == {21}
    assert {name for name, found in of.items() if found != of["euler"]} == {"dpm_2", "uni_pc"}
    assert bridge.model_sigmas(random_model("flow, shift 8"), "simple", 20) == of["euler"]


@pytest.mark.parametrize("linked", ({}, {"prompts.prompt_0": ["1", 0]}))
def test_a_single_prompt_is_a_valid_graph_and_so_is_none(pack, linked):
    """The page shows two sockets; only what is linked is asked for. (None is refused by the node, when it runs.)"""
    import asyncio

    import execution

    widgets = dict(steps=20, split="", blend="hard", progress="denoise", scheduler="from percent", sampler="euler")
    words = dict(emotion="happy", intensity="Mild", subject="", style="clip", thinker="rules")
    graph = {
        "1": {"class_type": "TBDPromptBuilder", "inputs": words},
        "2": {"class_type": "TBDModelLoader", "inputs": dict(model="tbd_tiny (bundled)", dtype="auto",
                                                             beta_schedule="from the bundle")},
        "3": {"class_type": "TBDProgressiveScheduler", "inputs": widgets | linked | {"clip": ["2", 1]}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 1]}},
    }  # fmt: skip
    valid, error, _, faults = asyncio.run(execution.validate_prompt("one", graph, None))
    assert valid, (error, faults)


@pytest.mark.parametrize("kind", KINDS)
def test_by_percent_exactly_one_slice_is_active_at_every_step_of_every_scheduler(kind):
    import comfy.samplers

    model = random_model(kind).model
    runs = {(name, s): levels(kind, name, s)[:-1] for name in SCHEDULERS for s in range(2, 61)}
    for steps, count, blend in itertools.product(range(1, 61), (1, 2, 3, 4), BLENDS):
        if count > steps:
            continue
        conditioning, schedule = schedule_conditioning(stages(count), steps, None, blend)
        conds = [dict(values) for _, values in conditioning]
        comfy.samplers.calculate_start_end_timesteps(model, conds)
        starts = torch.tensor([c.get("timestep_start", float("inf")) for c in conds])
        ends = torch.tensor([c.get("timestep_end", -1.0) for c in conds])
        own = levels(kind, "simple", steps)[:-1]
        others = [runs[name, max(2, steps)] for name in SCHEDULERS]
        for sigmas in (own, *others):
            active = (sigmas[:, None] <= starts) & (sigmas[:, None] >= ends)
            assert active.sum(1).eq(1).all(), (steps, count, blend)
        right = [j for j, part in enumerate(slices(schedule)) for _ in range(part.first, part.last + 1)]
        active = (own[:, None] <= starts) & (own[:, None] >= ends)
        assert active.int().argmax(1).tolist() == right, (steps, count, blend)


@pytest.mark.parametrize("kind", KINDS)
def test_comfyuis_own_test_of_a_range_says_the_same(kind):
    import comfy.samplers

    conditioning, schedule = schedule_conditioning(stages(3), 19, None, "smooth")
    conds = [{**values, "model_conds": {}, "uuid": i} for i, (_, values) in enumerate(conditioning)]
    comfy.samplers.calculate_start_end_timesteps(random_model(kind).model, conds)
    x = torch.zeros(1, 4, 2, 2)
    for step, sigma in enumerate(levels(kind, "simple", 19)[:-1]):
        found = [c["uuid"] for c in conds if comfy.samplers.get_area_and_mult(c, x, sigma[None]) is not None]
        assert [slices(schedule)[i].weights for i in found] == [schedule.weights[step]]


def test_levels_that_stand_still_are_refused():
    sigmas = torch.tensor([3.0, 2.0, 2.0, 0.0])
    with pytest.raises(InputError, match="step 2 has 2 and the next level is 2"):
        schedule_conditioning(stages(2), 3, sigmas=sigmas)
