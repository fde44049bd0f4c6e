"""The weight table as CONDITIONING: ranges, blends of embeddings of any length, and cutting again for another run."""

import pytest
import torch

from tbd_core.errors import InputError
from tbd_core.progressive import make_schedule, slices
from tbd_core.slicing import ONCE, RANGE, SCHEDULE, blend_entries, exact_slices, schedule_conditioning


def stage(value: float, tokens: int = 3, width: int = 4, **values) -> list:
    return [[torch.full((1, tokens, width), value), {"pooled_output": torch.full((1, 2), value), **values}]]


def sigmas(steps: int) -> torch.Tensor:
    return torch.linspace(1.0, 0.0, steps + 1)


def ranges(conditioning: list) -> list[dict]:
    return [{name: values[name] for name in RANGE if name in values} for _, values in conditioning]


def test_hard_slices_are_the_stages_themselves_with_shared_boundaries_and_open_ends():
    coarse, fine = stage(1.0, tokens=3), stage(2.0, tokens=7)
    made, schedule = schedule_conditioning([coarse, fine], 20)
    assert (schedule.steps, schedule.stages) == (20, 2)
    assert [entry[0] for entry in made] == [coarse[0][0], fine[0][0]]
    first, second = ranges(made)
    assert list(first) == ["end_percent"] and list(second) == ["start_percent"]
    assert first["end_percent"] == second["start_percent"] and 0.39 < first["end_percent"] < 0.4
    assert coarse[0][1].keys() == {"pooled_output"}  # what came in is not touched


def test_with_noise_levels_the_range_is_in_sigmas_and_their_number_is_the_steps():
    made, schedule = schedule_conditioning([stage(1.0), stage(2.0)], 99, sigmas=sigmas(10))
    assert schedule.steps == 10
    first, second = ranges(made)
    assert list(first) == ["timestep_end"] and list(second) == ["timestep_start"]
    assert 0.6 < first["timestep_end"] == second["timestep_start"] < 0.7


@pytest.mark.parametrize("blend", ["paper", "smooth"])
def test_blends_are_the_table_times_the_embeddings(blend):
    made, schedule = schedule_conditioning([stage(1.0), stage(10.0), stage(100.0)], 12, None, blend)
    parts = slices(schedule)
    assert len(made) == len(parts)
    for (tensor, values), part in zip(made, parts, strict=True):
        expected = sum(w * 10.0**j for j, w in enumerate(part.weights))
        assert tensor.shape == (1, 3, 4) and tensor.flatten().tolist() == pytest.approx([expected] * 12)
        assert values["pooled_output"].flatten().tolist() == pytest.approx([expected] * 2)
        assert values[ONCE] == (part.first == part.last)


def test_shorter_embeddings_are_filled_with_zeros_at_their_end():
    tensor, _ = blend_entries((0.75, 0.25), [stage(4.0, tokens=2)[0], stage(8.0, tokens=5)[0]])
    assert tensor[0, :, 0].tolist() == [5.0, 5.0, 2.0, 2.0, 2.0]


def test_masks_cover_the_words_of_all_stages():
    short, long = stage(1.0, tokens=2)[0], stage(1.0, tokens=4, attention_mask=torch.tensor([[1, 1, 1, 0]]))[0]
    assert blend_entries((0.5, 0.5), [short, long])[1]["attention_mask"].tolist() == [[1, 1, 1, 0]]
    assert blend_entries((0.9, 0.1), [long, stage(1.0, tokens=6)[0]])[1]["attention_mask"].tolist() == [[1] * 6]
    both = [stage(1.0, tokens=2, attention_mask=torch.tensor([[m, True]]))[0] for m in (False, True)]
    assert blend_entries((0.5, 0.5), both)[1]["attention_mask"].tolist() == [[True, True]]
    assert "attention_mask" not in blend_entries((0.5, 0.5), [short, short])[1]


def test_what_encoders_add_is_mixed_and_everything_else_is_the_leaders():
    def entry(v: float, tokens: int) -> list:
        extra = torch.full((1, 32, tokens, 4), v)
        return stage(v, conditioning_llama3=extra, guidance=v, area=(v,), ids=torch.tensor([v]))[0]

    _, values = blend_entries((0.25, 0.75), [entry(0.0, 2), entry(4.0, 5)])
    assert values["conditioning_llama3"].shape == (1, 32, 5, 4) and values["conditioning_llama3"].max() == 3.0
    assert (values["guidance"], values["area"], values["ids"].item()) == (4.0, (4.0,), 4.0)


def test_a_value_that_cannot_be_mixed_is_the_leaders():
    a, b = stage(1.0)[0], stage(2.0)[0]
    b[1]["pooled_output"] = torch.ones(1, 9)
    assert blend_entries((0.6, 0.4), [a, b])[1]["pooled_output"] is a[1]["pooled_output"]
    a[1]["pooled_output"] = None
    assert blend_entries((0.6, 0.4), [a, b])[1]["pooled_output"] is None


def test_half_precision_is_mixed_in_full_and_returned_as_it_came():
    entries = [[torch.full((1, 1, 1), v, dtype=torch.bfloat16), {}] for v in (1.0, 3.0)]
    tensor, _ = blend_entries((0.5, 0.5), entries)
    assert tensor.dtype == torch.bfloat16 and tensor.item() == 2.0


