"""A face cut out of a picture, and put back where it was."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from PIL import Image, ImageOps

from tbd_core import pipeline
from tbd_core.config import GenerateOptions
from tbd_core.crops import FEATHER, Crop, Paste, crop_around, crop_notes, see, whole_crop
from tbd_core.errors import InputError
from tbd_core.faces import request
from tbd_core.pipeline import generate, part_key, plan
from tbd_core.portrait import CENTERING, load_portrait
from tbd_core.video import _frames, probe, read_metadata


TARGETS = [(64, 64), (128, 96), (64, 160)]
pytestmark = pytest.mark.usefixtures("loaded_once")


def smooth(width: int, height: int) -> Image.Image:
    """A picture that resizing hardly changes."""
    y, x = np.mgrid[:height, :width]
    values = np.stack([128 + 90 * np.sin(x / 37), 128 + 90 * np.cos(y / 29), 128 + 60 * np.sin((x + y) / 53)], -1)
    return Image.fromarray(values.astype(np.uint8))


def random_faces(count: int, width: int, height: int):
    rng = np.random.default_rng(3)
    for _ in range(count):
        w, h = (int(n) for n in rng.integers(8, (width, height)))
        yield int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1)), w, h


# --- the crop -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
def test_every_crop_has_the_targets_shape_holds_the_face_and_lies_inside_where_it_can(target):
    for face in random_faces(60, 300, 200):
        crop = crop_around(face, (300, 200), target, 0.5)
        x, y, w, h = crop.box
        assert w / h == pytest.approx(target[0] / target[1])
        assert x <= face[0] + 1e-6 and y <= face[1] + 1e-6
        assert x + w >= face[0] + face[2] - 1e-6 and y + h >= face[1] + face[3] - 1e-6
        for begin, side, whole in ((x, w, 300), (y, h, 200)):
            if side <= whole:
                assert begin >= -1e-6 and begin + side <= whole + 1e-6
            else:
                assert begin <= 0 and whole <= begin + side
        assert crop.take(smooth(300, 200)).size == target


def test_a_margin_is_a_share_of_the_face_on_each_side_of_it():
    assert crop_around((200, 150, 100, 80), (640, 480), (64, 64), 0.5).box == (150, 90, 200, 200)
    assert crop_around((200, 150, 100, 80), (640, 480), (128, 64), 0.0).box == (170, 150, 160, 80)


def test_a_crop_at_the_border_is_shifted_inside():
    assert crop_around((0, 400, 80, 80), (640, 480), (64, 64), 0.5).box == (0, 320, 160, 160)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("size", [(301, 200), (90, 333), (128, 128)])
def test_the_whole_picture_is_cut_as_it_always_was(size, target):
    picture = smooth(*size)
    fitted = ImageOps.fit(picture, target, method=Image.Resampling.LANCZOS, centering=CENTERING)
    assert np.array_equal(np.asarray(whole_crop(size, target).take(picture)), np.asarray(fitted))


def test_a_box_goes_into_the_crop_and_back():
    crop = crop_around((200, 150, 100, 80), (640, 480), (128, 96), 0.3)
    for box in ((200.0, 150.0, 100.0, 80.0), (0.0, 0.0, 640.0, 480.0)):
        assert crop.back(crop.into(box)) == pytest.approx(box)
    assert crop.into(crop.box) == pytest.approx((0, 0, 128, 96))


def test_what_lies_in_a_box_of_the_picture_is_drawn_where_into_says():
    picture = np.zeros((480, 640, 3), np.uint8)
    picture[200:220, 260:280] = 255
    crop = crop_around((200, 150, 100, 80), (640, 480), (256, 256), 0.5)
    x, y, w, h = (round(side) for side in crop.into((260, 200, 20, 20)))
    drawn = np.asarray(crop.take(Image.fromarray(picture)))[..., 0]
    assert drawn[y + 2 : y + h - 2, x + 2 : x + w - 2].min() > 240
    drawn = drawn.copy()
    drawn[y - 4 : y + h + 4, x - 4 : x + w + 4] = 0
    assert drawn.max() < 5


def test_a_face_too_wide_for_the_shape_has_mirrored_borders():
    picture = smooth(400, 100)
    crop = crop_around((0, 0, 400, 100), (400, 100), (64, 64), 0.0)
    assert crop.box == (0, -150, 400, 400)
    drawn = np.asarray(crop.take(picture)).astype(int)
    assert np.array_equal(drawn[23], drawn[25]) and np.array_equal(drawn[10], drawn[38])  # 24 .. 39 is the picture
    assert np.array_equal(drawn[40], drawn[38]) and not np.array_equal(drawn[23], drawn[24])


def test_what_a_crop_could_not_hold_is_said_with_its_numbers():
    face = (100, 100, 300, 300)
    crop = crop_around(face, (500, 400), (64, 64), 0.5)
    (said,) = crop_notes(crop, face, 0.5, "me.png")
    assert "a margin of 0.5 around the face wants 600 x 600 px, of 500 x 400 px; 400 x 400 px are taken" in said
    wide = (0, 0, 400, 100)
    (said,) = crop_notes(crop_around(wide, (400, 100), (64, 64), 0.0), wide, 0.0, "me.png")
    assert "the crop of 400 x 400 px around the face reaches 150 px over the picture's border" in said
    tiny = (100, 100, 20, 20)
    (said,) = crop_notes(crop_around(tiny, (500, 400), (128, 128), 0.5), tiny, 0.5, "me.png")
    assert "the face is 20 x 20 px and its crop of 40 x 40 px is enlarged 3.2 times" in said
    plenty = (200, 150, 100, 100)
    assert crop_notes(crop_around(plenty, (500, 400), (64, 64), 0.5), plenty, 0.5, "me.png") == ()


# --- back into the picture ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pasted():
    """A crop in the middle, and a frame that differs from the picture everywhere."""
    picture = smooth(300, 200)
    crop = crop_around((130, 70, 60, 60), picture.size, (64, 64), 0.25)
    frame = 255 - np.asarray(crop.take(picture))
    paste = Paste(picture, crop)
    (out,) = paste.frames(frame[None])
    return np.asarray(picture).astype(int), crop, frame, paste, out[0].astype(int)


def test_outside_of_the_crop_not_a_bit_changes_and_in_its_middle_all_is_drawn(pasted):
    picture, crop, frame, paste, out = pasted
    x, y, w, h = (int(side) for side in crop.box)
    assert (x, y, w, h) == (115, 55, 90, 90)
    outside = np.ones(out.shape[:2], bool)
    outside[y : y + h, x : x + w] = False
    assert np.array_equal(out[outside], picture[outside])
    assert np.abs(out[100, 160] - frame[32, 32]).max() <= 3 and np.abs(out[100, 160] - picture[100, 160]).max() > 20


def test_the_frame_fades_in_evenly_and_is_whole_inside_the_feather(pasted):
    paste = pasted[3]
    alpha = paste.alpha
    assert alpha.shape == (90, 90) and 0 <= alpha.min() < 0.01 and alpha.max() == 1
    row, edge = alpha[45], round(FEATHER * 90)
    assert (np.diff(row[:edge]) > 0).all() and (row[edge:-edge] == 1).all()
    assert np.allclose(alpha, alpha[::-1, ::-1]) and np.diff(row).max() < 2.5 / edge


def test_at_the_pictures_own_border_nothing_fades():
    picture = smooth(300, 200)
    paste = Paste(picture, crop_around((0, 0, 60, 60), picture.size, (64, 64), 0.25))
    assert (paste.left, paste.top) == (0, 0) and paste.alpha[0, 0] == 1 and paste.alpha[-1, -1] < 0.01
    assert (Paste(picture, whole_crop(picture.size, (96, 64))).alpha == 1).all()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("face", [(130, 70, 60, 60), (0, 0, 33, 41), (0, 50, 300, 40)])
def test_the_pictures_own_pixels_put_back_are_the_picture(face, target):
    picture = smooth(300, 200)
    target = (target[0] * 4, target[1] * 4)  # enlarged, so that nothing is lost on the way
    crop = crop_around(face, picture.size, target, 0.25)
    (out,) = Paste(picture, crop).frames(np.asarray(crop.take(picture))[None])
    assert np.abs(out[0].astype(int) - np.asarray(picture)).max() <= 6


def test_an_odd_column_and_row_are_left_out_and_frames_come_one_at_a_time():
    picture = smooth(301, 201)
    portrait, seen = see(picture, request("100,50,80,80"), (64, 64), True, "me.png")
    assert seen.paste.size == (300, 200)
    assert any("301 x 201 px and a video needs even sides; pasted back into its first 300 x 200" in text
               for text in portrait.warnings)  # fmt: skip
    frames = seen.paste.frames(np.zeros((3, 64, 64, 3), np.uint8))
    assert next(frames).shape == (1, 200, 300, 3) and len(list(frames)) == 2


def test_a_picture_too_large_for_a_video_is_refused_before_a_face_is_searched(monkeypatch):
    from tbd_core import crops

    monkeypatch.setattr(crops, "find_face", lambda *_: pytest.fail("searched"))
    with pytest.raises(InputError, match=r"me.png is 5000 x 64 px; to paste back, each side has at most 4096 px"):
        see(Image.new("RGB", (5000, 64)), request("auto"), (64, 64), True, "me.png")


def test_a_sliver_of_a_picture_is_drawn_and_put_back():
    """The picture covers less than one drawn row of the crop."""
    picture = Image.new("RGB", (4000, 64), "red")
    crop = Crop((0, -1968, 4000, 4000), picture.size, (64, 64))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = np.asarray(crop.take(picture))
        (out,) = Paste(picture, crop).frames(drawn[None])
    assert (drawn == (255, 0, 0)).all() and np.array_equal(out[0], np.asarray(picture))


# --- generate -----------------------------------------------------------------------------------------------------


@pytest.fixture
def options(small_bundle, tmp_path) -> GenerateOptions:
    smooth(301, 200).save(tmp_path / "me.png")
    soundfile.write(tmp_path / "speech.wav", 0.3 * np.sin(np.arange(11_000) / 20), 16_000)  # 17 frames
    return GenerateOptions(
        tmp_path / "me.png", tmp_path / "speech.wav", tmp_path / "out" / "talking.mp4", "happy", model=small_bundle,
        dtype="fp32", device="cpu",
    )  # fmt: skip


def test_without_a_face_the_portrait_and_what_is_told_are_as_ever(options):
    job = plan(options)
    assert job.seen is None and "face" not in pipeline.metadata(job)
    assert np.array_equal(job.portrait.pixels, load_portrait(options.portrait, None, 64).pixels)
    back = plan(replace(options, paste_back=True))
    assert np.array_equal(back.portrait.pixels, job.portrait.pixels)


def test_clips_are_told_apart_by_the_face_and_shared_with_and_without_pasting_back(options):
    keys = [part_key(plan(replace(options, face=face))) for face in ("whole", "50,40,80,80", "60,40,80,80")]
    wider = part_key(plan(replace(options, face="50,40,80,80", face_margin=0.2)))
    assert len({key["portrait"] for key in (*keys, wider)}) == 4
    assert part_key(plan(replace(options, face="50,40,80,80", paste_back=True))) == keys[1]


def test_a_face_is_drawn_and_pasted_back_clip_by_clip_and_a_broken_run_goes_on(options):
    class StopError(Exception):
        pass

    def stop(report):
        if report.clip == 1:
            raise StopError

    asked = replace(options, face="100,60,60,60", paste_back=True)
    with pytest.raises(StopError):
        generate(asked, stop)
    clips = []
    result = generate(asked, lambda report: clips.append(report.clip))
    assert set(clips) == {1}
    video = probe(result.output)
    assert (video["width"], video["height"], video["frames"]) == (300, 200, 17) == (result.width, result.height, 17)
    assert result.face["box"] == [100, 60, 60, 60] and result.face["crop"] == [70, 30, 120, 120]
    assert result.face["pasted_back"] and result.face["detector"] == "by hand"
    assert read_metadata(result.output)["face"] == result.face
    kept = np.asarray(smooth(301, 200)).astype(int)[:, 200:300]
    for frame in _frames(options.output, 300, 200, {0, 16}):
        assert np.abs(frame[:, 200:].astype(int) - kept).mean() < 4  # H.264's own loss
        assert np.abs(frame[60:120, 100:160].astype(int) - np.asarray(smooth(301, 200))[60:120, 100:160]).mean() > 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(face="nose"), r"face is 'nose'"),
        (dict(face="10,10,300,50"), r"from 10,10 to 310,60, outside the picture of 301 x 200 px"),
        (dict(face_margin=0.2), r"--face-margin is 0.2, but face is whole"),
        (dict(face="auto", face_detector="mediapipe"), r"mediapipe needs 1 model file, and 0 are given"),
    ],
)
def test_a_wrong_face_is_refused_before_a_network_is_loaded(options, change, message, monkeypatch):
    monkeypatch.setattr(pipeline.store, "load", lambda *_: pytest.fail("a network was loaded"))
    with pytest.raises(InputError, match=message):
        generate(replace(options, **change))
    assert not options.output.parent.exists()
