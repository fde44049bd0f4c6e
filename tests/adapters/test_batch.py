"""Batch Cases, the node: what it hands on, how it ends, and when it runs again."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from tbd_core.facs.emotions import EMOTIONS, INTENSITIES


ALL = dict(portraits="", speeches="", emotions="all", intensities="all", csv="")


@pytest.fixture
def batch(pack):
    from tbd_pack.nodes import batch

    return batch


@pytest.fixture
def node(batch, tmp_path, monkeypatch):
    """The node over a small input folder; pictures and sounds are only passed on."""
    for name, colour in (("anna.png", "red"), ("bob.png", "blue")):
        Image.new("RGB", (64, 80), colour).save(tmp_path / name)
    (tmp_path / "hi.wav").write_bytes(b"x")
    bridge = SimpleNamespace(
        input_folder=lambda: tmp_path,
        pil_to_image=lambda image: ("image", image.size, image.getpixel((0, 0))),
        load_audio=lambda path: {"from": Path(path).name},
    )
    monkeypatch.setattr(batch, "comfy_bridge", bridge)
    return batch.TBDBatchCases


def fault(batch, **wanted):
    """The error of one run, as the pack's own kind of it."""
    with pytest.raises(ValueError) as caught:
        batch.TBDBatchCases.execute(**(ALL | wanted))
    assert type(caught.value).__name__ == "InputError"
    return str(caught.value)


def test_the_bridge_has_what_the_node_asks_of_it(batch):
    assert all(callable(getattr(batch.comfy_bridge, name)) for name in ("input_folder", "pil_to_image", "load_audio"))


def test_a_case_is_handed_on_with_its_files_its_words_and_its_name(node):
    given = ALL | dict(portraits="anna.png\nbob.png", speeches="hi.wav", emotions="joy, neutral", intensities="1,3")
    found = [node.execute(**given, index=i).result for i in range(6)]
    assert [(row[0][2], *row[2:]) for row in found[2:4]] == [
        ((255, 0, 0), "neutral", "Moderate", "video/0002_anna_hi_neutral", "3 of 6: anna.png, hi.wav, neutral", 6),
        ((0, 0, 255), "happy", "Mild", "video/0003_bob_hi_happy_Mild", "4 of 6: bob.png, hi.wav, happy, Mild", 6),
    ]
    assert all(row[0][1] == (64, 80) and row[1] == {"from": "hi.wav"} for row in found)


def test_incrementing_ends_with_an_error_that_stops_the_queue(node, batch):
    assert fault(batch, index=22) == "all 22 cases done; set index to 0 to begin again"


def test_a_broken_portrait_is_said_in_one_line(node, batch, tmp_path):
    (tmp_path / "bob.png").write_bytes((tmp_path / "bob.png").read_bytes()[:60])
    assert fault(batch, portraits="bob.png", index=0).startswith("bob.png is damaged or truncated")


def test_a_csv_is_found_in_the_input_folder(node, tmp_path):
    (tmp_path / "cases.csv").write_text("portrait,speech,emotion,intensity\nbob.png,hi.wav,fear,2\n")
    row = node.execute(**(ALL | dict(csv="cases.csv")), index=0).result
    assert row[2:] == (
        "fear",
        "Moderate",
        "video/0000_bob_hi_fear_Moderate",
        "1 of 1: bob.png, hi.wav, fear, Moderate",
        1,
    )


def test_the_sample_s_emotions_go_straight_into_the_prompt_builder(node):
    found = {node.execute(**ALL, index=i).result[2:4] for i in range(22)}
    assert found == {(e, i) for e in EMOTIONS[:-1] for i in INTENSITIES} | {("neutral", "Moderate")}
    told = node.GET_NODE_INFO_V1()
    kinds = dict(zip(told["output_name"], told["output"], strict=True))
    assert kinds["emotion"] == kinds["intensity"] == "*"  # a STRING connects to no list


def test_the_node_runs_again_when_a_file_of_its_case_changed_and_never_fails_to_say_so(node, tmp_path):
    given = ALL | dict(portraits="anna.png\nbob.png", speeches="hi.wav", emotions="sad", intensities="1")
    seen = [node.fingerprint_inputs(**given, index=i) for i in (0, 1)]
    assert seen == [node.fingerprint_inputs(**given, index=i) for i in (0, 1)] and seen[0] != seen[1]
    Image.new("RGB", (64, 90), "green").save(tmp_path / "bob.png")
    assert node.fingerprint_inputs(**given, index=0) == seen[0]
    assert node.fingerprint_inputs(**given, index=1) != seen[1]
    assert node.fingerprint_inputs(**(given | dict(portraits="gone.png")), index=0).startswith("1 fault in the batch")
    # Linked inputs are not known yet when ComfyUI asks.
    assert node.fingerprint_inputs(**dict.fromkeys(ALL), index=None) == node.fingerprint_inputs(**ALL, index=None)


def test_the_index_increments_and_every_input_says_what_it_does(node):
    inputs = {one.id: one for one in node.GET_SCHEMA().inputs}
    assert list(inputs) == [*ALL, "index"]
    assert inputs["index"].control_after_generate is True and inputs["index"].min == 0
    assert all(one.tooltip for one in inputs.values())
    assert all(inputs[name].dynamic_prompts is False for name in ALL)  # braces are part of some file names


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("No audio stream found in the file."), "No audio stream found in the file."),
        (None, "Invalid data found when processing input"),  # the reader's own
    ],
)
def test_a_file_without_sound_is_said_with_its_name(batch, tmp_path, monkeypatch, error, told):
    import comfy_extras.nodes_audio

    path = tmp_path / "silent.mp4"
    path.write_bytes(b"no sound")
    if error is not None:

        def load(path):
            raise error

        monkeypatch.setattr(comfy_extras.nodes_audio, "load", load)
    with pytest.raises(
        ValueError, match=rf"silent\.mp4 has no sound that can be read \(.*{told}\); give a WAV"
    ) as caught:
        batch.comfy_bridge.load_audio(path)
    assert type(caught.value).__name__ == "InputError"
