"""The bundled workflows: written by build.py, whole, and the same graph in the page's format and in the API's."""

import json
import runpy
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ROOT / "workflows"
NAMES = (
    "Inference", "Intensity control", "Edit the prompts mid-graph", "Batch queue", "KSampler (expert)",
    "Portrait in a picture", "On Wan 2.2 S2V", "On HuMo",
)  # fmt: skip
ON_OTHERS = {"On Wan 2.2 S2V": "WanSoundImageToVideo", "On HuMo": "WanHuMoImageToVideo"}
THINKING = {"TBDPromptBuilder", "TBDEditPrompts", "TBDProgressiveScheduler"}
UPLOADS = {"image_upload": 1, "audio_upload": 2}  # how many slots of widgets_values the page keeps behind the file's
HOSTS_MENUS = ("sampler", "scheduler")  # what ComfyUI offers; the stand-ins have a few of them


@pytest.fixture(scope="module")
def told() -> dict:
    return json.loads((ROOT / "tests" / "golden" / "object_info.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def nodes(told) -> dict:
    return told["nodes"]


@pytest.fixture(scope="module")
def built(told) -> dict[str, str]:
    """What build.py would write now, by path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(WORKFLOWS))
        return runpy.run_path(str(WORKFLOWS / "build.py"))["build"](told)


@pytest.fixture(scope="module")
def graph(told, built):
    """`graph()`: a new empty Graph of build.py's."""
    return lambda: sys.modules["page"].Graph(
        "test", told["nodes"], {"comfy-core": "0", "comfyui-think-before-draw": "0"}
    )


@pytest.fixture(scope="module", params=NAMES)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def page(name) -> dict:
    return json.loads((WORKFLOWS / f"{name}.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def twin(name) -> dict:
    return json.loads((WORKFLOWS / "api" / f"{name}.json").read_text("utf-8"))


def drawn_nodes(page: dict) -> list[dict]:
    return [node for node in page["nodes"] if node["type"] != "MarkdownNote"]


def inputs_of(info: dict) -> dict[str, tuple[str, dict]]:
    """By name: kind and options, as the page orders them."""
    found = {}
    for group in ("required", "optional"):
        for name, spec in info["input"].get(group, {}).items():
            options = dict(spec[1]) if len(spec) > 1 else {}
            if isinstance(spec[0], list):
                spec, options = ["COMBO"], {**options, "options": spec[0]}
            found[name] = (spec[0], options)
    return found


def kind_of(info: dict, name: str) -> str:
    """What a socket takes; one that grew takes what its group grows."""
    if "." not in name:
        return inputs_of(info)[name][0]
    group, _, _ = name.partition(".")
    template = inputs_of(info)[group][1]["template"]
    assert name.removeprefix(f"{group}.{template['prefix']}").isdigit()
    return next(iter(template["input"]["required"].values()))[0]


def widget_values(node: dict, info: dict) -> dict[str, object]:
    """The page reads `widgets_values` by position alone; nothing may be left over."""
    left = list(node["widgets_values"])
    found = {}
    for name, (kind, options) in inputs_of(info).items():
        if kind not in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO") or options.get("forceInput"):
            continue
        found[name] = left.pop(0)
        if options.get("control_after_generate") or name in ("seed", "noise_seed"):
            assert left.pop(0) in ("fixed", "increment", "decrement", "randomize")
        for upload, slots in UPLOADS.items():
            if options.get(upload):
                del left[:slots]
    assert left == []
    return found


def page_to_api(page: dict, nodes: dict) -> dict:
    """As the page does when Run is pressed."""
    origins = {link[0]: [str(link[1]), link[2]] for link in page["links"]}
    api = {}
    for node in drawn_nodes(page):
        assert node["mode"] == 0
        info = nodes[node["type"]]
        inputs = widget_values(node, info)
        inputs |= {one["name"]: origins[one["link"]] for one in node["inputs"] if one["link"] is not None}
        title = node.get("title", info["display_name"] or node["type"])
        api[str(node["id"])] = {"class_type": node["type"], "inputs": inputs, "_meta": {"title": title}}
    return api


def test_the_files_are_what_build_py_writes_now(built):
    found = {str(path.relative_to(WORKFLOWS)): path.read_text("utf-8") for path in WORKFLOWS.rglob("*.json")}
    assert sorted(found) == sorted([f"{name}.json" for name in NAMES] + [f"api/{name}.json" for name in NAMES])
    assert [path for path in found if found[path] != built[path]] == [], "run: python workflows/build.py"


def test_our_nodes_in_the_snapshot_are_the_schemas(nodes, node_classes):
    mine = {name: info for name, info in nodes.items() if name.startswith("TBD")}
    assert mine.keys() == node_classes.keys()
    for name, cls in node_classes.items():
        told = json.loads(json.dumps(cls.GET_NODE_INFO_V1()))
        told.pop("python_module")
        snapshot = json.loads(json.dumps(mine[name]))
        for menu in HOSTS_MENUS:
            if menu in told["input"]["required"]:
                few = told["input"]["required"][menu][1].pop("options")
                assert set(few) <= set(snapshot["input"]["required"][menu][1].pop("options"))
        assert snapshot == told, "run: tests/golden/take_object_info.py"


def test_the_page_makes_the_api_twin_of_a_workflow(page, twin, nodes):
    assert page_to_api(page, nodes) == twin


def test_every_wire_has_two_ends_that_know_it_and_joins_equal_kinds(page, nodes):
    by_id = {node["id"]: node for node in page["nodes"]}
    ids = [link[0] for link in page["links"]]
    assert len(set(ids)) == len(ids) and max(ids) == page["last_link_id"]
    for id, source, out, target, into, kind in page["links"]:
        begin, end = by_id[source], by_id[target]
        assert id in begin["outputs"][out]["links"] and begin["outputs"][out]["type"] == kind
        assert nodes[begin["type"]]["output"][out] == kind
        assert end["inputs"][into]["link"] == id
        takes = kind_of(nodes[end["type"]], end["inputs"][into]["name"])
        assert takes == end["inputs"][into]["type"]
        assert kind == takes or "*" in (kind, takes), f"{begin['type']} to {end['type']}"
        assert begin["order"] < end["order"]
    told = [one for node in page["nodes"] for output in node["outputs"] for one in output["links"] or ()]
    taken = [one["link"] for node in page["nodes"] for one in node["inputs"] if one["link"] is not None]
    assert sorted(told) == sorted(taken) == sorted(ids)


def test_what_must_be_linked_is_linked(page, nodes):
    for node in drawn_nodes(page):
        linked = {one["name"] for one in node["inputs"] if one["link"] is not None}
        values = widget_values(node, nodes[node["type"]])
        for name, spec in nodes[node["type"]]["input"].get("required", {}).items():
            grown = spec[0] == "COMFY_AUTOGROW_V3"
            assert name in values or name in linked or grown, f"{node['type']}.{name}"


def test_menus_have_the_words_and_numbers_lie_within_their_limits(page, nodes):
    for node in drawn_nodes(page):
        offered = {model["name"] for model in node["properties"].get("models", ())}
        known = inputs_of(nodes[node["type"]])
        for name, value in widget_values(node, nodes[node["type"]]).items():
            kind, options = known[name]
            if kind == "COMBO" and not set(options) & set(UPLOADS):
                assert value in options["options"] or value in offered, f"{node['type']}.{name}"
            if kind in ("INT", "FLOAT"):
                assert options.get("min", value) <= value <= options.get("max", value), f"{node['type']}.{name}"


def test_a_loaders_missing_file_is_named_as_the_pages_dialog_wants_it(page):
    for node in drawn_nodes(page):
        for model in node["properties"].get("models", ()):
            assert model["name"] in node["widgets_values"]
            assert model["url"].startswith("https://huggingface.co/") and model["url"].endswith("/" + model["name"])
            assert model["name"].endswith(".safetensors") and "/" not in model["name"]
            assert model["directory"] in ("diffusion_models", "text_encoders", "vae", "audio_encoders", "loras")


def test_every_loader_of_a_file_names_where_it_comes_from(page):
    loaders = ("UNETLoader", "CLIPLoader", "VAELoader", "AudioEncoderLoader", "LoraLoaderModelOnly")
    assert [
        one["id"] for one in drawn_nodes(page) if one["type"] in loaders and not one["properties"].get("models")
    ] == []


def test_no_node_lies_on_another_and_each_lies_in_its_group(page):
    boxes = [(*node["pos"], *node["size"]) for node in page["nodes"]]
    for index, (left, top, width, height) in enumerate(boxes):
        around = [group["bounding"] for group in page["groups"]]
        inside = [x <= left and left + width <= x + w and y <= top and top + height <= y + h for x, y, w, h in around]
        assert sum(inside) == 1
        for x, y, w, h in boxes[:index]:
            assert left >= x + w or x >= left + width or top - 30 >= y + h or y - 30 >= top + height


def test_every_workflow_begins_with_a_note_and_ends_in_a_video(page):
    assert page["nodes"][0]["type"] == "MarkdownNote"
    assert {"SaveVideo", "TBDRenderVideo"} & {node["type"] for node in page["nodes"]}
    assert all(node["widgets_values"][0] == 25.0 for node in page["nodes"] if node["type"] == "CreateVideo") or (
        "WanSoundImageToVideo" in {node["type"] for node in page["nodes"]}
    )


@pytest.mark.parametrize("name", ON_OTHERS, indirect=True)
def test_before_other_models_only_the_thinking_nodes_are_ours_and_the_note_says_what_was_tested(name, page, twin):
    types = {node["class_type"] for node in twin.values()}
    assert {one for one in types if one.startswith("TBD")} == THINKING
    assert ON_OTHERS[name] in types
    assert "validated by ComfyUI" in page["nodes"][0]["widgets_values"][0]
    assert next(one for one in twin.values() if one["class_type"] == "TBDPromptBuilder")["inputs"]["style"] == "natural"


@pytest.mark.parametrize("name", [*ON_OTHERS, "KSampler (expert)"], indirect=True)
def test_beside_a_ksampler_the_prompts_are_cut_by_its_own_model_steps_scheduler_and_sampler(twin):
    cut = next(one["inputs"] for one in twin.values() if one["class_type"] == "TBDProgressiveScheduler")
    samplers = [one["inputs"] for one in twin.values() if one["class_type"] == "KSampler"]
    assert samplers
    for run in samplers:
        same = {"model": "model", "steps": "steps", "scheduler": "scheduler", "sampler_name": "sampler"}
        assert {key: run[key] for key in same} == {key: cut[name] for key, name in same.items()}


def test_all_but_those_on_other_models_run_on_what_comes_with_the_pack(twin, name):
    files = {"LoadImage", "LoadAudio", "UNETLoader", "CLIPLoader", "VAELoader", "AudioEncoderLoader"}
    assert bool(files & {node["class_type"] for node in twin.values()}) == (name in ON_OTHERS)


def test_three_intensities_share_portrait_speech_and_noise(told):
    twin = json.loads((WORKFLOWS / "api" / "Intensity control.json").read_text("utf-8"))
    by = {
        kind: [n["inputs"] for n in twin.values() if n["class_type"] == kind]
        for kind in ("TBDPromptBuilder", "TBDSampler")
    }
    assert [one["intensity"] for one in by["TBDPromptBuilder"]] == ["Mild", "Moderate", "Intense"]
    assert len({one["emotion"] for one in by["TBDPromptBuilder"]}) == 1
    for shared in ("model", "reference", "audio", "seed", "steps", "guidance"):
        assert all(one[shared] == by["TBDSampler"][0][shared] for one in by["TBDSampler"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda g: g.add("VAEDecode", samples=g.add("TBDSampleInputs")["portrait"], vae=g.add("TBDModelLoader")["VAE"]),
         "VAEDecode.samples takes LATENT, not IMAGE"),
        (lambda g: g.add("TBDSampleInputs", colour="red"), "TBDSampleInputs has no input colour"),
        (lambda g: g.add("TBDPromptBuilder", emotion="hapy"), "TBDPromptBuilder.emotion has no 'hapy'"),
        (lambda g: g.add("PreviewImage"), "PreviewImage.images is not linked"),
        (lambda g: g.add("PreviewImage", images="a.png"), "PreviewImage.images takes a link, not 'a.png'"),
    ],
)  # fmt: skip
def test_a_graph_that_the_nodes_cannot_make_is_not_written(graph, wrong, message):
    one = graph()
    one.column("1")
    with pytest.raises(ValueError, match=message):
        wrong(one)
