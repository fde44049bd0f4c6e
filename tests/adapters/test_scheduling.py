"""Progressive Text Scheduler: prompts or conditionings in, one timed CONDITIONING and its plot out."""

import pytest
import torch


WIDGETS = dict(steps=20, split="", blend="hard", progress="denoise", scheduler="from percent", sampler="euler")


class Clip:
    """A text encoder of any width; its embedding is the number that the text says."""

    def tokenize(self, text):
        return {"words": text}

    def encode_from_tokens_scheduled(self, tokens):
        return encoded(float(tokens["words"]))


def encoded(value: float, tokens: int = 3, width: int = 5) -> list:
    return [[torch.full((1, tokens, width), value), {"pooled_output": None}]]


def leaders(conditioning) -> list[float]:
    return [tensor[0, 0, 0].item() for tensor, _ in conditioning]


def names(conditioning) -> list[list[str]]:
    return [
        sorted(name for name in values if name.endswith(("_start", "_end", "_percent"))) for _, values in conditioning
    ]


@pytest.fixture
def scheduling(pack):
    from tbd_pack.nodes import scheduling

    return scheduling


@pytest.fixture
def schedule(run, scheduling):
    return lambda **given: run(scheduling.TBDProgressiveScheduler, **(WIDGETS | given)).args


def test_prompts_are_encoded_and_lead_in_the_order_of_their_sockets(schedule):
    conditioning, plot = schedule(prompts={"prompt_2": "30", "prompt_0": "10", "prompt_1": "20"}, clip=Clip())
    assert leaders(conditioning) == [10, 20, 30]
    assert names(conditioning) == [["end_percent"], ["end_percent", "start_percent"], ["start_percent"]]
    assert tuple(plot.shape) == (1, 280, 640, 3) and plot.min() < 0.2 and plot.max() == 1


def test_conditionings_of_any_width_and_length_are_taken_as_they_are(schedule):
    given = {"conditioning_0": encoded(1.0, 512, 4096), "conditioning_1": encoded(2.0, 7, 4096)}
    conditioning, _ = schedule(conditionings=given)
    assert [tensor is given[f"conditioning_{i}"][0][0] for i, (tensor, _) in enumerate(conditioning)] == [True, True]


def test_a_single_prompt_leads_all_the_time(schedule):
    conditioning, _ = schedule(prompts={"prompt_0": "4"}, clip=Clip())
    assert leaders(conditioning) == [4] and names(conditioning) == [[]]


def test_split_blend_and_progress_reach_the_table(schedule):
    prompts = {"prompt_0": "1", "prompt_1": "2"}
    conditioning, _ = schedule(prompts=prompts, clip=Clip(), split="0.5", blend="paper", progress="literal", steps=4)
    assert leaders(conditioning) == pytest.approx([1.5, 1.75, 2.0, 1.25])


def test_noise_levels_say_the_number_of_steps_and_go_before_the_scheduler(schedule, scheduling, monkeypatch):
    prompts, levels = {"prompt_0": "1", "prompt_1": "2"}, torch.linspace(1, 0, 11)
    monkeypatch.setattr(scheduling.comfy_bridge, "model_sigmas", lambda *_: pytest.fail("they were given"))
    conditioning, _ = schedule(prompts=prompts, clip=Clip(), sigmas=levels, scheduler="karras", blend="paper")
    assert len(conditioning) == 10 and names(conditioning)[3] == ["timestep_end", "timestep_start"]


def test_model_scheduler_and_sampler_give_the_noise_levels(schedule, scheduling, monkeypatch):
    asked = []
    monkeypatch.setattr(scheduling.comfy_bridge, "model_sigmas", lambda *a: asked.append(a) or [3.0, 2.0, 1.0, 0.0])
    widgets = dict(scheduler="karras", sampler="uni_pc")
    conditioning, _ = schedule(prompts={"prompt_0": "1", "prompt_1": "2"}, clip=Clip(), model="M", **widgets)
    assert asked == [("M", "karras", 20, "uni_pc")]
    assert 1.0 < conditioning[1][1]["timestep_start"] == conditioning[0][1]["timestep_end"] < 2.0


def test_a_model_without_a_scheduler_changes_nothing(schedule):
    conditioning, _ = schedule(prompts={"prompt_0": "1", "prompt_1": "2"}, clip=Clip(), model="M")
    assert names(conditioning) == [["end_percent"], ["start_percent"]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "0 prompts are linked; link at least 1"),
        ({"prompts": {"prompt_0": "1", "prompt_1": "2"}}, "2 prompts are linked, but no clip"),
        (
            {"prompts": {"prompt_0": "1"}, "conditionings": {"conditioning_0": encoded(1.0)}, "clip": Clip()},
            "1 prompts and 1 conditionings are linked; link only one of the two kinds",
        ),
        ({"prompts": {"prompt_0": "1"}, "clip": Clip(), "scheduler": "karras"}, "scheduler is karras, but no model"),
        ({"prompts": {"prompt_0": "1"}, "clip": Clip(), "split": "0.4"}, "split 0.4 has 1 boundaries; 1 stage needs 0"),
        ({"prompts": {"prompt_0": "1", "prompt_1": "2"}, "clip": Clip(), "split": "x"}, "split 'x' is not made of"),
        (
            {"prompts": {"prompt_0": "1", "prompt_1": "2"}, "clip": Clip(), "steps": 1},
            "2 stages do not fit into 1 steps",
        ),
    ],
)
def test_what_cannot_be_scheduled_is_refused_with_its_numbers(schedule, given, message):
    with pytest.raises(ValueError, match=message) as caught:
        schedule(**given)
    assert type(caught.value).__name__ == "InputError"


def test_a_new_node_has_sockets_for_two_prompts_and_two_conditionings(scheduling):
    """ComfyUI 0.8.0's page makes none where the least is 0, and a further one only once the last is linked."""
    growing = [one for one in scheduling.TBDProgressiveScheduler.GET_SCHEMA().inputs if hasattr(one, "template")]
    assert {one.id: (one.template.min, one.template.max) for one in growing} == {
        "prompts": (2, 8),
        "conditionings": (2, 8),
    }
