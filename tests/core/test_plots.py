"""The plot of a schedule says its numbers in pixels; the chart of a plan shows the planned face."""

import pytest

from tbd_core.cot_fa.think import think
from tbd_core.facs.action_units import make_unit
from tbd_core.plots import COLOURS, SIZE, plot_area, schedule_plot
from tbd_core.progressive import BLENDS, make_schedule


RGB = [tuple(bytes.fromhex(colour[1:])) for colour in COLOURS]


def column(picture, x: int) -> list[tuple[int, int, int]]:
    _, top, _, bottom = plot_area(picture.size)
    return [picture.getpixel((x, y)) for y in range(top, bottom)]


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize(("steps", "stages"), [(1, 1), (12, 2), (20, 3), (500, 4)])
def test_each_bar_is_shared_as_the_weights_say(blend, steps, stages):
    schedule = make_schedule(steps, stages, None, blend)
    picture = schedule_plot(schedule)
    assert picture.size == SIZE and picture.mode == "RGB"
    left, top, right, bottom = plot_area(SIZE)
    for step in (0, steps // 2, steps - 1):
        pixels = column(picture, left + int((step + 0.5) * (right - left) / steps))
        for stage, weight in enumerate(schedule.weights[step]):
            assert pixels.count(RGB[stage]) == pytest.approx(weight * (bottom - top), abs=1)
        assert len([p for p in pixels if p in RGB]) == bottom - top
        leader = max(range(stages), key=lambda j: (schedule.weights[step][j], -j))
        assert pixels[-1] == RGB[min(j for j, w in enumerate(schedule.weights[step]) if w * (bottom - top) >= 0.5)]
        assert RGB[leader] in pixels


def test_the_first_prompt_leads_at_the_left():
    picture = schedule_plot(make_schedule(20))
    left, _, right, _ = plot_area(SIZE)
    assert set(column(picture, left + 2)) == {RGB[0]} and set(column(picture, right - 2)) == {RGB[1]}


@pytest.mark.parametrize("size", [(320, 160), (1000, 500)])
def test_plots_of_any_size_keep_their_bars_inside(size):
    picture = schedule_plot(make_schedule(1000, 8, None, "smooth"), size)
    left, top, right, bottom = plot_area(size)
    assert picture.size == size and 0 < left < right <= size[0] and 0 < top < bottom < size[1]
    assert all(p in RGB for p in column(picture, (left + right) // 2))


def faces(chart):
    """The two faces of a chart."""
    size = chart.height
    return chart.crop((0, 0, size, int(0.85 * size))), chart.crop((size, 0, 2 * size, int(0.85 * size)))


def test_the_chart_shows_the_face_at_rest_beside_the_planned_one():
    from tbd_core.synthetic.chart import plan_chart

    happy = plan_chart(think("happy", "Intense").action_units, 64)
    neutral = plan_chart((), 64)
    assert happy.size == neutral.size == (256, 64)
    rest, planned = faces(happy)
    assert rest.tobytes() != planned.tobytes()
    assert rest.tobytes() == faces(neutral)[0].tobytes() == faces(neutral)[1].tobytes()


def filled(chart) -> int:
    """Pixels of the right half that are neither nearly white nor nearly grey: the bars."""
    right = chart.crop((chart.width // 2, 0, chart.width, chart.height))
    data = right.tobytes()
    pixels = [data[i : i + 3] for i in range(0, len(data), 3)]
    return sum(max(p) - min(p) > 24 for p in pixels)


def test_bars_grow_with_every_level_and_stand_for_units_that_are_not_drawn_too():
    from tbd_core.synthetic.chart import plan_chart

    grown = [filled(plan_chart([make_unit(12, level)], 96)) for level in "ABCDE"]
    assert filled(plan_chart((), 96)) == 0 < grown[0]
    assert all(a < b for a, b in zip(grown, grown[1:], strict=False)), grown
    hidden = plan_chart([make_unit(38, "C")], 96)
    assert filled(hidden) > 0 and faces(hidden)[0].tobytes() == faces(hidden)[1].tobytes()


def test_twenty_units_fit_into_one_chart():
    from tbd_core.synthetic.chart import plan_chart

    units = [make_unit(n, "B") for n in (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 20, 23, 25, 38, 43)]
    chart = plan_chart(units, 128)
    bottom = chart.crop((3 * chart.width // 4, int(0.9 * chart.height), chart.width, chart.height))
    assert len(set(bottom.getdata() if not hasattr(bottom, "get_flattened_data") else bottom.get_flattened_data())) > 2
