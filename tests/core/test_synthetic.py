import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tbd_core.synthetic.chart import CHART_SEED, contact_sheet, emotion_sheet, face_chart, faces_sheet, people_sheet
from tbd_core.synthetic.clip import mouth_from_sound, talking_clip
from tbd_core.synthetic.portrait import (
    AU_NUMBERS,
    IDENTITY,
    NUM_IDENTITY,
    SIDED_UNITS,
    Face,
    neutral_face,
    random_gaze,
    random_identity,
    random_pose,
    render,
)
from tbd_core.synthetic.shapes import Canvas
from tbd_core.synthetic.speech import babble


SAMPLE = Path(__file__).parents[2] / "tbd_core" / "assets" / "sample"
SIZE = 96
LEFT, RIGHT = 0, 1


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def acting(rows: list[tuple[int, float, float]], seed: int = CHART_SEED) -> Face:
    """One person; in each row one unit acts at (left, right)."""
    rest = neutral_face(random_identity(seeded(seed), 1).expand(len(rows), -1))
    for i, (number, left, right) in enumerate(rows):
        rest.units[i, AU_NUMBERS.index(number)] = torch.tensor([left, right])
    return rest


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small maps are drawn faster by one thread than by many that wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def at_every_level(seed: int) -> torch.Tensor:
    """Pictures of every unit at levels 0, A..E: [units, 6, 3, H, W]."""
    rows = [(number, k / 5, k / 5) for number in AU_NUMBERS for k in range(6)]
    return render(acting(rows, seed), SIZE).unflatten(0, (len(AU_NUMBERS), 6))


@pytest.fixture(scope="module")
def levels() -> torch.Tensor:
    return at_every_level(CHART_SEED)


def test_every_action_unit_visibly_changes_the_face(levels):
    changed = (levels[:, 5] - levels[:, 0]).abs().amax(1) > 0.1
    assert len(SIDED_UNITS) >= 18
    for number, pixels in zip(AU_NUMBERS, changed.flatten(1).sum(1).tolist(), strict=True):
        assert pixels >= 20, f"AU{number} changes only {pixels} of {SIZE * SIZE} pixels"


def test_change_grows_with_every_level(levels):
    change = (levels - levels[:, :1]).square().flatten(2).sum(2).sqrt()
    assert (change.diff(dim=1) > 0).all(), change


def test_no_two_units_look_alike(levels):
    shapes = (levels[:, 5] - levels[:, 0]).flatten(1)
    alike = torch.nn.functional.cosine_similarity(shapes[:, None], shapes[None], dim=-1)
    alike.fill_diagonal_(0)
    assert alike.max() < 0.9


# Regions as boxes in picture units: left, right, top, bottom (x to the right, y down, the picture is 2 wide).
REGIONS = {
    "brows": ((-0.62, 0.62, -0.75, -0.11),),
    "eyes": ((-0.62, 0.62, -0.33, 0.13),),
    "nose": ((-0.22, 0.22, -0.22, 0.34),),
    "cheeks": ((-0.64, -0.02, 0.0, 0.60), (0.02, 0.64, 0.0, 0.60)),
    "mouth": ((-0.44, 0.44, 0.27, 0.66),),
    "chin": ((-0.38, 0.38, 0.52, 0.86),),
    "jaw": ((-0.70, 0.70, 0.20, 1.0),),
    "neck": ((-0.30, 0.30, 0.74, 1.0),),
}
MAY_CHANGE = {
    1: "brows", 2: "brows", 4: "brows eyes", 5: "eyes", 6: "eyes cheeks", 7: "eyes",
    9: "brows eyes nose cheeks mouth", 10: "nose cheeks mouth", 12: "eyes cheeks mouth", 14: "cheeks mouth",
    15: "mouth chin", 16: "mouth chin", 17: "mouth chin", 18: "mouth chin", 20: "cheeks mouth neck", 22: "mouth chin",
    23: "mouth chin", 24: "mouth chin", 25: "mouth chin", 26: "mouth chin jaw", 27: "mouth chin jaw", 43: "eyes",
}  # fmt: skip


def region(names: str) -> torch.Tensor:
    """Which pixels of a picture of `SIZE` lie in any of the regions `names`: bool [SIZE, SIZE]."""
    canvas = Canvas.blank(1, SIZE)
    boxes = [box for name in names.split() for box in REGIONS[name]]
    x, y = canvas.x[0], canvas.y[0]
    return torch.stack([(x >= a) & (x <= b) & (y >= c) & (y <= d) for a, b, c, d in boxes]).any(0)


