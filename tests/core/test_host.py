"""What a host hands over: pictures, recordings, face marks; and what it is told when something is missing."""

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tbd_core import files, host
from tbd_core.cot_fa import tokenizer
from tbd_core.errors import InputError, needed_packages


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_pictures_keep_their_bytes(channels, mode):
    pixels = torch.arange(6 * 5 * channels).reshape(1, 6, 5, channels) % 256
    picture = host.image_to_pil(pixels / 255)
    assert (picture.mode, picture.size) == (mode, (5, 6))
    assert np.array_equal(np.asarray(picture).reshape(6, 5, channels), pixels[0].numpy())


def test_a_picture_comes_back_as_it_went(seed):
    image = torch.randint(0, 256, (1, 6, 5, 3)) / 255
    assert torch.allclose(host.pil_to_image(host.image_to_pil(image)), image)


def test_out_of_range_is_clipped_and_no_number_is_black():
    image = torch.tensor([2.0, -1.0, float("nan")]).expand(1, 2, 2, 3)
    assert host.image_to_pil(image).getpixel((0, 0)) == (255, 0, 0)


def test_several_portraits_and_strange_shapes_are_refused():
    with pytest.raises(InputError, match="got a batch of 3 portraits; one is drawn at a time: use Batch Cases"):
        host.image_to_pil(torch.zeros(3, 8, 8, 3))
    with pytest.raises(InputError, match=r"the picture has the shape \[8, 8, 2\]"):
        host.image_to_pil(torch.zeros(1, 8, 8, 2))


def test_pixels_of_networks_are_shown_and_stored():
    pixels = torch.tensor([-1.0, 0.0, 1.0]).reshape(1, 3, 1, 1)
    assert host.to_image(pixels).flatten().tolist() == [0, 0.5, 1]
    assert host.to_bytes(host.to_image(pixels)).tolist() == [[[[0, 128, 255]]]]


# The face.


def marked(rows, columns, height=64, width=64):
    mask = torch.zeros(1, height, width)
    mask[0, rows, columns] = 1
    return mask


def test_the_mask_wins_over_the_box_and_is_scaled_to_the_picture():
    mask = marked(slice(8, 16), slice(32, 48))
    assert host.face_box("1,2,3,4", mask, (64, 64)) == (32, 8, 48, 16)
    assert host.face_box("", mask[0], (128, 32)) == (64, 4, 96, 8)


def test_a_black_mask_says_nothing():
    assert host.face_box(" ", torch.zeros(1, 64, 64), (200, 100)) is None
    assert host.face_box("10, 20,30.5 ,40", torch.zeros(64, 64), (200, 100)) == (10, 20, 40.5, 60)


@pytest.mark.parametrize("box", ["1,2,3", "1,2,3,4,5", "left", "1;2;3;4", "1,2,3,x", "1e3,2,3,4"])
def test_other_boxes_are_refused(box):
    with pytest.raises(InputError, match=f"box is '{box}'; give x,y,width,height of the face in pixels, such as 120"):
        host.face_box(box, None, (64, 64))


def test_masks_of_several_pictures_are_refused():
    with pytest.raises(InputError, match="the face mask has 2 pictures; give the one that belongs to the portrait"):
        host.face_box("", torch.ones(2, 8, 8), (64, 64))


# The recording.


def test_a_recording_of_any_rate_and_channels_is_speech():
    heard = host.recording({"waveform": torch.rand(1, 2, 44_100) - 0.5, "sample_rate": 44_100})
    assert (heard.num_frames, heard.seconds, heard.waveform.shape) == (25, 1.0, (16_000,))


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (None, r"there is no sound \(0 samples\), as in a video without a track; connect Load Audio"),
        ({"waveform": None, "sample_rate": 1}, r"there is no sound \(0 samples\)"),
        ({"waveform": torch.zeros(3, 1, 16_000), "sample_rate": 16_000}, "got a batch of 3 recordings; one is spoken"),
        (
            {"waveform": torch.zeros(1, 1, 0), "sample_rate": 16_000},
            r"the recording has 0\.00 s of audio; at least 0\.2",
        ),
        ({"waveform": torch.zeros(1, 1, 1600), "sample_rate": 16_000}, r"the recording has 0\.10 s of audio"),
    ],
)
def test_what_cannot_be_spoken_is_refused(audio, message):
    with pytest.raises(InputError, match=message):
        host.recording(audio)


