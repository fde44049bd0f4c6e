"""A face cut out of a host's picture, and frames pasted back where it was: tensors in, tensors out."""

import re

import numpy as np
import pytest
import torch

from tbd_core import faces
from tbd_core.cutouts import FACES, Cutout, ask, cut_out, paste_back
from tbd_core.detectors import Face
from tbd_core.errors import InputError
from tbd_core.host import face_box


def smooth(width: int = 300, height: int = 200, channels: int = 3) -> torch.Tensor:
    """An IMAGE that resizing hardly changes; its values are those of 8 bits."""
    y, x = np.mgrid[:height, :width]
    values = np.stack([128 + 90 * np.sin(x / 37), 128 + 90 * np.cos(y / 29), 128 + 60 * np.sin((x + y) / 53)], -1)
    pixels = torch.from_numpy(values.astype(np.uint8)).float() / 255
    if channels == 4:
        pixels = torch.cat([pixels, torch.ones_like(pixels[..., :1])], -1)
    return pixels[None, ..., :channels]


def box(text: str = "130,70,60,60", margin: float = 0.25):
    return ask("box", box=text, margin=margin)


class Eye:
    """Stands where a detector would; sees what it is told."""

    name, hint = "eye", "it sees little"

    def __init__(self, *boxes):
        self.boxes = boxes

    def least(self, size):
        return 24

    def find(self, pixels):
        assert pixels.dtype == np.uint8 and pixels.shape == (200, 300, 3)
        return [Face(one, 1.0, "eye") for one in self.boxes]


@pytest.fixture
def eye(monkeypatch):
    """`eye(*boxes)`: what any detector finds from now on."""
    return lambda *boxes: monkeypatch.setattr(faces, "load_detector", lambda *_: Eye(*boxes))


# --- out of the picture -------------------------------------------------------------------------------------------


def test_a_box_is_cut_out_as_large_as_it_is_in_the_picture():
    found = cut_out(smooth(), box())
    assert found.image.shape == (1, 88, 88, 3)  # 60 + 2 * 0.25 * 60 = 90, to the next 8
    assert found.cutout.crop.box == (115, 55, 90, 90)
    middle = found.image[0, 44, 44], smooth()[0, 100, 160]
    assert (middle[0] - middle[1]).abs().max() < 0.03
    assert found.said == "the picture: the face by hand, 60 x 60 px at 130,70" and found.warnings == ()


def test_mask_and_box_mark_the_face_in_what_was_cut_out_alike():
    found = cut_out(smooth(), box(), 176, 176)
    assert found.mask.shape == (1, 176, 176) and set(found.mask.unique().tolist()) == {0.0, 1.0}
    x, y, w, h = map(int, found.box.split(","))
    assert (x, y, w, h) == pytest.approx((176 / 6, 176 / 6, 176 * 2 / 3, 176 * 2 / 3), abs=1)
    size = (176, 176)
    assert face_box(found.box, None, size) == face_box("", found.mask, size) == (x, y, x + w, y + h)


@pytest.mark.parametrize(("asked", "size"), [((96, 0), (96, 96)), ((0, 72), (72, 72)), ((128, 96), (128, 96))])
def test_a_size_may_be_given_and_one_side_alone_is_a_square(asked, size):
    found = cut_out(smooth(), box(), *asked)
    assert found.image.shape == (1, size[1], size[0], 3) and found.mask.shape == (1, size[1], size[0])


def test_the_whole_picture_has_no_face_to_mark():
    found = cut_out(smooth(), ask("whole"))
    assert found.image.shape == (1, 200, 200, 3) and found.box == "" and not found.mask.any()
    assert face_box(found.box, found.mask, (200, 200)) is None
    assert found.said.startswith("the picture: the whole picture")


def test_a_transparent_picture_is_laid_on_grey_and_it_is_said():
    image = smooth(channels=4)
    image[..., 3] = 0.0
    found = cut_out(image, box())
    assert (found.image - 128 / 255).abs().max() < 0.01
    assert found.warnings == ("the picture is partly transparent; laid on mid-grey",)
    assert cut_out(smooth(channels=4), box()).warnings == ()