@pytest.mark.parametrize("seed", [CHART_SEED, 11, 12, 13])
def test_a_unit_changes_its_own_regions_alone_and_again_with_every_level(levels, seed):
    pictures = levels if seed == CHART_SEED else at_every_level(seed)
    for number, row in zip(AU_NUMBERS, pictures, strict=True):
        there = region(MAY_CHANGE[number])
        beyond = 1e-3 if seed == CHART_SEED else 4 / 255  # the boxes fit the chart's person; 4 / 255 is hardly seen
        assert (row - row[:1])[..., ~there].abs().max() < beyond, f"AU{number}"
        assert (row.diff(dim=0)[..., there].abs().flatten(1).amax(1) > 5 / 255).all(), f"AU{number}"


def measured(face: Face) -> dict[str, torch.Tensor]:
    """Of each row of `face`: lengths of the mouth's curves (y points down), and in its picture where the brows are and
    how much of the eyes shows."""
    from tbd_core.synthetic import mouth as drawing
    from tbd_core.synthetic.face import controls
    from tbd_core.synthetic.look import look

    canvas = Canvas.blank(len(face), SIZE)
    left, right = ({name: pair[k] for name, pair in controls(face).items()} for k in (0, 1))
    shape = drawing.mouth_shape(canvas, look(face.identity), left, right)
    middle = (slice(None), slice(None), SIZE // 2)  # the column between both halves
    corner_x, corner_y = (shape.corners[0][k].flatten() for k in (0, 1))
    pictures = render(face, SIZE)
    dark = (0.35 - pictures.amax(1)).clamp(min=0) * region("brows") * (Canvas.blank(1, SIZE).y[0] < -0.2)
    heights = (dark * Canvas.blank(1, SIZE).y[0]).sum((1, 2)) / dark.sum((1, 2))
    bright = (pictures.amin(1) > 0.8) & region("eyes")
    return {
        "corners up": -corner_y,
        "mouth wide": corner_x,
        "lips part": torch.where(shape.u.abs() < 0.9, shape.gap, 0.0).amax((1, 2)),
        "upper lip up": -shape.upper_lip[middle].amin(1),
        "lower lip down": shape.lower_lip[middle].amax(1),
        "lips thick": (shape.lower_lip - shape.upper_lip)[middle].amax(1),
        "brows up": -heights,
        "eyes open": bright.flatten(1).sum(1).float(),
    }


# What the manual says each unit does (FACS); 9 wrinkles the nose and 14 dimples, which are no lengths.
DIRECTIONS = {
    1: {"brows up": 1}, 2: {"brows up": 1}, 4: {"brows up": -1}, 5: {"eyes open": 1}, 6: {"eyes open": -1},
    7: {"eyes open": -1}, 10: {"upper lip up": 1}, 12: {"corners up": 1, "mouth wide": 1}, 15: {"corners up": -1},
    16: {"lower lip down": 1}, 17: {"lower lip down": -1}, 18: {"mouth wide": -1},
    20: {"mouth wide": 1}, 22: {"mouth wide": -1, "lips part": 1}, 23: {"lips thick": -1, "mouth wide": -1},
    24: {"lips thick": -1}, 25: {"lips part": 1}, 26: {"lips part": 1, "lower lip down": 1},
    27: {"lips part": 1, "lower lip down": 1}, 43: {"eyes open": -1},
}  # fmt: skip


@pytest.mark.parametrize("seed", [CHART_SEED, 11, 12])
def test_a_unit_goes_the_way_facs_says_and_no_level_goes_back(seed):
    rows = [(number, k / 5, k / 5) for number in DIRECTIONS for k in range(6)]
    face = acting(rows, seed)
    face = replace(face, identity=face.identity.clone())
    for name, value in (("skin_tone", 0.4), ("hair_tone", 0.0), ("hair_style", 0.0), ("glasses", 0.0)):
        face.identity[:, IDENTITY.index(name)] = value  # dark brows alone on a brown skin, and nothing before them
    found = {name: values.unflatten(0, (-1, 6)) for name, values in measured(face).items()}
    for row, (number, ways) in enumerate(DIRECTIONS.items()):
        for name, sign in ways.items():
            steps = sign * found[name][row].diff()
            assert (steps >= 0).all() and steps.sum() > 0, f"AU{number}, {name}: {found[name][row].tolist()}"


def test_the_mouth_of_a_still_silent_face_is_shut_and_units_show_teeth_and_tongue():
    from tbd_core.synthetic import mouth as drawing
    from tbd_core.synthetic.face import controls
    from tbd_core.synthetic.look import look

    face = acting([(26, 0, 0), (26, 1, 1), (27, 1, 1), (25, 1, 1)])
    sides = [{name: pair[k] for name, pair in controls(face).items()} for k in (0, 1)]
    shape = drawing.mouth_shape(Canvas.blank(4, SIZE), look(face.identity), *sides)
    inner = shape.u.abs() < 0.9
    gap = torch.where(inner, shape.gap, 0.0).amax((1, 2))
    assert gap[0] == 0 and gap[3] > 0.05 and gap[1] > 1.5 * gap[3] and gap[2] > gap[1]
    pictures = render(face, SIZE)
    for colour, name in ((drawing.TEETH, "teeth"), (drawing.TONGUE, "tongue")):
        near = (pictures - torch.tensor(colour)[:, None, None]).abs().amax(1) < 0.16
        new = (pictures - pictures[:1]).abs().amax(1) > 0.1  # skin may have the colour of a tongue
        seen = (near & new & region("mouth chin")).flatten(1).sum(1)
        assert (seen[1:3] > 8).all(), f"{name}: {seen.tolist()} pixels"


def test_the_gaze_moves_the_iris_and_nothing_outside_the_eyes():
    face = acting([(1, 0, 0)] * 4)
    gaze = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    pictures = render(Face(face.identity, face.units, face.mouth, face.blink, face.pose, gaze), SIZE)
    eye = region("eyes") & (Canvas.blank(1, SIZE).x[0] > 0)
    dark = (pictures.amax(1) < 0.25) * eye
    canvas = Canvas.blank(1, SIZE)
    middle = (dark * canvas.x).flatten(1).sum(1) / dark.flatten(1).sum(1)
    assert middle[2] < middle[0] < middle[1]
    for picture in pictures[1:]:
        change = (picture - pictures[0]).abs()
        assert change.max() > 0.2 and change[:, ~region("eyes")].max() < 1e-3
    shut = acting([(43, 1, 1)] * 2)
    closed = render(Face(shut.identity, shut.units, shut.mouth, shut.blink, shut.pose, gaze[:2]), SIZE)
    assert (closed[0] - closed[1]).abs().max() < 1e-3


def test_poses_and_gazes_are_small():
    pose, gaze = random_pose(seeded(1), 500), random_gaze(seeded(1), 500)
    assert pose.shape == (500, 3) and (pose.abs() < 0.5).float().mean() > 0.9 and pose.abs().max() <= 1
    assert gaze.shape == (500, 2) and gaze.abs().max() <= 0.5 and gaze.eq(0).all(1).float().mean() > 0.5


def test_the_noise_of_a_picture_is_faint():
    from tbd_core.synthetic import scene
    from tbd_core.synthetic.look import look

    people = random_identity(seeded(2), 3)
    people[:, IDENTITY.index("light_warmth")] = 0.5
    page = Canvas.blank(3, SIZE)
    page.image.fill_(0.5)
    scene.light_and_noise(page, look(people))
    sigma = page.image.std((1, 2, 3))
    assert (sigma > 0.002).all() and (sigma <= 0.008).all()


@pytest.mark.parametrize("number", SIDED_UNITS)
def test_the_left_unit_moves_the_subjects_left_alone(number):
    rest, left, right = render(acting([(number, 0, 0), (number, 1, 0), (number, 0, 1)]), SIZE)
    half = SIZE // 2  # the subject's left is the viewer's right
    assert (left - rest)[..., half + 1 :].abs().max() > 0.1
    assert (left - rest)[..., : half - 1].abs().max() < 1e-5
    assert (right - rest)[..., : half - 1].abs().max() > 0.1
    assert (right - rest)[..., half + 1 :].abs().max() < 1e-5


def test_speech_opens_rounds_and_spreads_the_mouth_on_top_of_the_units():
    face = acting([(12, 1, 1)] * 4)
    face.mouth[1:] = torch.eye(3)
    pictures = render(face, SIZE)
    for spoken in pictures[1:]:
        assert ((spoken - pictures[0]).abs().amax(0) > 0.1).sum() > 20
    above = (pictures[1] - pictures[0]).abs()[:, : SIZE // 2]  # eyes and brows stay
    assert above.max() < 0.01


def test_a_blink_shuts_the_eyes_as_unit_43_does():
    face = acting([(43, 1, 1), (43, 0, 0)])
    face.blink[1] = 1
    shut, blink = render(face, SIZE)
    assert torch.equal(shut, blink)


def test_a_face_looks_the_same_at_any_size():
    face = neutral_face(random_identity(seeded(3), 4))
    small, large = render(face, 128), render(face, 256)
    halved = torch.nn.functional.avg_pool2d(large, 2)
    assert small.shape == (4, 3, 128, 128)
    assert (small - halved).abs().mean() < 0.006


def test_edges_are_antialiased():
    face = neutral_face(random_identity(seeded(CHART_SEED), 1))
    small, large = render(face, 64), render(face, 512)
    truth = torch.nn.functional.avg_pool2d(large, 8)
    jagged = large[..., 4::8, 4::8]
    assert (small - truth).abs().mean() < 0.5 * (jagged - truth).abs().mean()


def test_a_face_is_drawn_alike_alone_and_in_any_batch():
    face = neutral_face(random_identity(seeded(5), 40))
    together = render(face, 64)
    alone = render(face[slice(37, 38)], 64)
    assert (together[37:38] - alone).abs().max() < 1e-5


def test_pose_moves_the_head_and_leaves_the_far_background():
    face = neutral_face(random_identity(seeded(CHART_SEED), 1).expand(2, -1))
    face.pose[1] = torch.tensor([1.0, 0.5, -1.0])
    rest, moved = render(face, SIZE)
    assert (rest - moved).abs().mean() > 0.01
    assert torch.equal(rest[:, :4, :4], moved[:, :4, :4])


def test_identities_are_reproducible_different_and_within_range():
    people = random_identity(seeded(1), 50)
    assert people.shape == (50, NUM_IDENTITY)
    assert torch.equal(people, random_identity(seeded(1), 50))
    assert people.min() >= 0 and people.max() <= 1
    pictures = render(neutral_face(people), 32)
    assert pictures.min() >= 0 and pictures.max() <= 1 and pictures.isfinite().all()
    distance = torch.cdist(pictures.flatten(1), pictures.flatten(1)) + 1e9 * torch.eye(50)
    assert distance.min() > 2


def test_extreme_identities_draw_finite_pictures():
    ends = torch.stack([torch.zeros(NUM_IDENTITY), torch.ones(NUM_IDENTITY)])
    everything = Face(ends, torch.ones(2, len(AU_NUMBERS), 2), torch.ones(2, 3), torch.ones(2))
    assert render(everything, SIZE).isfinite().all()


def test_silence_shuts_the_mouth():
    assert mouth_from_sound(torch.zeros(16000), 25).eq(0).all()
    assert mouth_from_sound(1e-3 * torch.randn(16000, generator=seeded(0)), 25).eq(0).all()  # -60 dBFS


def test_the_gain_of_a_recording_does_not_matter():
    voice = babble(seeded(2), 4.0)
    voice = 0.9 * voice / voice.abs().max()
    loud, soft = mouth_from_sound(voice, 100), mouth_from_sound(0.5 * voice, 100)
    assert loud[:, 0].max() > 0.8
    assert (loud - soft).abs().max() < 0.02


@pytest.mark.parametrize("frames", [1, 7, 50, 60])
def test_there_is_one_mouth_for_every_frame(frames):
    mouth = mouth_from_sound(babble(seeded(1), 2.0), frames)
    assert mouth.shape == (frames, 3)
    assert mouth.min() >= 0 and mouth.max() <= 1


def test_no_frame_at_all_is_an_empty_curve():
    assert mouth_from_sound(torch.zeros(0), 0).shape == (0, 3)


def test_the_mouth_moves_with_the_sound_without_lag():
    beep = torch.zeros(32000)
    seconds = torch.arange(32000) / 16000
    beep[640 * 20 : 640 * 25] = 0.3 * torch.sin(2 * math.pi * 700 * seconds)[640 * 20 : 640 * 25]
    opening = mouth_from_sound(beep, 50)[:, 0]
    assert opening[21:24].min() > 0.5
    assert opening[:18].max() == 0 and opening[27:].max() == 0
    assert (opening * torch.arange(50)).sum() / opening.sum() == pytest.approx(22, abs=0.1)


def vowel(first: float, second: float, ratio: float) -> torch.Tensor:
    """Two formants as two tones, the second `ratio` times as loud."""
    seconds = torch.arange(16000) / 16000
    tones = (torch.sin(2 * math.pi * hertz * seconds) for hertz in (first, second))
    return 0.2 * next(tones) + 0.2 * ratio * next(tones)


def test_a_dark_vowel_rounds_and_a_bright_one_spreads():
    formants = ((300, 850, 0.15), (280, 2300, 0.1), (750, 1200, 0.6))
    u, i, a = (mouth_from_sound(vowel(*f), 25)[5:20].mean(0) for f in formants)
    assert u[1] > 0.8 and u[2] < 0.1
    assert i[2] > 0.8 and i[1] < 0.1
    assert a[0] > 1.5 * max(u[0], i[0])


def test_babble_is_reproducible_speech_with_pauses_and_all_mouths():
    voice = babble(seeded(4), 12.0)
    assert voice.shape == (12 * 16000,) and voice.abs().max() <= 1 and voice.isfinite().all()
    assert torch.equal(voice, babble(seeded(4), 12.0))
    curves = torch.cat([mouth_from_sound(babble(seeded(s), 8.0), 200) for s in range(4)])
    assert (curves[:, 0] < 0.05).float().mean() > 0.05
    assert (curves.amax(0) > 0.8).all() and (curves.std(0) > 0.1).all()


def test_a_talking_clip_keeps_the_person_and_blinks_now_and_then():
    identity, units = random_identity(seeded(1), 1)[0], torch.rand(len(AU_NUMBERS), 2)
    mouth = torch.rand(1000, 3)
    clip = talking_clip(identity, units, mouth, seeded(1))
    assert len(clip) == 1000 and torch.equal(clip.mouth, mouth)
    assert torch.equal(clip.units[999], units) and torch.equal(clip.identity[500], identity)
    begins = ((clip.blink[1:] > 0) & (clip.blink[:-1] == 0)).sum()
    assert 8 <= begins <= 26  # in 40 s
    assert clip.pose.eq(0).all()
    assert clip.gaze.eq(0).all()
    held = talking_clip(identity, units, mouth, seeded(1), pose=torch.ones(3) / 3, gaze=torch.ones(2) / 4)
    assert held.pose.eq(torch.ones(3) / 3).all() and held.gaze.eq(0.25).all() and len(held.gaze) == 1000
    again = talking_clip(identity, units, mouth, seeded(1), sway_amount=0.3)
    assert torch.equal(again.blink, clip.blink) and 0 < again.pose.abs().max() <= 0.3


def test_contact_sheet_lays_pictures_row_by_row():
    pictures = torch.tensor([0.0, 0.2, 0.4])[:, None, None, None].expand(3, 3, 4, 6)
    sheet = contact_sheet(pictures, 2)
    assert sheet.size == (12, 8)
    assert [sheet.getpixel(at)[0] for at in ((0, 0), (6, 0), (0, 4), (6, 4))] == [0, 51, 102, 255]


def test_face_chart_has_a_row_for_each_unit():
    chart = face_chart(16, blocks=2)
    rows = -(-len(AU_NUMBERS) // 2)
    assert chart.size == (2 * (6 * 16 + 8), rows * 16 + 12)


def test_sheets_hold_every_emotion_and_as_many_people_as_asked():
    assert emotion_sheet(16).size == (8 * 16, 3 * 16 + 12)
    assert people_sheet(16, count=5, columns=3).size == (48, 32)
    assert faces_sheet(8).width == face_chart(8).width


def test_the_sample_portrait_is_what_its_readme_says():
    from PIL import Image

    drawn = contact_sheet(render(neutral_face(random_identity(seeded(CHART_SEED), 1)), 512), 1)
    shipped = Image.open(SAMPLE / "portrait.png")
    assert shipped.size == (512, 512) and shipped.mode == "RGB"
    difference = torch.tensor(list(drawn.tobytes())).sub(torch.tensor(list(shipped.tobytes()))).abs()
    assert difference.max() <= 2


def test_the_sample_speech_is_three_seconds_that_move_the_mouth():
    import soundfile

    waveform, rate = soundfile.read(SAMPLE / "speech.wav", dtype="float32")
    assert rate == 16000 and waveform.shape == (48000,)
    assert mouth_from_sound(torch.from_numpy(waveform), 75)[:, 0].max() > 0.8
