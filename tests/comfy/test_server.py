"""The pack in a ComfyUI that runs as people run it: every workflow queued, its video probed; cache, queue, cancel."""

import copy
import json
import re
import runpy
import time
import wave
from fractions import Fraction
from pathlib import Path

import pytest


pytestmark = pytest.mark.comfy

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RUNNING = runpy.run_path(str(HERE / "running.py"))
PACK, Refused = RUNNING["PACK"], RUNNING["RefusedError"]
IMPORT_SECONDS, INFERENCE_SECONDS, CANCEL_SECONDS = 0.15, 90, 2
QUICK = {"steps": 2, "guidance": 1.0}  # one for each prompt


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with RUNNING["Server"](tmp_path_factory.mktemp("comfyui")) as running:
        yield running


@pytest.fixture(scope="module")
def frames() -> int:
    """How many frames the sample speech has: its length at 25 a second."""
    with wave.open(str(RUNNING["SAMPLE"] / "speech.wav")) as file:
        return int(25 * file.getnframes() / file.getframerate() + 0.5)


def twin(name: str) -> dict:
    return json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text("utf-8"))


def ids(graph: dict, *types: str) -> list[str]:
    return [id for id, node in graph.items() if node["class_type"] in types]


def changed(graph: dict, type_: str, **inputs) -> dict:
    """The graph with other values in all nodes of one type."""
    graph = copy.deepcopy(graph)
    for id in ids(graph, type_):
        assert inputs.keys() <= graph[id]["inputs"].keys()
        graph[id]["inputs"] |= inputs
    return graph


def ran(graph: dict, result: dict) -> set[str]:
    """The types of the nodes that were not taken from the cache."""
    cached = {id for said in RUNNING["said"](result, "execution_cached") for id in said["nodes"]}
    return {node["class_type"] for id, node in graph.items() if id not in cached}


def finished(server, graph: dict, seconds: float = 300) -> dict:
    result = server.result(server.queue(graph), seconds)
    assert result["status"]["status_str"] == "success", result["status"]["messages"]
    return result


def probe(path: Path) -> dict:
    import av

    with av.open(str(path)) as file:
        video, sound = file.streams.video[0], file.streams.audio
        size, rate = (video.width, video.height), video.average_rate
        heard = [float(one.duration * one.time_base) for one in sound]
        return {"size": size, "fps": rate, "frames": sum(1 for _ in file.decode(video=0)), "sound": heard}


def only_video(server, result: dict) -> Path:
    (path,) = (one for one in RUNNING["result_files"](result, server.folder) if one.suffix == ".mp4")
    return path


def assert_speaks(path: Path, frames: int, wide: int = 1) -> None:
    """25 frames a second, as many as asked for, `wide` squares side by side, with sound as long as the pictures."""
    found = probe(path)
    assert (found["fps"], found["frames"]) == (Fraction(25), frames)
    width, height = found["size"]
    assert width == wide * height and height % 8 == 0
    assert len(found["sound"]) == 1 and abs(found["sound"][0] - frames / 25) < 0.1


def test_the_pack_is_loaded_quickly_and_without_complaint(server):
    lines = [line for line in server.log.splitlines() if PACK in line]
    assert [line for line in lines if re.search(r"IMPORT FAILED|Cannot import|Skip|rror", line)] == []
    (took,) = (float(found[1]) for line in lines if (found := re.match(r"\s*([\d.]+) seconds", line)))
    assert took <= IMPORT_SECONDS


def test_script_help_words_and_templates_are_served(server):
    assert f"/extensions/{PACK}/js/tbd.js" in server.get("/extensions")
    assert server.read(f"/extensions/{PACK}/js/tbd.js") == (ROOT / "web" / "js" / "tbd.js").read_bytes()
    for path in (ROOT / "web" / "docs").glob("*.md"):
        assert server.read(f"/extensions/{PACK}/docs/{path.name}") == path.read_bytes()
    words = server.get("/i18n")
    assert {lang: len(words[lang]["nodeDefs"]) for lang in ("en", "zh", "ja")} == dict.fromkeys(("en", "zh", "ja"), 15)
    names = sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))
    assert sorted(server.get("/workflow_templates")[PACK]) == names


def test_inference_makes_a_talking_video_in_time(server, frames):
    began = time.monotonic()
    result = finished(server, twin("Inference"))
    assert time.monotonic() - began <= INFERENCE_SECONDS
    assert_speaks(only_video(server, result), frames)


def test_the_thinking_is_told_and_shown(server):
    graph = changed(twin("Inference"), "TBDPromptBuilder", emotion="sad")  # what a run before cached is not shown again
    result = finished(server, changed(graph, "TBDSampler", **QUICK))
    (builder,), (editor,) = ids(graph, "TBDPromptBuilder"), ids(graph, "TBDEditPrompts")
    told = result["outputs"][builder]["text"][0]
    assert "AU15" in told and result["outputs"][editor]["state"] == ["auto"]
    assert len(result["outputs"][editor]["tokens"]) == 3
    (chart, *_), (steps, *_) = ids(graph, "PreviewImage"), ids(graph, "PreviewAny")
    assert result["outputs"][chart]["images"] and result["outputs"][steps]["text"] == [told]


