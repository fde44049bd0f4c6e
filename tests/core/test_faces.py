"""Which face is taken, and what is said: by a box, by a number, the largest, or none."""

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tbd_core import detectors, faces
from tbd_core.detectors import Face, clip_box, gather, load_detector
from tbd_core.errors import InputError
from tbd_core.faces import choose, find_face, parse_face, request


SIZE = (640, 480)
LEFT, MIDDLE, RIGHT = Face((10, 20, 90, 90)), Face((200, 30, 120, 110)), Face((500, 40, 60, 60))
EYE = SimpleNamespace(name="eye", hint="it sees little", least=lambda size: 24)


def picture(size=SIZE) -> Image.Image:
    return Image.new("RGB", size, "gray")


@pytest.mark.parametrize(
    ("text", "which"),
    [("auto", "largest"), (" Largest ", "largest"), ("whole", "whole"), ("2", 2), ("10,20, 30,40", (10, 20, 30, 40))],
)
def test_the_option_is_a_word_a_number_or_a_box(text, which):
    assert parse_face(text) == which


BAD_WORDS = [
    (dict(face="nose"), r"face is 'nose'; give auto, whole, a number such as 2, or X,Y,W,H in pixels"),
    (dict(face=""), r"face is ''"),
    (dict(face="1,2,3"), r"face is '1,2,3'"),
    (dict(face="-1,2,30,40"), r"face is '-1,2,30,40'"),
    (dict(face="0"), r"face is 0; faces are numbered from 1"),
    (dict(face="auto", margin=-0.1), r"--face-margin is -0.1; give a number from 0 to 4"),
    (dict(face="auto", margin=float("nan")), r"--face-margin is nan"),
    (dict(face="whole", margin=0.3), r"--face-margin is 0.3, but face is whole"),
    (dict(face="whole", detector="lbp"), r"--face-detector is lbp, but face is whole"),
    (dict(face="1,2,30,40", model="a.onnx"), r"--face-model is a.onnx, but face is 1,2,30,40"),
    (dict(face="auto", detector="haar"), r"unknown face detector 'haar'; choose one of lbp, mediapipe, insightface"),
    (dict(face="auto", model="a.onnx"), r"--face-model is a.onnx, but lbp brings its own.*mediapipe or insightface"),
]


@pytest.mark.parametrize(("words", "message"), BAD_WORDS)
def test_what_is_wrong_or_would_be_ignored_is_refused(words, message):
    with pytest.raises(InputError, match=message) as caught:
        request(**words)
    assert "\n" not in str(caught.value)


def test_a_box_by_hand_is_taken_as_it_is_and_nothing_is_searched(monkeypatch):
    monkeypatch.setattr(faces, "load_detector", lambda *_: pytest.fail("a detector was loaded"))
    choice = find_face(picture(), request("100,50,200,300"), "me.png")
    assert choice.face == Face((100, 50, 200, 300), None, "by hand") and choice.warnings == ()
    assert choice.said == "me.png: the face by hand, 200 x 300 px at 100,50"
    assert find_face(picture(), request("whole"), "me.png").face is None


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ("600,10,100,100", r"me.png lies from 600,10 to 700,110, outside the picture of 640 x 480 px; give X,Y,W,H"),
        ("0,400,90,90", r"to 90,490, outside"),
        ("10,10,3,90", r"me.png is 3 x 90 px, and each side has at least 8"),
    ],
)
def test_a_box_that_is_no_face_of_the_picture_is_refused(box, message):
    with pytest.raises(InputError, match=message):
        find_face(picture(), request(box), "me.png")


def test_no_face_says_how_many_of_which_size_were_looked_for_and_what_to_do():
    with pytest.raises(InputError) as caught:
        choose([], "largest", EYE, "me.png", SIZE)
    assert str(caught.value) == (
        "me.png: eye found 0 faces of 24 px or more in 640 x 480 px (it sees little); "
        "set face to its X,Y,W,H in pixels, or to whole"
    )


def test_one_face_is_taken_without_a_warning():
    choice = choose([MIDDLE], "largest", EYE, "me.png", SIZE)
    assert (choice.face, choice.warnings) == (MIDDLE, ())
    assert choice.said == "me.png: eye found 1 face, 120 x 110 px at 200,30"


def test_of_several_faces_the_largest_is_taken_and_all_are_listed_by_their_numbers():
    choice = choose([LEFT, MIDDLE, RIGHT], "largest", EYE, "me.png", SIZE)
    assert choice.face == MIDDLE
    (said,) = choice.warnings
    assert "3 faces (1: 90 x 90 px at 10,20; 2: 120 x 110 px at 200,30; 3: 60 x 60 px at 500,40)" in said
    assert "the largest, 2, is taken: set face to another number" in said
    many = choose([LEFT] * 30, "largest", EYE, "me.png", SIZE)
    assert "; 8: 90 x 90" in many.said and "9: " not in many.said and "; ...)" in many.said


