"""Where Hallo's audio branches speak."""

import numpy as np
import pytest
import torch

from tbd_core.errors import InputError
from tbd_core.masks import audio_masks, gaussian_256ths, level_sizes, locator_mask, rectangle


FACE, LIPS, SIZE = (150.0, 120.0, 200.0, 230.0), (210.0, 270.0, 80.0, 40.0), (512, 512)


@pytest.fixture(scope="module")
def masks():
    return audio_masks(FACE, LIPS, SIZE)


def test_levels_are_the_cells_of_the_unet_and_its_halves_rounded_up():
    assert level_sizes((512, 512)) == [(64, 64), (32, 32), (16, 16), (8, 8)]
    assert level_sizes((128, 128)) == [(16, 16), (8, 8), (4, 4), (2, 2)]
    assert level_sizes((96, 64)) == [(12, 8), (6, 4), (3, 2), (2, 1)]


@pytest.mark.parametrize("size", [(512, 512), (128, 128), (96, 64)])
def test_each_branch_has_a_mask_for_each_frame_and_level_in_0_to_1(size):
    masks = audio_masks((20, 10, 40, 40), (30, 30, 20, 10), size, 3)
    for branch in masks:
        assert [tuple(mask.shape) for mask in branch] == [(3, w * h) for w, h in level_sizes(size)]
        assert all(float(mask.min()) >= 0 and float(mask.max()) <= 1 for mask in branch)


def test_full_is_all_but_the_face_and_the_face_has_no_lips(masks):
    """At 64 cells, where nothing is resized, and but for the one level of 255 that is cut off."""
    seen = 1 - masks.full[0]  # the blurred face; the blurred lips reach a little beyond it
    assert float((masks.face[0] - (seen - masks.lip[0]).clamp(min=0)).abs().max()) <= 1.01 / 255
    lips = masks.lip[0][0].view(64, 64)
    row, column = divmod(int(lips.argmax()), 64)
    assert abs(row - 290 / 8) <= 2 and abs(column - 250 / 8) <= 2 and float(lips.max()) == 1
    face = masks.face[0][0].view(64, 64)
    assert float(face[row, column]) < 0.05 and float(face[18, column]) > 0.5 and float(face[2, 2]) < 0.05


def test_rows_lie_one_after_the_other():
    wide = audio_masks((300, 0, 60, 60), (320, 40, 20, 10), (512, 256))
    lips = wide.lip[1][0].view(16, 32)  # h, w
    row, column = divmod(int(lips.argmax()), 32)
    assert abs(row - 45 / 16) <= 1.5 and abs(column - 330 / 16) <= 1.5


@pytest.mark.parametrize(
    ("face", "lips", "full", "between", "speaking"),
    [
        (FACE, LIPS, [35801794, 9021955, 1994889, 380525], [10555472, 2418009, 637777, 90643],
         [3560027, 814913, 225424, 43228]),
        ((3, 120, 131, 230), (41, 271, 83, 37), [41102954, 10094320, 2341006, 438905],
         [5213068, 1242104, 316193, 37374], [3820264, 958172, 210989, 40100]),
    ],
)  # fmt: skip
def test_the_numbers_are_those_of_opencv(face, lips, full, between, speaking):
    """Sums of value x (place modulo 97) over each level, of the same boxes by OpenCV 5.0's resize, GaussianBlur,
    normalize and subtract, then Pillow's resize: the calls that Hallo makes."""
    masks = audio_masks(face, lips, SIZE)
    for branch, sums in zip(masks, (full, between, speaking), strict=True):
        bytes_ = [(mask[0] * 255).round().long() for mask in branch]
        assert [int((row * (torch.arange(len(row)) % 97)).sum()) for row in bytes_] == sums


@pytest.mark.parametrize("kernel", [31, 51])
def test_the_gaussian_of_256ths_keeps_the_brightness(kernel):
    weights = gaussian_256ths(kernel)
    assert len(weights) == kernel and sum(weights) == 256 and weights == weights[::-1]
    assert max(weights) - weights[kernel // 2] <= 1


def test_a_widened_box_is_shifted_inside_and_cut_when_it_is_larger_than_the_picture():
    inside = np.argwhere(rectangle((0, 10, 40, 20), (100, 80), 2.0))
    assert inside.min(0).tolist() == [0, 0] and inside.max(0).tolist() == [39, 79]
    assert (rectangle((0, 0, 100, 80), (100, 80), 1.2) == 255).all()


def test_a_face_that_fills_the_picture_leaves_nothing_to_the_other_branch():
    """OpenCV's normalize would turn the constant mask black."""
    masks = audio_masks((0, 0, 128, 128), (40, 80, 40, 20), (128, 128))
    assert float(masks.full[0].max()) == 0 and float(masks.face[0].max()) == 1


def test_the_locator_sees_the_widened_box_in_three_equal_channels():
    mask = locator_mask((20.0, 30.0, 40.0, 50.0), (128, 96))
    assert mask.shape == (1, 3, 96, 128) and torch.equal(mask[:, 0], mask[:, 2])
    assert mask[0, 0].sum() == 48 * 60 and set(mask.unique().tolist()) == {0.0, 1.0}
    assert mask[0, 0, 25:85, 16:64].min() == 1


@pytest.mark.parametrize("box", [(130, 0, 10, 10), (0, 0, 0, 10), (-20, 0, 10, 10)])
def test_a_box_outside_is_refused(box):
    with pytest.raises(InputError, match=rf"the box {box[0]},0,{box[2]},10 does not meet the picture of 128 x 96 px"):
        locator_mask(box, (128, 96))