def test_the_largest_and_the_one_with_a_number_are_chosen_and_the_others_listed(eye):
    eye((10, 20, 40, 40), (200, 30, 80, 80))
    largest = cut_out(smooth(), ask("largest", margin=0.0))
    assert largest.cutout.crop.box == (200, 30, 80, 80)
    assert (
        "eye found 2 faces (1: 40 x 40 px at 10,20; 2: 80 x 80 px at 200,30); the largest, 2, is taken" in largest.said
    )
    assert "set face to number and choose another if another one is meant" in largest.warnings[0]
    first = cut_out(smooth(), ask("number", 1, margin=0.0))
    assert first.cutout.crop.box == (10, 20, 40, 40) and not any("another one" in line for line in first.warnings)
    assert first.image.shape == (1, 64, 64, 3)  # never under 64 px


def test_faces_that_are_not_there_are_answered_in_the_hosts_words(eye):
    eye()
    with pytest.raises(InputError) as caught:
        cut_out(smooth(), ask("largest"))
    assert str(caught.value) == (
        "the picture: eye found 0 faces of 24 px or more in 300 x 200 px (it sees little); set face to box and give "
        "its x,y,width,height in pixels, or set face to whole"
    )
    eye((10, 20, 40, 40))
    with pytest.raises(InputError, match=r"eye found 1 face .*, and face 3 was asked for; choose 1 to 1"):
        cut_out(smooth(), ask("number", 3))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (dict(face="nose"), "face is 'nose'; choose largest, number, box, whole"),
        (dict(face="box"), "face is box, and box is blank; give x,y,width,height"),
        (dict(face="box", box="left"), "box is 'left'; give x,y,width,height of the face in pixels"),
        (dict(face="largest", margin=-0.1), "margin is -0.1; give a number from 0 to 4"),
        (dict(face="box", box="1,2,30,40", margin=float("nan")), "margin is nan"),
        (dict(face="largest", detector="haar"), "detector is 'haar'; choose lbp, mediapipe, insightface"),
        (dict(face="number", number=0), "number is 0; faces are numbered from 1"),
    ],
)
def test_fields_that_say_nothing_usable_are_refused(words, message):
    with pytest.raises(InputError, match=message) as caught:
        ask(**words)
    assert "\n" not in str(caught.value) and "--" not in str(caught.value)


@pytest.mark.parametrize(("detector", "endings"), [("mediapipe", ".tflite or .task"), ("insightface", ".onnx")])
def test_a_detector_reads_only_its_own_kind_of_file(tmp_path, detector, endings):
    """insightface takes a name without .onnx for one of its models and would download it."""
    with pytest.raises(
        InputError, match=f"model_file buffalo_l is no file of {detector}'s; give one that ends in {endings}"
    ):
        ask("largest", detector=detector, model=tmp_path / "buffalo_l")
    with pytest.raises(InputError, match=rf"{detector} needs 1 model file, and 0 are given; set model_file \(such as"):
        cut_out(smooth(), ask("largest", detector=detector))


def test_what_another_choice_leaves_in_a_field_is_no_mistake(tmp_path):
    assert ask("whole", 0, "left", -1.0, "haar").which == "whole"
    assert ask("box", 0, "1,2,30,40", 0.5, "haar").which == (1, 2, 30, 40)
    assert ask("largest", 0, "left", 0.5, "lbp", tmp_path / "x.onnx").model is None


@pytest.mark.parametrize(
    ("image", "asked", "size", "message"),
    [
        (smooth().repeat(2, 1, 1, 1), box(), (0, 0), "got a batch of 2 portraits"),
        (smooth(), box("250,70,60,60"), (0, 0), r"from 250,70 to 310,130, outside the picture of 300 x 200 px"),
        (smooth(), box("-5,0,60,60"), (0, 0), "from -5,0 to 55,60, outside"),
        (smooth(), box("10,10,3,60"), (0, 0), "the picture is 3 x 60 px, and each side has at least 8"),
        (smooth(), box(), (100, 0), "size 100x100 has a side of 100 px, no multiple of 8; use 96"),
        (smooth(), box(), (32, 32), "size 32x32 has a side of 32 px; each is 64 to 2048 px"),
        (smooth(40, 40), ask("whole"), (0, 0), "the picture is 40 x 40 px; the shorter side must have at least 64"),
    ],
)
def test_pictures_boxes_and_sizes_that_cannot_be_cut_are_refused(image, asked, size, message):
    with pytest.raises(InputError, match=message):
        cut_out(image, asked, *size)


def test_every_choice_of_the_menu_is_one_that_ask_knows():
    for face in FACES:
        ask(face, 1, "1,2,30,40")