def test_a_number_takes_that_face_from_the_left_and_one_too_high_is_refused():
    assert choose([LEFT, MIDDLE, RIGHT], 3, EYE, "me.png", SIZE).face == RIGHT
    with pytest.raises(InputError, match=r"eye found 2 faces \(1: .*\), and face 3 was asked for; choose 1 to 2"):
        choose([LEFT, RIGHT], 3, EYE, "me.png", SIZE)


def test_faces_are_numbered_from_the_left_whatever_order_they_are_found_in(monkeypatch):
    found = SimpleNamespace(name="eye", hint="", least=lambda size: 0, find=lambda pixels: [RIGHT, LEFT, MIDDLE])
    monkeypatch.setattr(faces, "load_detector", lambda *_: found)
    numbered = [find_face(picture(), request(str(number)), "me.png").face for number in (1, 2, 3)]
    assert numbered == [LEFT, MIDDLE, RIGHT]


def test_lips_lie_in_the_lower_half_of_the_face_unless_the_detector_tells():
    x, y, w, h = Face((100, 200, 50, 60)).lip_box()
    assert x > 100 and x + w < 150 and y > 230 and y + h < 260
    assert replace(LEFT, lips=(1, 2, 3, 4)).lip_box() == (1, 2, 3, 4)


def test_windows_that_overlap_are_one_group_and_the_largest_group_is_first():
    around = [(100 + i, 100 - i, 50 + i) for i in range(-3, 4)]
    (votes, middle), (few, other) = gather([*around, (300, 300, 40), (301, 302, 41)])
    assert (votes, few) == (7, 2) and middle == (100, 100, 50) and 300 <= other[0] <= 301
    assert gather([]) == []


def test_boxes_are_cut_to_the_picture():
    assert clip_box((-5.2, 10.4, 30, 500), (100, 80)) == (0, 10, 30, 70)
    assert clip_box((120, 10, 130, 20), (100, 80)) is None


# --- lbp, when scikit-image is installed --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def astronaut():
    return Image.fromarray(pytest.importorskip("skimage.data").astronaut())


@pytest.fixture(scope="module")
def lbp():
    pytest.importorskip("skimage")
    return load_detector("lbp")


def test_lbp_finds_the_one_face_of_a_photograph_around_its_eyes_and_mouth(astronaut, lbp):
    (face,) = lbp.find(np.asarray(astronaut))
    x, y, w, h = face.box
    for point in ((205, 112), (245, 114), (224, 150)):  # both eyes and the mouth
        assert x < point[0] < x + w and y < point[1] < y + h
    assert 70 < w < 150 and abs(w - h) <= 1 and face.score >= lbp.VOTES
    left, top, width, height = face.lip_box()
    assert left < 224 < left + width and top < 150 < top + height


def test_lbp_finds_two_faces_in_one_picture_and_none_in_half_of_one(astronaut, lbp):
    two = Image.new("RGB", (1024, 512))
    two.paste(astronaut, (0, 0))
    two.paste(astronaut.resize((300, 300)), (600, 100))
    found = sorted(face.box[0] for face in lbp.find(np.asarray(two)))
    assert len(found) == 2 and found[0] < 224 < 600 < found[1]
    half = astronaut.crop((224, 0, 512, 512))
    with pytest.raises(InputError, match=r"half.png: lbp found 0 faces of 26 px or more in 288 x 512 px .*profiles"):
        find_face(half, request("auto"), "half.png")


def test_lbp_finds_the_drawn_face_of_the_sample(lbp, root):
    with Image.open(root / "tbd_core" / "assets" / "sample" / "portrait.png") as sample:
        choice = find_face(sample.convert("RGB"), request("auto"), "portrait.png")
    x, y, w, h = choice.face.box
    assert x < 256 < x + w and y < 256 < y + h and w > 250
    assert choice.said.startswith("portrait.png: lbp found 1 face, ")


@pytest.mark.parametrize("size", [(64, 64), (128, 96), (2000, 64)])
def test_lbp_finds_nothing_where_there_is_no_face(lbp, size):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8))
    assert lbp.find(np.asarray(noise)) == [] == lbp.find(np.asarray(picture(size)))


def test_lbp_says_how_small_a_face_may_be(astronaut, lbp):
    assert lbp.least((200, 100)) == 24 and lbp.least((4800, 100)) == 240
    with pytest.raises(InputError, match=r"0 faces of 24 px or more in 64 x 64 px"):
        find_face(astronaut.resize((64, 64)), request("auto"), "tiny.png")  # its face has 13 px


def test_lbps_cascade_comes_with_the_package_and_is_not_downloaded(lbp):
    import skimage

    data = pytest.importorskip("skimage.data")
    assert str(data.lbp_frontal_face_cascade_filename()).startswith(str(skimage.__path__[0]))


@pytest.mark.parametrize(
    ("name", "missing", "install"),
    [("lbp", "skimage.feature", "scikit-image>=0.22"), ("mediapipe", "mediapipe", "mediapipe>=0.10.14"),
     ("insightface", "insightface.model_zoo", 'insightface" "onnxruntime')],
)  # fmt: skip
def test_a_missing_package_says_what_to_install_and_the_ways_without(monkeypatch, tmp_path, name, missing, install):
    monkeypatch.setitem(sys.modules, missing, None)
    model = None if name == "lbp" else tmp_path / "model"
    if model:
        model.write_bytes(b"0")
    with pytest.raises(
        InputError, match=rf'-m pip install "{install}"`, or set face to its X,Y,W,H in pixels, or to whole'
    ):
        load_detector(name, model)
    assert find_face(picture(), request("10,10,99,99"), "me.png").face.box == (10, 10, 99, 99)


