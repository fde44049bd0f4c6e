"""Find Face and Paste Face Back: what is cut out goes into ReferenceNet Encode, and what is drawn goes back."""

import logging
import sys
from types import SimpleNamespace

import pytest
import torch


FIELDS = dict(face="box", number=1, box="30,20,40,40", margin=0.1, width=0, height=0, detector="lbp", model_file="")


@pytest.fixture
def find(pack, run):
    from tbd_pack.nodes.faces import TBDFindFace

    return lambda image, **changed: run(TBDFindFace, image=image, **(FIELDS | changed)).args


@pytest.fixture
def paste(pack, run):
    from tbd_pack.nodes.faces import TBDPasteBack

    return lambda frames, crop, feather=0.1: run(TBDPasteBack, frames=frames, crop=crop, feather=feather).args[0]


def test_the_face_is_cut_out_masked_and_told(find, face):
    cropped, mask, box, crop, found = find(face)
    assert cropped.shape == (1, 64, 64, 3) and mask.shape == (1, 64, 64)
    assert box == "5,5,54,54" and mask[0, 5:59, 5:59].all() and mask.sum() == 54 * 54
    assert crop.crop.box == (26, 16, 48, 48) and crop.picture.size == (96, 80)
    assert found.splitlines()[0] == "the picture: the face by hand, 40 x 40 px at 30,20"


def test_reference_encode_sees_all_of_the_crop_and_the_face_in_it(find, face, bundle, run, pack):
    from tbd_pack.nodes.encoding import TBDReferenceEncode

    cropped, mask, box, _, _ = find(face)
    usual = dict(model=bundle.model, vae=bundle.vae, image=cropped, width=0, height=0)
    by_box = run(TBDReferenceEncode, **usual, box=box).args
    by_mask = run(TBDReferenceEncode, **usual, box="", face=mask).args
    assert torch.allclose(by_box[1], cropped, atol=1 / 255) and torch.equal(by_box[1], by_mask[1])
    assert by_box[0].size == (64, 64)


def test_drawn_frames_go_back_into_the_whole_picture(find, paste, face):
    crop = find(face)[3]
    out = paste(torch.zeros(3, 32, 32, 3), crop)
    assert out.shape == (3, 80, 96, 3)
    assert not out[:, 30:50, 40:60].any()
    kept = (face * 255).round() / 255
    assert torch.allclose(out[2, :16], kept[0, :16], atol=1e-6) and torch.allclose(
        out[0, :, 74:], kept[0, :, 74:], atol=1e-6
    )


def test_the_words_for_a_missing_detector_are_the_nodes(find, face, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.feature", None)
    with pytest.raises(
        ValueError, match=r"lbp needs skimage.* pip install .*, or set face to box and give its x,y,width"
    ):
        find(face, face="largest")
    assert find(face)[2]  # a box needs no package


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(box=""), "face is box, and box is blank; give x,y,width,height"),
        (dict(box="a"), "box is 'a'; give x,y,width,height"),
        (dict(box="80,20,40,40"), r"from 80,20 to 120,60, outside the picture of 96 x 80 px"),
        (dict(face="nose"), "face is 'nose'; choose largest, number, box, whole"),
        (dict(face="number", number=0), "number is 0; faces are numbered from 1"),
        (dict(width=100), "size 100x100 has a side of 100 px, no multiple of 8"),
        (dict(face="largest", detector="mediapipe"), "mediapipe needs 1 model file, and 0 are given; set model_file"),
        (
            dict(face="largest", detector="insightface", model_file="buffalo_l"),
            "model_file buffalo_l is no file of insight",
        ),
        (dict(face="largest", detector="insightface", model_file=r"\\far\x.onnx"), "is on another machine; copy it"),
        (
            dict(face="largest", detector="insightface", model_file="none.onnx"),
            r"models.none\.onnx does not exist; give",
        ),
    ],
)
def test_fields_that_cannot_be_used_are_refused_in_one_line(find, face, folders, changed, message):
    with pytest.raises(ValueError, match=message) as caught:
        find(face, **changed)
    assert type(caught.value).__name__ == "InputError" and "\n" not in str(caught.value)


def test_a_batch_is_no_picture(find, face):
    with pytest.raises(ValueError, match="got a batch of 2 portraits"):
        find(face.repeat(2, 1, 1, 1))


def test_frames_that_show_something_else_than_the_crop_are_refused(find, paste, face):
    with pytest.raises(ValueError, match="the frames are 96 x 64 px, and what was cut out is 64 x 64 px"):
        paste(torch.zeros(1, 64, 96, 3), find(face)[3])


def test_more_frames_than_memory_holds_are_refused_before_any_is_made(find, paste, face, monkeypatch):
    import comfy.model_management as mm

    monkeypatch.setattr(mm, "get_free_memory", lambda *_: 500_000)
    with pytest.raises(
        ValueError, match=r"9 frames of 96 x 80 px take .* GB of memory, .* GB are free; give a smaller"
    ):
        paste(torch.zeros(9, 32, 32, 3), find(face)[3])


def test_a_cancel_ends_the_pasting_and_progress_counts_frames(find, paste, face):
    import comfy.model_management as mm
    import comfy.utils

    crop, seen = find(face)[3], []
    comfy.utils.set_progress_bar_global_hook(lambda value, total, preview, node_id=None: seen.append((value, total)))
    paste(torch.zeros(3, 32, 32, 3), crop)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    mm.interrupt_current_processing()
    with pytest.raises(mm.InterruptProcessingException):
        paste(torch.zeros(3, 32, 32, 3), crop)


def test_what_could_not_be_held_is_logged_and_told(find, face, pack, caplog, monkeypatch):
    from tbd_pack.tbd_core import faces
    from tbd_pack.tbd_core.detectors import Face

    boxes = [Face((0, 0, 30, 30)), Face((40, 20, 40, 40))]
    eye = SimpleNamespace(name="eye", hint="", least=lambda size: 0, find=lambda pixels: boxes)
    monkeypatch.setattr(faces, "load_detector", lambda *_: eye)
    with caplog.at_level(logging.WARNING):
        found = find(face, face="largest", margin=2.0)[4]
    assert "eye found 2 faces" in found and "a margin of 2 around the face wants 200 x 200 px, of 96 x 80 px" in found
    assert found.splitlines()[1:] == caplog.messages
