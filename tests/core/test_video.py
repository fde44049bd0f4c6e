"""Videos are whole or absent, sound ends with the picture, and what was stored can be read back."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile
from PIL import Image

from tbd_core.errors import InputError
from tbd_core.files import ffmpeg_command, metadata_tags, metadata_text
from tbd_core.parts import PartStore
from tbd_core.video import VideoWriter, check_output, contact_sheet, probe, read_metadata


def frames_of(count, width=64, height=48):
    """Frames [F, H, W, 3] whose brightness rises with their number."""
    levels = np.linspace(20, 220, count).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()


@pytest.fixture
def speech(tmp_path):
    rate, path = 44_100, tmp_path / "speech.wav"
    wave = 0.5 * np.sin(2 * np.pi * 300 * np.arange(rate) / rate)  # one second
    soundfile.write(path, np.stack([wave, 0.5 * wave], axis=1), rate)
    return path


def names(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("count", [1, 7, 25, 40])
def test_sound_is_cut_or_padded_to_end_with_the_picture(tmp_path, speech, count):
    out = tmp_path / "new folder" / "out.mp4"
    with VideoWriter(out, 64, 48, 25, speech, {}) as video:
        for frame in frames_of(count):
            video.write(frame[None])
    facts = probe(out)
    assert (facts["width"], facts["height"], facts["fps"], facts["frames"]) == (64, 48, 25.0, count)
    assert facts["seconds"] == pytest.approx(count / 25)
    assert facts["has_audio"]
    assert abs(facts["audio_seconds"] - count / 25) < 1 / 25
    assert names(out.parent) == ["out.mp4"]


def test_sound_keeps_its_channels_and_content(tmp_path, speech):
    out, back = tmp_path / "out.mp4", tmp_path / "back.wav"
    with VideoWriter(out, 64, 48, 25, speech, {}) as video:
        video.write(frames_of(25))
    subprocess.run(ffmpeg_command("-i", out, back), check=True)
    wave, rate = soundfile.read(back)
    assert (rate, wave.shape[1]) == (48_000, 2)
    middle = wave[10_000:40_000]
    assert middle[:, 0].max() == pytest.approx(0.5, abs=0.05)
    assert middle[:, 1].max() == pytest.approx(0.25, abs=0.05)
    spectrum = np.abs(np.fft.rfft(middle[:, 0]))
    assert spectrum.argmax() * rate / len(middle) == pytest.approx(300, abs=3)


def test_a_waveform_at_16_khz_can_be_the_sound(tmp_path):
    torch = pytest.importorskip("torch")
    with VideoWriter(tmp_path / "out.mp4", 64, 48, 25, torch.zeros(16_000), {}) as video:
        video.write(frames_of(25))
    assert probe(tmp_path / "out.mp4")["audio_seconds"] == pytest.approx(1.0, abs=0.04)
    assert names(tmp_path) == ["out.mp4"]


def test_pictures_come_back_in_their_colours_and_order(tmp_path):
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]], np.uint8)
    with VideoWriter(tmp_path / "out.mp4", 64, 48) as video:
        video.write(np.broadcast_to(colours[:, None, None], (3, 48, 64, 3)))
    assert not probe(tmp_path / "out.mp4")["has_audio"]
    sheet = np.asarray(Image.open(contact_sheet(tmp_path / "out.mp4", tmp_path / "sheet.png")), dtype=int)
    assert sheet.shape == (48, 3 * 64, 3)
    for i, colour in enumerate(colours):
        assert np.abs(sheet[24, 64 * i + 32] - colour).max() <= 6


def test_metadata_comes_back_as_it_was_given(tmp_path):
    given = {
        "seed": 7,
        "prompts": {"coarse": 'a = b; c # d \\ "e"\nzweite Zeile 喜'},
        "model": "tiny",
        "version": "0.1.0",
    }
    with VideoWriter(tmp_path / "out.mp4", 64, 48, 25, None, given) as video:
        video.write(frames_of(2))
    stored = read_metadata(tmp_path / "out.mp4")
    assert stored.pop("synthetic") is True
    assert "synthetic" in stored.pop("title")
    assert stored == given
    assert "zweite Zeile 喜".encode() in (tmp_path / "out.mp4").read_bytes()  # no \\u escapes for other programs


@pytest.mark.parametrize(
    "text",
    [
        "=;#\\\n",
        "\\",
        "\\\\\n\r\n\t\0",
        "'\"\\'",
        ";FFMETADATA1\n[STREAM]\n#a=b",
        "é喜😀\u2028",
        "\udc80",
        "ab喜;\\\n" * 10_000,
    ],
    ids=["syntax", "backslash", "controls", "quotes", "headings", "unicode", "surrogate", "long"],
)
def test_any_text_comes_back_whatever_its_length(tmp_path, text):
    given = {"title": text.replace("\0", ""), "prompt": text, text: 1}
    with VideoWriter(tmp_path / "out.mp4", 64, 48, 25, None, given) as video:
        video.write(frames_of(1))
    assert read_metadata(tmp_path / "out.mp4") == {**given, "synthetic": True}


@pytest.mark.parametrize("tags", [{"a": "b"}, {"a;b=c#d\\e\nf": "g\nh=i;j#k\\", "l": ""}])
def test_ffmetadata_comes_back(tags):
    assert metadata_tags(metadata_text(tags)) == tags


def test_the_video_carries_no_tags_or_chapters_of_the_recording(tmp_path, speech):
    tagged = tmp_path / "tagged.m4a"
    text = ";FFMETADATA1\nartist=Somebody\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=500\ntitle=Chapter one\n"
    (tmp_path / "tags.txt").write_text(text)
    subprocess.run(
        ffmpeg_command("-i", speech, "-i", tmp_path / "tags.txt", "-map_metadata", 1, "-metadata:s:a",
                       "handler_name=Someone", tagged), check=True,
    )  # fmt: skip
    assert b"Chapter one" in tagged.read_bytes() and b"Someone" in tagged.read_bytes()
    with VideoWriter(tmp_path / "out.mp4", 64, 48, 25, tagged) as video:
        video.write(frames_of(25))
    data = (tmp_path / "out.mp4").read_bytes()
    assert not [tag for tag in (b"Chapter one", b"Somebody", b"Someone") if tag in data]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
@pytest.mark.parametrize("name", ["12:30.mp4", "-x.mp4", "pipe:1.mp4", "%03d.mp4", "喜 'a\".mp4", "x" * 251 + ".mp4"])
def test_no_name_is_an_option_a_protocol_or_too_long(tmp_path, monkeypatch, speech, name):
    monkeypatch.chdir(tmp_path)
    check_output(name)
    with VideoWriter(name, 64, 48, 25, speech) as video:
        video.write(frames_of(3))
    assert names(tmp_path) == sorted([name, "speech.wav"])
    assert probe(name)["frames"] == 3
    assert read_metadata(name)["synthetic"] is True
    with VideoWriter("out.mp4", 64, 48, 25, name) as video:  # as an input, too
        video.write(frames_of(3))
    assert probe("out.mp4")["has_audio"]
    contact_sheet(name, "sheet.png")


def test_the_work_lies_in_the_folder_given_and_nothing_of_it_stays(tmp_path):
    out, folder = tmp_path / "new" / "out.mp4", tmp_path / "new" / "parts"
    with VideoWriter(out, 64, 48, 25, np.zeros(16_000), folder=folder) as video:
        video.write(frames_of(3))
        assert names(tmp_path / "new") == ["parts"]
        assert [name[:6] for name in names(folder)] == ["video-"]
    assert names(tmp_path / "new") == ["out.mp4", "parts"]
    assert names(folder) == []


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for ffmpeg is a shell script")
def test_a_run_killed_while_muxing_leaves_all_in_the_folder_given(tmp_path, monkeypatch):
    """A stand-in for ffmpeg writes half of the second pass, and kills the run."""
    real, ffmpeg = imageio_ffmpeg.get_ffmpeg_exe(), tmp_path / "ffmpeg"
    ffmpeg.write_text(
        f'#!/bin/sh\nfor last; do :; done\ncase "$last" in *silent.mp4) exec "{real}" "$@";; esac\n'
        'echo half >"${last#file:}"\nkill -9 $PPID\n'
    )
    ffmpeg.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(ffmpeg))
    program = (
        "import numpy as np\nfrom tbd_core.parts import PartStore\nfrom tbd_core.video import VideoWriter\n"
        "with PartStore('out.mp4', {}) as parts:\n"
        "    parts.save(0, np.zeros(1), np.zeros(1))\n"
        "    with VideoWriter('out.mp4', 64, 48, folder=parts.folder) as video:\n"
        "        video.write(np.zeros((2, 48, 64, 3), np.uint8))\n"
    )
    (tmp_path / "out").mkdir()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path / "out", env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    store = PartStore(tmp_path / "out" / "out.mp4", {})
    assert names(tmp_path / "out") == [store.folder.name]
    assert len(names(store.folder)) == 3  # clip, lock and the work
    with store:
        assert names(store.folder) == ["clip_00000.npz", "lock"]
        store.delete()
    assert names(tmp_path / "out") == []


def test_the_old_video_stays_until_the_new_one_is_whole(tmp_path):
    out = tmp_path / "out.mp4"
    out.write_bytes(b"the old one")
    with VideoWriter(out, 64, 48) as video:
        video.write(frames_of(5))
        assert out.read_bytes() == b"the old one"
    assert probe(out)["frames"] == 5


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, InputError])
def test_nothing_stays_when_the_block_is_left_by_an_exception(tmp_path, error):
    with pytest.raises(error, match="stop"), VideoWriter(tmp_path / "out.mp4", 64, 48) as video:
        video.write(frames_of(5))
        raise error("stop")
    assert names(tmp_path) == []


def test_a_video_without_frames_is_a_programming_error_and_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="no frames"), VideoWriter(tmp_path / "out.mp4", 64, 48):
        pass
    assert names(tmp_path) == []


def test_frames_of_another_shape_or_type_are_refused(tmp_path):
    for frames in (frames_of(2, 32, 48), frames_of(2).astype(np.float32)):
        with (
            pytest.raises(ValueError, match=r"wanted uint8 \(F, 48, 64, 3\)"),
            VideoWriter(tmp_path / "out.mp4", 64, 48) as video,
        ):
            video.write(frames)
    with pytest.raises(ValueError, match="must be even"):
        VideoWriter(tmp_path / "out.mp4", 63, 48)


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for ffmpeg is a shell script")
@pytest.mark.parametrize("reads", ["head -c 100 >/dev/null", "cat >/dev/null"])
def test_a_full_disk_is_said_in_one_line_and_leaves_nothing(tmp_path, monkeypatch, reads):
    full = tmp_path / "ffmpeg"
    # Writes half a file where the output should go, then gives up as ffmpeg does.
    full.write_text(
        f'#!/bin/sh\nfor last; do :; done\necho half >"${{last#file:}}"\n{reads}\n'
        'echo "[mp4] No space left on device" >&2\nexit 1\n'
    )
    full.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(full))
    (tmp_path / "out").mkdir()
    with (
        pytest.raises(InputError, match=r"out.mp4 could not be written \(No space left on device\)") as caught,
        VideoWriter(tmp_path / "out" / "out.mp4", 640, 480) as video,
    ):
        for _ in range(4):
            video.write(frames_of(4, 640, 480))
    assert "\n" not in str(caught.value)
    assert names(tmp_path / "out") == []


def test_unreadable_sound_is_said_and_leaves_nothing(tmp_path):
    (tmp_path / "bad.wav").write_text("no sound")
    with (
        pytest.raises(InputError, match=r"out.mp4 could not be written"),
        VideoWriter(tmp_path / "out.mp4", 64, 48, 25, tmp_path / "bad.wav") as video,
    ):
        video.write(frames_of(2))
    assert names(tmp_path) == ["bad.wav"]


@pytest.mark.parametrize(("count", "size"), [(30, (4 * 64, 2 * 48)), (5, (4 * 64, 2 * 48)), (2, (2 * 64, 48))])
def test_a_contact_sheet_shows_frames_from_first_to_last(tmp_path, count, size):
    with VideoWriter(tmp_path / "out.mp4", 64, 48) as video:
        video.write(frames_of(count))
    sheet = Image.open(contact_sheet(tmp_path / "out.mp4", tmp_path / "new" / "sheet.png", columns=4, rows=2)).convert(
        "L"
    )
    assert sheet.size == size
    shown = min(count, 8)
    levels = [sheet.getpixel((64 * (i % 4) + 32, 48 * (i // 4) + 24)) for i in range(shown)]
    assert levels == sorted(levels)
    assert levels[0] == pytest.approx(20, abs=4)
    assert levels[-1] == pytest.approx(220, abs=4)
    assert names(tmp_path / "new") == ["sheet.png"]


def test_what_is_no_video_is_refused(tmp_path, speech):
    (tmp_path / "text.mp4").write_text("no video" * 99)
    for path, message in [
        (tmp_path / "none.mp4", "none.mp4 does not exist"),
        (tmp_path, "is a folder"),
        (tmp_path / "text.mp4", "text.mp4 is not a video"),
        (speech, "speech.wav is not a video"),
    ]:
        with pytest.raises(InputError, match=message):
            probe(path)
        with pytest.raises(InputError, match=message):
            contact_sheet(path, tmp_path / "sheet.png")
    with pytest.raises(InputError, match="text.mp4 is not a video"):
        read_metadata(tmp_path / "text.mp4")
    assert not (tmp_path / "sheet.png").exists()


def test_a_contact_sheet_never_takes_its_videos_place(tmp_path):
    picture, video = tmp_path / "p.png", tmp_path / "out.mp4"
    Image.new("RGB", (64, 48)).save(picture)
    with VideoWriter(video, 64, 48) as writer:
        writer.write(frames_of(1))
    os.link(picture, tmp_path / "other.png")
    before = picture.read_bytes(), video.read_bytes()
    for source, output, message in [
        (picture, picture, "p.png is also the video; give another output"),
        (picture, tmp_path / "other.png", "other.png is also the video; give another output"),
        (video, video, "out.mp4 ends in '.mp4'; give a name that ends in .png"),
        (video, tmp_path / "sheet.jpg", "sheet.jpg ends in '.jpg'; give a name that ends in .png"),
        (video, tmp_path / "none" / "sheet", "sheet ends in 'nothing'; give a name that ends in .png"),
        (video, tmp_path, "is a folder; give a file name such as"),
    ]:
        with pytest.raises(InputError, match=message):
            contact_sheet(source, output)
    assert (picture.read_bytes(), video.read_bytes()) == before
    assert names(tmp_path) == ["other.png", "out.mp4", "p.png"]


def test_outputs_that_can_be_written_pass_and_leave_nothing(tmp_path):
    assert check_output(tmp_path / "a" / "b" / "out.MP4") == tmp_path / "a" / "b" / "out.MP4"
    assert names(tmp_path) == []


def test_outputs_that_cannot_be_written_are_refused(tmp_path):
    (tmp_path / "file.txt").touch()
    (tmp_path / "folder.mp4").mkdir()
    for path, message in [
        (tmp_path, "is a folder; give a file name"),
        (tmp_path / "folder.mp4", "folder.mp4 is a folder"),
        (tmp_path / "out.avi", "out.avi ends in '.avi'; give a name that ends in .mp4"),
        (tmp_path / "out", "out ends in 'nothing'"),
        (tmp_path / "file.txt" / "out.mp4", r"out.mp4 cannot be written \(Not a directory\)"),
        (tmp_path / ("x" * 252 + ".mp4"), r"cannot be written \(File name too long\)"),
        (tmp_path / "new" / ("x" * 252 + ".mp4"), r"cannot be written \(File name too long\)"),
        (tmp_path / ("x" * 256) / "out.mp4", r"cannot be written \(File name too long\)"),
    ]:
        with pytest.raises(InputError, match=message):
            check_output(path)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_folder_that_is_a_link_to_nothing_is_refused(tmp_path):
    (tmp_path / "link").symlink_to("gone")
    for path in (tmp_path / "link" / "out.mp4", tmp_path / "link" / "deeper" / "out.mp4"):
        with pytest.raises(InputError, match="link is a link to gone, which does not exist; choose another place"):
            check_output(path)
    (tmp_path / "gone").mkdir()
    check_output(tmp_path / "link" / "out.mp4")
    assert names(tmp_path) == ["gone", "link"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that nobody can write to")
def test_read_only_places_are_refused():
    with pytest.raises(InputError, match=r"out.mp4 cannot be written"):
        check_output("/proc/out.mp4")


def test_a_place_that_is_taken_meanwhile_is_said_and_leaves_nothing(tmp_path):
    out = tmp_path / "out.mp4"
    with pytest.raises(InputError, match="out.mp4 could not be written"), VideoWriter(out, 64, 48) as video:
        video.write(frames_of(2))
        out.mkdir()
    assert names(tmp_path) == ["out.mp4"]