def test_sixteen_bit_waves_come_back_as_they_went(tmp_path, seed):
    samples = (torch.randint(-32767, 32768, (2, 500)) / 32767).numpy()
    host.write_wave(tmp_path / "a.wav", samples, 22_050)
    found, rate = host.read_wave(tmp_path / "a.wav")
    assert rate == 22_050 and found.shape == (2, 500)
    assert np.abs(found * 32768 / 32767 - samples).max() < 1e-6
    host.write_wave(tmp_path / "a.wav", [[2.0, -2.0, float("nan")]], 8000)
    assert (host.read_wave(tmp_path / "a.wav")[0] * 32768).round().tolist() == [[32767, -32767, 0]]


def test_the_samples_come_with_the_package():
    image, audio = host.sample_inputs()
    assert image.shape[0] == 1 and image.shape[3] == 3 and 0 <= image.min() < image.max() <= 1
    assert host.recording(audio).num_frames == 75


# The host itself.


def test_a_missing_package_is_one_line_that_says_what_to_do():
    with (
        pytest.raises(
            InputError, match=r'1 package is missing \(nopackage\); run `".+" -m pip install -r ".+requirements\.txt"`'
        ),
        needed_packages(),
    ):
        import nopackage  # noqa: F401


def test_a_package_that_does_not_fit_is_named_with_its_fault():
    told = r"1 package does not fit \(cannot import name 'nothing' from 'json'"
    with pytest.raises(InputError, match=told), needed_packages():
        from json import nothing  # noqa: F401


def test_other_errors_pass_through():
    with pytest.raises(KeyError), needed_packages():
        {}["x"]


@pytest.mark.parametrize(
    ("package", "use"),
    [("tokenizers", tokenizer._tokenizer.__wrapped__), ("imageio_ffmpeg", files.ffmpeg_command)],
)
def test_what_the_pack_brings_is_asked_for_where_it_is_imported(monkeypatch, package, use):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"1 package is missing \({package}\)"):
        use()


def test_out_of_memory_stays_of_its_kind_and_says_what_to_do():
    class FullError(RuntimeError):
        """As torch's."""

    told = "clip 3/12 at 512 x 384 px ran out of memory; choose a smaller width and height in ReferenceNet Encode, or"
    with pytest.raises(FullError, match=told) as caught, host.told_what_to_do(FullError, "clip 3/12", (512, 384)):
        raise FullError("tried to allocate 20 GiB")
    assert str(caught.value.__cause__) == "tried to allocate 20 GiB"
    told = "listening to 3.0 s of speech ran out of memory; give a shorter recording, or fp16 in Load TBD Model"
    with pytest.raises(FullError, match=told), host.told_what_to_do(FullError, "listening to 3.0 s of speech"):
        raise FullError("tried to allocate 20 GiB")
    with pytest.raises(KeyError), host.told_what_to_do((), "clip 1/1", (64, 64)):
        raise KeyError


def parts(bundle="mine.safetensors"):
    return host.Parts(None, Path(bundle), None, None, None)


def test_what_another_bundle_encoded_is_warned_of():
    mine, theirs = Path("mine.safetensors"), Path("their.safetensors")
    assert host.check_bundles(parts(), reference=mine, audio=mine) == ()
    told = host.check_bundles(parts(), reference=mine, audio=theirs)
    assert told == (
        "the audio was encoded by their.safetensors, the MODEL is mine.safetensors's; use one Load TBD Model for both",
    )


def test_only_the_line_meant_is_left_out_of_the_log(caplog):
    with host.hide_log_lines("No VAE weights"):
        logging.warning("WARNING: No VAE weights detected")
        logging.warning("something else")
    logging.warning("No VAE weights again")
    assert caplog.messages == ["something else", "No VAE weights again"]
    host.warn(["a", "b"])
    assert caplog.messages[2:] == ["a", "b"]


class Model:
    model = torch.nn.Identity()

    def get_attachment(self, key):
        return None


def test_another_hosts_model_is_told_apart():
    with pytest.raises(
        InputError, match="this MODEL is of type Identity, not Think-Before-Draw's; use Load TBD Model's"
    ):
        host.tbd_parts(Model())
