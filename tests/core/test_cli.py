"""The command line as a user meets it: exit codes, one line for what is wrong, JSON and nothing else on stdout."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from tbd_core.checkpoint import store
from tbd_core.cli import main, show_info
from tbd_core.config import TINY_BUNDLE
from tbd_core.parts import PartStore


ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "tbd_core" / "assets" / "sample"
PROMPT_KEYS = [
    "emotion", "intensity", "face", "action_units", "coarse", "fine", "negative", "tokens", "steps", "warnings",
]  # fmt: skip
pytestmark = pytest.mark.usefixtures("loaded_once")


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def refused(capsys, *arguments) -> str:
    code, out, err = run(capsys, *arguments)
    assert code == 2 and out == "" and err.count("\n") == 1 and "Traceback" not in err
    return err


@pytest.fixture
def files(tmp_path) -> Path:
    Image.new("RGB", (96, 96), "tan").save(tmp_path / "portrait.png")
    soundfile.write(tmp_path / "speech.wav", 0.1 * np.ones(8_000), 16_000)
    return tmp_path


def generate(files: Path, bundle: Path, **change) -> list:
    given = dict(
        portrait=files / "portrait.png", speech=files / "speech.wav", emotion="happy", intensity="mild", model=bundle,
        output=files / "out" / "talking.mp4", device="cpu", dtype="fp32",
    ) | change  # fmt: skip
    return ["generate", *(part for key, value in given.items() for part in (f"--{key}", value))]


def test_generate_prints_one_json_object_and_nothing_else(capsys, files, small_bundle, result_keys):
    code, out, _ = run(capsys, *generate(files, small_bundle), "--json")
    result = json.loads(out)
    assert code == 0 and out.count("\n") == 1
    assert list(result) == result_keys
    assert result["frames"] == 13 and Path(result["output"]).stat().st_size > 0


def test_generate_for_people_shows_prompts_and_progress(capsys, files, small_bundle):
    code, out, err = run(capsys, *generate(files, small_bundle))
    assert code == 0 and "stage 2: The facial expression shows" in out and "13 frames at 25 fps" in out
    assert "2/2" in err  # steps


def test_contact_sheet_lies_beside_the_video(capsys, files, small_bundle):
    run(capsys, *generate(files, small_bundle))
    code, out, _ = run(capsys, "contact-sheet", files / "out" / "talking.mp4")
    assert code == 0 and Path(out.strip()) == files / "out" / "talking.png"
    assert Image.open(out.strip()).size[0] > 64


def test_prompts_json_has_the_promised_keys(capsys):
    code, out, _ = run(capsys, "prompts", "--emotion", "ANGER", "--intensity", "level_3", "--json")
    result = json.loads(out)
    assert code == 0 and list(result) == PROMPT_KEYS
    assert (result["emotion"], result["intensity"], len(result["steps"])) == ("angry", "Intense", 4)
    assert {"number", "name", "level", "side", "muscles"} <= result["action_units"][0].keys()
    assert result["tokens"].keys() == {"coarse", "fine", "negative"}


def test_schedule_json_is_the_table(capsys):
    _, out, _ = run(
        capsys, "schedule", "--steps", "5", "--stages", "3", "--split", "0.3,0.6", "--blend", "smooth", "--json"
    )
    result = json.loads(out)
    assert list(result) == ["steps", "stages", "split", "blend", "weights"]
    assert len(result["weights"]) == 5 and all(abs(sum(row) - 1) < 1e-9 for row in result["weights"])


def test_info_counts_the_parameters_of_every_part(capsys, small_bundle):
    _, out, _ = run(capsys, "info", small_bundle, "--json")
    result = json.loads(out)
    assert result["name"] == "small" and result["config"]["defaults"]["steps"] == 2
    assert set(result["parameters"]) == {
        "vae", "text_encoder", "audio_encoder", "audioproj", "reference_unet", "denoising_unet"
    }  # fmt: skip
    code, out, _ = run(capsys, "info", small_bundle)
    assert code == 0 and "M parameters" in out


def test_info_says_what_a_bundle_that_was_trained_here_can_draw_and_of_no_other():
    result = {"file": "a.safetensors", "config": {"preset": "tiny", "defaults": {}}, "parameters": {}}
    said = "trained by `tbd train` on the project's own drawn faces: it draws such faces, not photographs"
    assert said in show_info({**result, **store.read_about(TINY_BUNDLE)}) and said not in show_info(result)


@pytest.mark.parametrize("command", ["prompts --emotion sad", "schedule --steps 20", "info BUNDLE"])
def test_light_commands_start_without_torch(command, small_bundle):
    code = (
        "import sys; from tbd_core.cli import main; code = main(sys.argv[1:]);"
        "sys.exit(code or 10 * ('torch' in sys.modules))"
    )
    words = command.replace("BUNDLE", str(small_bundle)).split()
    assert subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True).returncode == 0


# Bad input. What the portrait, speech and schedule modules say in detail is tested there; here: the way to the user.


def cut(path: Path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def test_missing_and_empty_files(capsys, files, small_bundle):
    assert "none.png does not exist" in refused(capsys, *generate(files, small_bundle, portrait=files / "none.png"))
    assert "none.wav does not exist" in refused(capsys, *generate(files, small_bundle, speech=files / "none.wav"))
    (files / "empty").touch()
    assert "empty is empty (0 bytes)" in refused(capsys, *generate(files, small_bundle, portrait=files / "empty"))
    assert "empty is empty (0 bytes)" in refused(capsys, *generate(files, small_bundle, speech=files / "empty"))
    assert "is a folder" in refused(capsys, *generate(files, small_bundle, portrait=files))


def test_wrong_types(capsys, files, small_bundle):
    assert "speech.wav" in refused(capsys, *generate(files, small_bundle, portrait=files / "speech.wav"))
    assert "portrait.png" in refused(capsys, *generate(files, small_bundle, speech=files / "portrait.png"))


def test_truncated_files(capsys, files, small_bundle):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (96, 96, 3), dtype=np.uint8)).save(files / "noise.png")
    cut(files / "noise.png", 0.5)
    assert "noise.png" in refused(capsys, *generate(files, small_bundle, portrait=files / "noise.png"))
    cut(files / "speech.wav", 0.5)
    assert "truncated" in refused(capsys, *generate(files, small_bundle))


def test_sizes_lengths_and_samples(capsys, files, small_bundle):
    Image.new("RGB", (40, 60)).save(files / "small.png")
    assert "40 x 60 px" in refused(capsys, *generate(files, small_bundle, portrait=files / "small.png"))
    soundfile.write(files / "short.wav", np.zeros(320), 16_000)
    assert "0.02 s of audio; at least 0.2 s" in refused(
        capsys, *generate(files, small_bundle, speech=files / "short.wav")
    )
    samples = np.zeros(8_000, dtype=np.float32)
    samples[:3] = np.nan
    soundfile.write(files / "nan.wav", samples, 16_000, subtype="FLOAT")
    assert "nan.wav has 3 samples" in refused(capsys, *generate(files, small_bundle, speech=files / "nan.wav"))


def test_models_that_are_none(capsys, files, small_bundle):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3)}, files / "foreign.safetensors")
    said = refused(capsys, *generate(files, files / "foreign.safetensors"))
    assert "1 tensors but no Think-Before-Draw header" in said
    (files / "cut.safetensors").write_bytes(small_bundle.read_bytes()[:-100])
    size = small_bundle.stat().st_size
    assert f"has {size - 100} bytes but its header promises {size}" in refused(
        capsys, *generate(files, files / "cut.safetensors")
    )
    assert "is not a safetensors file" in refused(capsys, *generate(files, files / "portrait.png"))
    assert "does not exist" in refused(capsys, "info", files / "none.safetensors")


def test_outputs_that_cannot_be_written(capsys, files, small_bundle):
    assert "is a folder" in refused(capsys, *generate(files, small_bundle, output=files))
    assert ".mp4" in refused(capsys, *generate(files, small_bundle, output=files / "talking.gif"))
    inside = files / "portrait.png" / "talking.mp4"
    assert "cannot be written" in refused(capsys, *generate(files, small_bundle, output=inside))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("generate", "--portrait"),
        ("prompts --emotion hapy", "'hapy'"),
        ("prompts --emotion sad --intensity huge", "'huge'"),
        ("prompts --emotion sad --style loud", "'loud'"),
        ("schedule --steps 0", "steps is 0"),
        ("schedule --steps 1001", "steps is 1001; at most 1000"),
        ("schedule --steps 2 --stages 3", "3 stages do not fit into 2 steps"),
        ("schedule --steps 9 --split 1.5", "1.5"),
        ("schedule --steps 9 --stages 3 --split 0.6,0.3", "0.6"),
        ("schedule --steps 9 --split a,b", "'a,b'"),
        ("schedule --steps nine", "'nine'"),
        ("schedule --steps 9 --blend soft", "'soft'"),
        ("schedule --steps 9 --progress back", "'back'"),
        ("train --recipe long", "'long'"),
        ("train --recipe smoke --seed -1", "--seed is -1; give a whole number from 0 to 2147483647"),
        ("train --recipe smoke --device tpu --folder /dev/null/no", "/dev/null/no"),
        ("contact-sheet none.mp4", "none.mp4"),
        ("dance", "'dance'"),
        ("", "COMMAND"),
    ],
)
def test_wrong_words_are_one_line_and_exit_code_2(capsys, words, message):
    assert message in refused(capsys, *words.split())


def assert_clips_alone_are_kept(folder: Path, err: str) -> None:
    assert "interrupted" in err.splitlines()[-1] and "Traceback" not in err
    names = sorted(path.name.split("-")[0] for path in folder.iterdir())
    assert names == ["talking.mp4.parts"]


def test_an_interrupt_ends_with_130_and_keeps_no_half_video(capsys, files, small_bundle, monkeypatch):
    save = PartStore.save

    def save_and_press(*part):
        save(*part)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(PartStore, "save", save_and_press)
    soundfile.write(files / "speech.wav", 0.1 * np.ones(16_000), 16_000)  # two clips
    code, out, err = run(capsys, *generate(files, small_bundle))
    assert code == 130 and out == ""
    assert_clips_alone_are_kept(files / "out", err)
    assert len(list((files / "out").glob("*.parts-*/clip_*.npz"))) == 1


@pytest.mark.slow  # another process imports torch, diffusers and transformers
def test_an_interrupted_process_ends_with_130_and_keeps_no_half_video(files, small_bundle):
    soundfile.write(files / "speech.wav", 0.1 * np.ones(16_000 * 30), 16_000)
    arguments = [str(part) for part in generate(files, small_bundle)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tbd_core", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    folder = files / "out"
    deadline = time.monotonic() + 180
    while not (folder.exists() and any(folder.glob("*.parts-*/clip_?????.npz"))) and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and out == ""
    assert_clips_alone_are_kept(folder, err)


def test_the_sample_inputs_ship_and_are_sound():
    from tbd_core.portrait import check_portrait
    from tbd_core.speech import check_speech

    assert min(check_portrait(SAMPLE / "portrait.png")) >= 128
    assert 2 <= check_speech(SAMPLE / "speech.wav").seconds <= 4
