"""The pack in ComfyUI's page, on the classic canvas and with Nodes 2.0: templates, Run, read, edit, Run again.

Wants playwright with a Chromium (`CHROMIUM=` names one by its path), and ComfyUI's front-end package.
`SCREENSHOTS=docs` keeps the pictures there; otherwise they go with the test's folder.
"""

import json
import os
import runpy
from pathlib import Path

import pytest


pytestmark = pytest.mark.comfy

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RUNNING = runpy.run_path(str(HERE / "running.py"))
BROWSING = runpy.run_path(str(HERE / "browsing.py"))
FIND, READY, QUIET = (BROWSING[name] for name in ("FIND", "READY", "QUIET"))
load, prompt, set_widgets, look_at, run = (
    BROWSING[name] for name in ("load", "prompt", "set_widgets", "look_at", "run")
)
PACK = RUNNING["PACK"]
NAMES = sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with RUNNING["Server"](tmp_path_factory.mktemp("comfyui")) as running:
        yield running


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = os.environ.get("CHROMIUM")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(server, chromium):
    """`open_page(setting=…)`: the page, ready; nothing on it may fail."""
    contexts, faults = [], []

    def open_page(**settings):
        server.post("/settings", QUIET | {name.replace("_", "."): value for name, value in settings.items()})
        contexts.append(chromium.new_context(viewport={"width": 1600, "height": 1000}))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: "think-before-draw" in line.text and faults.append(line.text))
        page.goto(server.url)
        page.wait_for_function(READY, timeout=60_000)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture(params=["classic", "nodes-2.0"])
def mode(request) -> str:
    return request.param


@pytest.fixture
def page(mode, open_page):
    return open_page(Comfy_VueNodes_Enabled=mode != "classic")


def twin(name: str) -> dict:
    graph = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text("utf-8"))
    return {id: (node["class_type"], node["inputs"]) for id, node in graph.items()}


def ran(sent: dict, result: dict) -> set[str]:
    cached = {id for said in RUNNING["said"](result, "execution_cached") for id in said["nodes"]}
    return {kind for id, (kind, _) in sent.items() if id not in cached}


def view_of(page, part: str):
    """The view of ours that says this."""
    return page.locator(".tbd-view", has_text=part)


def picture(page, name: str, folder: Path) -> None:
    kept = os.environ.get("SCREENSHOTS")
    page.screenshot(path=str((ROOT / kept if kept else folder) / f"{name}.png"))


@pytest.mark.parametrize("name", NAMES)
def test_the_page_sends_the_twin_of_each_workflow(page, name):
    load(page, name)
    assert prompt(page) == twin(name)
    # Saved and opened again, it is still the same graph.
    page.evaluate("async () => { await window.app.loadGraphData(window.app.rootGraph.serialize()) }")
    assert prompt(page) == twin(name)


def test_a_new_scheduler_offers_sockets_for_two_prompts_and_two_conditionings(page):
    names = page.evaluate("() => LiteGraph.createNode('TBDProgressiveScheduler').inputs.map((one) => one.name)")
    assert [name for name in names if "." in name] == [
        "prompts.prompt_0", "prompts.prompt_1", "conditionings.conditioning_0", "conditionings.conditioning_1",
    ]  # fmt: skip