def test_three_intensities_stand_side_by_side(server, frames):
    result = finished(server, changed(twin("Intensity control"), "TBDSampler", **QUICK))
    assert_speaks(only_video(server, result), frames, wide=3)


def test_a_face_speaks_inside_its_picture(server, frames):
    result = finished(server, changed(twin("Portrait in a picture"), "TBDSampler", **QUICK))
    assert_speaks(only_video(server, result), frames, wide=2)


def test_two_clips_of_ksampler_are_28_frames(server):
    result = finished(server, twin("KSampler (expert)"))
    assert_speaks(only_video(server, result), 28)


def test_review_stops_before_drawing_and_an_edit_runs_only_what_is_behind_it(server, frames):
    graph = changed(twin("Edit the prompts mid-graph"), "TBDSampler", seed=11, **QUICK)
    seen = finished(server, graph)
    (editor,) = ids(graph, "TBDEditPrompts")
    shown = seen["outputs"][editor]
    assert shown["state"] == ["review"] and shown["fine"][0]
    assert [one for one in RUNNING["result_files"](seen, server.folder) if one.suffix == ".mp4"] == []

    words = {f"{name}_text": shown[name][0] for name in ("coarse", "fine", "negative")}
    mine = changed(graph, "TBDEditPrompts", mode="edited", **words)
    assert_speaks(only_video(server, finished(server, mine)), frames)

    again = changed(mine, "TBDEditPrompts", fine_text=words["fine_text"] + ", a wink")
    result = finished(server, again)
    behind = {
        "TBDEditPrompts", "TBDProgressiveScheduler", "CLIPTextEncode", "TBDSampler", "VAEDecode", "CreateVideo",
        "SaveVideo", "PreviewImage",
    }  # fmt: skip
    assert ran(again, result) == behind
    assert not ran(again, finished(server, again)), "the same graph twice, and something ran"


def test_a_blank_prompt_of_ones_own_is_refused_before_anything_is_drawn(server):
    graph = changed(twin("Inference"), "TBDEditPrompts", mode="edited", coarse_text="A person.")
    result = server.result(server.queue(graph))
    (error,) = RUNNING["said"](result, "execution_error")
    assert "fine prompt is blank (0 words)" in error["exception_message"]
    assert error["node_type"] == "TBDEditPrompts"


def test_a_batch_names_its_files_is_not_drawn_twice_and_has_an_end(server, frames):
    graph = changed(twin("Batch queue"), "TBDRenderVideo", **QUICK)
    path = only_video(server, finished(server, graph))
    assert path.name.startswith("0000_") and "happy" in path.name and "Mild" in path.name
    assert_speaks(path, frames)
    drawn = path.stat().st_mtime_ns

    server.post("/free", {"unload_models": True, "free_memory": True})
    time.sleep(1)
    assert only_video(server, finished(server, graph)) == path and path.stat().st_mtime_ns == drawn

    result = server.result(server.queue(changed(graph, "TBDBatchCases", index=6)))
    (error,) = RUNNING["said"](result, "execution_error")
    assert "all 6 cases done; set index to 0 to begin again" in error["exception_message"]


def test_two_runs_in_the_queue_are_both_drawn_and_differ(server, frames):
    graphs = [changed(twin("Inference"), "TBDSampler", seed=seed, **QUICK) for seed in (21, 22)]
    paths = []
    for run in [server.queue(graph) for graph in graphs]:
        result = server.result(run)
        assert result["status"]["status_str"] == "success"
        paths.append(only_video(server, result))
    assert paths[0] != paths[1] and paths[0].read_bytes() != paths[1].read_bytes()
    assert [probe(path)["frames"] for path in paths] == [frames, frames]


def test_a_cancel_takes_effect_within_two_seconds_and_the_next_run_is_clean(server, frames):
    quick = changed(twin("Inference"), "TBDSampler", seed=31, **QUICK)
    finished(server, quick)  # all before the sampler is in the cache now
    run = server.queue(changed(quick, "TBDSampler", steps=500))
    server.has_begun(run)
    time.sleep(3)
    began = time.monotonic()
    server.post("/interrupt", {})
    result = server.result(run, 30)
    assert time.monotonic() - began <= CANCEL_SECONDS
    assert RUNNING["said"](result, "execution_interrupted")[0]["node_type"] == "TBDSampler"
    assert_speaks(only_video(server, finished(server, changed(quick, "TBDSampler", seed=32))), frames)


def test_a_bundle_that_is_not_there_is_refused_with_its_folder(server):
    with pytest.raises(Refused, match=r"gone.safetensors is not in models/tbd; put it there"):
        server.queue(changed(twin("Inference"), "TBDModelLoader", model="gone.safetensors"))


@pytest.mark.parametrize("name", ["On Wan 2.2 S2V", "On HuMo"])
def test_before_another_model_the_thinking_runs_without_its_weights(server, name):
    graph = twin(name)
    (steps,) = ids(graph, "PreviewAny")
    result = server.result(server.queue(graph, [steps]))
    assert result["status"]["status_str"] == "success"
    assert "AU12" in result["outputs"][steps]["text"][0]
    with pytest.raises(Refused, match="safetensors"):  # the whole graph: each missing model by its name
        server.queue(graph)