# --- the others, on stand-ins with the calls that the packages have -----------------------------------------------


@pytest.mark.parametrize(
    ("name", "licence"),
    [("mediapipe", "blaze_face_short_range.tflite, Apache 2.0"), ("insightface", "for non-commercial research only")],
)
def test_a_detector_without_its_file_says_which_it_needs_and_its_licence(tmp_path, name, licence):
    with pytest.raises(InputError, match=f"{name} needs 1 model file, and 0 are given; set --face-model.*{licence}"):
        load_detector(name)
    with pytest.raises(InputError, match=f"does not exist; give the model of {name} .*{licence}"):
        load_detector(name, tmp_path / "none")


@pytest.fixture
def model(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"0")
    return tmp_path / "model.bin"


def stand_in(monkeypatch, name: str, **parts) -> None:
    module = ModuleType(name)
    vars(module).update(parts)
    monkeypatch.setitem(sys.modules, name, module)


def mediapipe(monkeypatch, create) -> None:
    stand_in(monkeypatch, "mediapipe", Image=lambda form, data: data, ImageFormat=SimpleNamespace(SRGB="rgb"))
    for name in ("mediapipe.tasks", "mediapipe.tasks.python"):
        stand_in(monkeypatch, name)
    detector = SimpleNamespace(create_from_model_path=create)
    stand_in(monkeypatch, "mediapipe.tasks.python.vision", FaceDetector=detector)


def test_mediapipes_boxes_are_cut_to_the_picture_and_its_mouth_becomes_a_lip_box(monkeypatch, model):
    found = SimpleNamespace(
        bounding_box=SimpleNamespace(origin_x=-10, origin_y=20, width=110, height=100),
        categories=[SimpleNamespace(score=0.75)],
        keypoints=[SimpleNamespace(x=0.1, y=0.1)] * 3 + [SimpleNamespace(x=0.5, y=0.5)],
    )
    mediapipe(monkeypatch, lambda path: SimpleNamespace(detect=lambda image: SimpleNamespace(detections=[found])))
    (face,) = load_detector("mediapipe", model).find(np.zeros((160, 200, 3), np.uint8))
    assert (face.box, face.score, face.detector) == ((0, 20, 100, 100), 0.75, "mediapipe")
    x, y, w, h = face.lips
    assert x < 100 < x + w and y < 80 < y + h


def test_insightface_is_given_bgr_and_its_mouth_corners_become_a_lip_box(monkeypatch, model):
    seen = []

    def detect(pixels, input_size):
        seen.append(pixels)
        points = np.array([[[40, 40], [60, 40], [50, 55], [42, 70], [58, 72]]], np.float32)
        return np.array([[30, 20, 70, 90, 0.5]], np.float32), points

    detector = SimpleNamespace(prepare=lambda **_: None, detect=detect)
    stand_in(monkeypatch, "insightface")
    stand_in(monkeypatch, "insightface.model_zoo", get_model=lambda path: detector)
    pixels = np.zeros((100, 120, 3), np.uint8)
    pixels[..., 0] = 255  # red
    (face,) = load_detector("insightface", model).find(pixels)
    assert (face.box, face.score, face.detector) == ((30, 20, 40, 70), 0.5, "insightface")
    assert seen[0][0, 0].tolist() == [0, 0, 255]
    x, y, w, h = face.lips
    assert (x, x + w) == (42, 58) and y < 71 < y + h


def test_a_file_that_is_no_model_is_named(monkeypatch, model):
    def broken(path):
        raise RuntimeError("bad\nmagic")

    mediapipe(monkeypatch, broken)
    with pytest.raises(InputError, match=r"model.bin cannot be used by mediapipe \(bad magic\); give 1 file of it"):
        load_detector("mediapipe", model)
    stand_in(monkeypatch, "insightface")
    stand_in(monkeypatch, "insightface.model_zoo", get_model=lambda path: None)
    with pytest.raises(InputError, match=r"model.bin cannot be used by insightface"):
        load_detector("insightface", model)


def test_a_model_of_another_kind_is_named_when_it_first_looks(monkeypatch, model):
    def look(image):
        raise RuntimeError("RET_CHECK failure\nshape().dims[1])==(num_boxes_)")

    mediapipe(monkeypatch, lambda path: SimpleNamespace(detect=look))
    with pytest.raises(InputError, match=r"model.bin cannot be used by mediapipe \(RET_CHECK failure shape.*give 1"):
        load_detector("mediapipe", model).find(np.zeros((160, 200, 3), np.uint8))


def test_every_detector_has_a_name_a_hint_and_what_its_file_is():
    assert set(detectors.LICENCES) == set(detectors.DETECTORS) - {"lbp"}
    assert all(kind.name == name and kind.hint for name, kind in detectors.WITH_FILE.items())