# --- back into the picture ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("drawn", [88, 64, 256])
def test_frames_of_any_size_of_the_crops_shape_go_back_where_it_was(drawn):
    image = smooth()
    found = cut_out(image, box())
    frames = torch.zeros(3, drawn, drawn, 3)
    frames[1] = 1.0
    out, warnings = paste_back(frames, found.cutout)
    assert out.shape == (3, 200, 300, 3) and warnings == () and out.dtype == torch.float32
    outside = torch.ones(200, 300, dtype=torch.bool)
    outside[55:145, 115:205] = False
    for i, colour in enumerate((0.0, 1.0, 0.0)):
        assert torch.equal(out[i][outside], image[0][outside])
        assert (out[i, 65:135, 125:195] == colour).all()


def test_grey_frames_go_back_as_grey():
    found = cut_out(smooth(), box())
    grey = smooth(64, 64)[..., :1]
    out, coloured = (paste_back(frames, found.cutout)[0] for frames in (grey, grey.expand(-1, -1, -1, 3)))
    assert torch.equal(out, coloured)


def test_the_crop_put_back_as_it_is_is_the_picture():
    found = cut_out(smooth(), box(), 352, 352)
    out, _ = paste_back(found.image, found.cutout)
    assert (out[0] - smooth()[0]).abs().max() < 0.03


def test_a_feather_of_0_is_a_hard_edge_and_a_wide_one_fades():
    found = cut_out(smooth(), box())
    hard, _ = paste_back(torch.zeros(1, 64, 64, 3), found.cutout, 0.0)
    soft, _ = paste_back(torch.zeros(1, 64, 64, 3), found.cutout, 0.5)
    assert not hard[0, 55:145, 115:205].any() and hard[0, 54, 160].any()
    row = (soft[0] / smooth()[0])[100, 115:160, 1]  # how much of the picture shows
    assert row[0] > 0.98 and row[-1] == 0 and 0.3 < row[22] < 0.7


def test_it_is_done_frame_by_frame_and_a_cancel_between_two_passes_through():
    class CancelledError(Exception):
        pass

    done = []

    def on_frame(i, total):
        done.append((i, total))
        if i == 2:
            raise CancelledError

    with pytest.raises(CancelledError):
        paste_back(torch.zeros(4, 64, 64, 3), cut_out(smooth(), box()).cutout, on_frame=on_frame)
    assert done == [(1, 4), (2, 4)]


def test_an_odd_column_and_row_are_left_out_and_said():
    out, warnings = paste_back(torch.zeros(1, 64, 64, 4), cut_out(smooth(301, 201), box()).cutout)
    assert out.shape == (1, 200, 300, 3)
    assert warnings == (
        "the picture is 301 x 201 px and a video needs even sides; pasted back into its first 300 x 200 px",
    )


@pytest.mark.parametrize(
    ("frames", "more", "message"),
    [
        ((2, 64, 96, 3), {}, r"the frames are 96 x 64 px, and what was cut out is 88 x 88 px; draw frames of the same"),
        ((2, 64, 64, 2), {}, r"the frames have the shape \[2, 64, 64, 2\]; give frames x height x width x 1, 3 or 4"),
        ((2, 64, 64, 3), {"feather": 0.6}, "feather is 0.6; give a number from 0 to 0.5"),
        ((2, 64, 64, 3), {"free": 1e6}, r"2 frames of 300 x 200 px take 0\.00 GB of memory, 0\.00 GB are free; give"),
    ],
)
def test_frames_that_cannot_go_back_are_refused(frames, more, message):
    with pytest.raises(InputError, match=message) as caught:
        paste_back(torch.zeros(frames), cut_out(smooth(), box()).cutout, **more)
    assert "\n" not in str(caught.value)


def test_a_picture_too_large_for_a_video_can_be_cut_but_not_pasted_into():
    found = cut_out(smooth(4200, 64), box("100,0,60,60"))
    with pytest.raises(
        InputError, match=r"the picture is 4200 x 64 px; to paste back, .* 4096 px: scale it down, or leave Paste Face"
    ):
        paste_back(torch.zeros(1, 64, 64, 3), found.cutout)


def test_a_cutout_prints_no_picture_and_is_itself_alone():
    one, other = (cut_out(smooth(), box()).cutout for _ in "ab")
    assert isinstance(one, Cutout) and one == one and one != other
    assert re.fullmatch(r"Cutout\(90 x 90 px at 115,55 of 300 x 200\)", repr(one))
