"""What a person does in ComfyUI's page: opens a workflow, sets widgets, looks at a node, presses Run."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any


ROOT = Path(__file__).resolve().parents[2]
# What the page's own scripts add to nodes of ComfyUI; the server does not look at it.
PAGES_OWN = {"preview", "previewMode", "audioUI", "upload"}
QUIET = {"Comfy.TutorialCompleted": True, "Comfy.Workflow.ShowMissingModelsWarning": False, "Comfy.Locale": "en"}
READY = "() => window.app?.vueAppReady && window.app.rootGraph && window.LiteGraph"
FIND = "(type) => window.app.rootGraph.nodes.find((node) => node.type === type)"


def load(page, name: str) -> None:
    workflow = json.loads((ROOT / "workflows" / f"{name}.json").read_text("utf-8"))
    page.evaluate("(graph) => window.app.loadGraphData(graph)", workflow)
    page.wait_for_function("(count) => window.app.rootGraph.nodes.length === count", arg=len(workflow["nodes"]))


def prompt(page) -> dict:
    """What Run would send, without what the page adds for itself."""
    sent = page.evaluate("async () => (await window.app.graphToPrompt()).output")
    return {
        id: (node["class_type"], {name: value for name, value in node["inputs"].items() if name not in PAGES_OWN})
        for id, node in sent.items()
    }


def set_widgets(page, type_: str, **values) -> None:
    page.evaluate(
        f"""([type, values]) => {{
            const node = ({FIND})(type);
            for (const [name, value] of Object.entries(values)) {{
                const widget = node.widgets.find((one) => one.name === name);
                widget.value = value;
                widget.callback?.(value);
            }}
        }}""",
        [type_, values],
    )


def look_at(page, type_: str) -> None:
    page.evaluate(
        f"""(type) => {{
            const node = ({FIND})(type);
            window.app.canvas.ds.scale = 1;
            window.app.canvas.centerOnNode(node);
            window.app.canvas.setDirty(true, true);
        }}""",
        type_,
    )
    page.wait_for_timeout(500)


def run(page: Any, server: Any) -> tuple[dict, dict]:
    """Presses Run; (what was sent, how it ended)."""
    before = set(server.get("/history"))
    sent = prompt(page)
    page.get_by_test_id("queue-button").locator("button").first.click()
    deadline = time.monotonic() + 30
    while not (queued := _runs(server) - before):
        assert time.monotonic() < deadline, "Run was pressed and nothing was queued"
        time.sleep(0.1)
    (id,) = queued
    return sent, server.result(id)


def _runs(server) -> set[str]:
    queue = server.get("/queue")
    return {one[1] for one in queue["queue_running"] + queue["queue_pending"]} | set(server.get("/history"))