def test_hard_keeps_all_entries_of_a_stage_and_blends_refuse_them():
    two = stage(2.0) + stage(3.0, mask=torch.ones(1, 8, 8))
    made, _ = schedule_conditioning([stage(1.0), two], 10)
    assert [tensor[0, 0, 0].item() for tensor, _ in made] == [1.0, 2.0, 3.0]
    assert ranges(made)[1] == ranges(made)[2] and "mask" in made[2][1]
    with pytest.raises(InputError, match="stage 2 has 2 entries"):
        schedule_conditioning([stage(1.0), two], 10, None, "paper")


@pytest.mark.parametrize("values", [{"start_percent": 0.2}, {"timestep_end": 0.5}, {"clip_end_percent": 0.5}])
def test_a_stage_with_a_range_of_its_own_is_refused(values):
    name, at = next(iter(values.items()))
    with pytest.raises(InputError, match=rf"stage 2 is already limited .*{name} is {at:g}"):
        schedule_conditioning([stage(1.0), stage(2.0, **values)], 10)


def test_a_range_over_the_whole_run_is_none():
    whole = stage(2.0, start_percent=0.0, end_percent=1.0, clip_start_percent=0.0, clip_end_percent=1.0)
    made, _ = schedule_conditioning([stage(1.0), whole], 10, sigmas=sigmas(10))
    assert list(ranges(made)[1]) == ["timestep_start"]


@pytest.mark.parametrize(
    ("stages", "arguments", "message"),
    [
        ([[], stage(1.0)], {}, "stage 1 has 0 entries"),
        ([stage(1.0, width=4), stage(1.0, width=8)], {"blend": "paper"}, "1 x 3 x 4 and 1 x 3 x 8 .*same CLIP"),
        ([stage(1.0)] * 3, {"steps": 2}, "3 stages do not fit into 2 steps"),
        ([stage(1.0)] * 2, {"sigmas": [1.0]}, "sigmas holds 1 values"),
        ([stage(1.0)] * 2, {"sigmas": [1.0, 1.0, 0.0]}, "step 1 has 1 and the next level is 1"),
    ],
)
def test_unusable_stages_are_refused_with_their_numbers(stages, arguments, message):
    with pytest.raises(InputError, match=message):
        schedule_conditioning(stages, **({"steps": 10} | arguments))


@pytest.mark.parametrize("blend", ["hard", "paper", "smooth"])
@pytest.mark.parametrize("known", [None, sigmas(9)])
def test_cutting_again_is_the_table_of_the_new_run(blend, known):
    stages = [stage(1.0), stage(2.0), stage(3.0)]
    made, _ = schedule_conditioning(stages, 40, (0.3, 0.6), blend, "literal", known)
    again = exact_slices(made, sigmas(15))
    direct, _ = schedule_conditioning(stages, 15, (0.3, 0.6), blend, "literal", sigmas(15))
    assert len(again) == len(direct) and ranges(again) == ranges(direct)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(again, direct, strict=True))
    plan = again[0][1][SCHEDULE]
    assert plan.schedule.weights == make_schedule(15, 3, (0.3, 0.6), blend, "literal").weights


def test_cutting_again_keeps_what_later_nodes_gave_to_all_slices():
    made, _ = schedule_conditioning([stage(1.0), stage(2.0)], 20, None, "paper")
    mask, pooled = torch.ones(1, 8, 8), torch.zeros(1, 2)
    for entry in made:
        entry[1] |= {"mask": mask, "pooled_output": pooled, "reference_latents": [mask], "strength": 0.5}
    again = exact_slices(made, sigmas(10))
    assert len(again) == 10 != len(made)
    assert all(values["mask"] is mask and values["pooled_output"] is pooled for _, values in again)
    assert all(values["reference_latents"] == [mask] and values["strength"] == 0.5 for _, values in again)


@pytest.mark.parametrize("change", ["range", "embedding", "unlike", "one fewer"])
def test_slices_that_later_nodes_changed_stay_as_they_are(change):
    made, _ = schedule_conditioning([stage(1.0), stage(2.0)], 20)
    if change == "range":
        for entry in made:
            entry[1] |= {"start_percent": 0.1, "end_percent": 0.9}
    elif change == "embedding":
        made[0][0] = made[0][0] * 2
    elif change == "unlike":
        made[0][1]["strength"] = 0.5
    else:
        made = made[1:]
    again = exact_slices(made, sigmas(10))
    assert [entry[0] for entry in again] == [entry[0] for entry in made] and ranges(again) == ranges(made)


def test_several_schedules_and_other_entries_side_by_side_are_each_cut_for_themselves():
    one, _ = schedule_conditioning([stage(1.0), stage(2.0)], 20)
    two, _ = schedule_conditioning([stage(3.0), stage(4.0)], 20, (0.5,))
    plain = stage(5.0)
    again = exact_slices([*one, *plain, *two], sigmas(10))
    assert [tensor[0, 0, 0].item() for tensor, _ in again] == [1.0, 2.0, 5.0, 3.0, 4.0]
    assert [list(r) for r in ranges(again)] == [
        ["timestep_end"],
        ["timestep_start"],
        [],
        ["timestep_end"],
        ["timestep_start"],
    ]
    assert exact_slices(plain, sigmas(10)) == plain and exact_slices([], sigmas(10)) == []