def test_from_the_template_browser_to_a_video_and_back_to_a_changed_word(page, mode, server, tmp_path):
    page.evaluate("() => { window.app.extensionManager.command.execute('Comfy.BrowseTemplates') }")
    page.get_by_test_id("template-workflows-content").wait_for()
    page.get_by_text(PACK, exact=True).first.click()
    page.get_by_test_id("template-workflow-Inference").wait_for()
    picture(page, f"templates-{mode}", tmp_path)
    page.get_by_test_id("template-workflow-Inference").click()
    page.wait_for_function(f"() => ({FIND})('TBDRenderVideo') || ({FIND})('TBDSampler')")

    seed = 100 + (mode != "classic")
    set_widgets(page, "TBDSampler", steps=2, guidance=1, seed=seed)
    # Another emotion in each mode: a builder that comes from the cache tells the page nothing.
    set_widgets(page, "TBDPromptBuilder", emotion="happy" if seed == 100 else "surprised")
    _, result = run(page, server)
    assert result["status"]["status_str"] == "success"
    view_of(page, "I. Face:").wait_for(state="attached")
    assert "II. Action units:" in view_of(page, "I. Face:").text_content()
    shown = view_of(page, "These prompts go on.")
    shown.wait_for(state="attached")
    fine = shown.locator("[data-tbd=fine]").text_content()
    look_at(page, "TBDPromptBuilder")
    picture(page, f"thinking-{mode}", tmp_path)

    look_at(page, "TBDEditPrompts")
    shown.locator("[data-tbd=edit]").click()
    view_of(page, "Your own texts go on.").wait_for(state="attached")
    (editor,) = (inputs for kind, inputs in prompt(page).values() if kind == "TBDEditPrompts")
    assert (editor["mode"], editor["fine_text"]) == ("edited", fine)
    first, second = fine + " A wink.", fine + " A wink of the left eye."
    for text in (first, second):
        (field,) = (one for one in page.locator("textarea:visible").all() if one.input_value().startswith(fine))
        field.fill(text)
        field.press("Tab")
        (editor,) = (inputs for kind, inputs in prompt(page).values() if kind == "TBDEditPrompts")
        assert editor["fine_text"] == text
        sent, result = run(page, server)
        assert result["status"]["status_str"] == "success"
    assert ran(sent, result) == {
        "TBDEditPrompts", "TBDProgressiveScheduler", "CLIPTextEncode", "TBDSampler", "VAEDecode", "CreateVideo",
        "SaveVideo", "PreviewImage", "PreviewAny",
    }  # fmt: skip
    picture(page, f"edited-{mode}", tmp_path)
    view_of(page, "Your own texts go on.").locator("[data-tbd=back]").click()
    (editor,) = (inputs for kind, inputs in prompt(page).values() if kind == "TBDEditPrompts")
    assert (editor["mode"], editor["fine_text"]) == ("auto", second), "a person's words stay"


def test_ones_own_words_are_written_over_only_after_a_yes(page, server):
    load(page, "Edit the prompts mid-graph")
    set_widgets(page, "TBDEditPrompts", fine_text="My own smile.")
    run(page, server)
    look_at(page, "TBDEditPrompts")
    view_of(page, "These prompts wait").locator("[data-tbd=edit]").click()
    page.get_by_text("Write over your own words?").wait_for()
    page.keyboard.press("Escape")
    (editor,) = (inputs for kind, inputs in prompt(page).values() if kind == "TBDEditPrompts")
    assert (editor["mode"], editor["fine_text"]) == ("review", "My own smile.")


def test_a_saved_graph_keeps_nothing_of_the_view(page):
    load(page, "Inference")
    saved = page.evaluate("() => window.app.rootGraph.serialize()")
    values = {node["type"]: node.get("widgets_values") for node in saved["nodes"]}
    assert values["TBDEditPrompts"] == ["auto", "", "", ""]
    assert len(values["TBDPromptBuilder"]) == 8


def test_missing_models_are_named_when_a_workflow_for_others_is_opened(open_page):
    page = open_page(Comfy_Workflow_ShowMissingModelsWarning=True)
    load(page, "On Wan 2.2 S2V")
    page.get_by_text("wan2.2_s2v_14B_fp8_scaled.safetensors").first.wait_for()


@pytest.mark.parametrize("lang", ["zh", "ja"])
def test_nodes_and_buttons_speak_the_pages_language(open_page, lang):
    page = open_page(Comfy_Locale=lang)
    words = json.loads((ROOT / "locales" / lang / "nodeDefs.json").read_text("utf-8"))
    load(page, "Inference")
    assert page.evaluate("() => LiteGraph.createNode('TBDSampler').title") == words["TBDSampler"]["display_name"]
    assert view_of(page, {"zh": "运行一次", "ja": "一度実行"}[lang]).count() == 2
