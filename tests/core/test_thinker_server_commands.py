"""The commands and the pipeline with a thinker behind HTTP: what it sees, and that no run is lost."""

import base64
import io
import json
import runpy
from operator import itemgetter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from tbd_core import estimate, pipeline
from tbd_core.cli import main
from tbd_core.config import GenerateOptions
from tbd_core.cot_fa.think import think
from tbd_core.errors import InputError
from tbd_core.pipeline import plan


HOSTING = runpy.run_path(str(Path(__file__).with_name("thinker_host.py")))
Host, events, stream, unused_port = itemgetter("Host", "events", "stream", "unused_port")(HOSTING)


@pytest.fixture
def host():
    host = Host()
    yield host
    host.close()


def command(capsys, *arguments) -> tuple[int, dict, str]:
    code = main([*map(str, arguments), "--json"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out or "{}"), captured.err


@pytest.fixture
def files(tmp_path):
    Image.new("RGB", (96, 80), "tan").save(tmp_path / "face.png")
    soundfile.write(tmp_path / "speech.wav", 0.1 * np.ones(8_000), 16_000)
    return tmp_path


def test_the_prompts_command_lets_the_server_see_the_portrait(host, files, capsys):
    host.reply = stream(*events('{"subject": "a man in a brown hat", "face": ""}'))
    thinker = ("--thinker", "server", "--thinker-url", host.url, "--thinker-model", "seer-of-prompts")
    code, result, _ = command(capsys, "prompts", "--emotion", "sad", "--portrait", files / "face.png", *thinker)
    assert code == 0 and result["coarse"].startswith("A man in a brown hat is speaking")
    assert result["face"]["by"] == "seer-of-prompts at 127.0.0.1" and len(result["warnings"]) == 3
    head, data = host.requests[0]["messages"][0]["content"][0]["image_url"]["url"].split(",")
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (96, 80)


def test_a_video_is_made_though_the_server_is_gone(files, small_bundle, capsys):
    code, result, _ = command(
        capsys, "generate", "--portrait", files / "face.png", "--speech", files / "speech.wav", "--emotion", "happy",
        "--model", small_bundle, "--device", "cpu", "--dtype", "fp32", "--output", files / "out.mp4", "--thinker",
        "server", "--thinker-url", f"http://127.0.0.1:{unused_port()}", "--thinker-model", "seer",
    )  # fmt: skip
    assert code == 0 and (files / "out.mp4").stat().st_size > 0
    gone = [text for text in result["warnings"] if "cannot be reached" in text]
    assert len(gone) == 1 and "step I (face) is by the rules and all that follow" in gone[0]
    assert result["prompts"]["fine"] == think("happy").prompts.fine


def test_a_face_that_was_chosen_is_what_the_server_sees(host, files, small_bundle):
    host.reply = stream(*events("no"))
    options = GenerateOptions(
        portrait=files / "face.png", speech=files / "speech.wav", output=files / "out.mp4", model=small_bundle,
        face="10,10,40,40", face_margin=0.0, thinker="server", thinker_url=host.url, thinker_model="seer",
    )  # fmt: skip
    assert len([text for text in plan(options).warnings if "by the rules" in text]) >= 3
    _, data = host.requests[0]["messages"][0]["content"][0]["image_url"]["url"].split(",")
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (40, 40)


@pytest.mark.parametrize(("free", "asked"), [(1_000_000, False), (10**12, True)])
def test_a_drawing_without_room_is_refused_before_the_server_is_asked(
    host, files, small_bundle, monkeypatch, free, asked
):
    class LoadedError(Exception):
        pass

    def load(*_):
        raise LoadedError

    host.reply = stream(*events("no"))
    monkeypatch.setattr(pipeline.store, "load", load)
    monkeypatch.setattr(estimate, "free_memory", lambda device: free)
    options = GenerateOptions(
        portrait=files / "face.png", speech=files / "speech.wav", output=files / "out.mp4", model=small_bundle,
        device="cpu", thinker="server", thinker_url=host.url, thinker_model="seer-of-room",
    )  # fmt: skip
    told = []
    with pytest.raises(LoadedError if asked else InputError, match=None if asked else "of which 1 MB are free"):
        pipeline.generate(options, on_estimate=lambda said: told.append((said, len(host.requests))))
    assert [before for _, before in told] == ([0] if asked else [])
    assert bool(host.requests) is asked


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--thinker", "oracle"), "thinker is 'oracle'; choose rules, server, vlm"),
        (("--thinker", "server"), "thinker-model is blank (0 characters)"),
        (("--thinker-url", "http://box"), "thinker-url is given, but the thinker is rules"),
        (("--thinker", "vlm", "--thinker-model", "/nowhere"), "thinker-model /nowhere is not a folder"),
    ],
)
def test_a_wrong_thinker_is_one_line(capsys, given, message):
    code, result, said = command(capsys, "prompts", "--emotion", "happy", *given)
    assert code == 2 and result == {} and said.count("\n") == 1 and message in said
