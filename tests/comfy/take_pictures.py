"""Takes the pictures that people see before they run anything: a thumbnail beside every workflow, and for every help
page its node with what it made. All workflows that need no other weights are opened in the page and run.

    CHROMIUM=/usr/bin/chromium python tests/comfy/take_pictures.py [NAME …]

Wants what the browser tests want. Afterwards `python locales/build.py` puts new pictures on their help pages.
"""

from __future__ import annotations

import io
import json
import os
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image


HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RUNNING, BROWSING = (runpy.run_path(str(HERE / f"{name}.py")) for name in ("running", "browsing"))
OTHERS = ("On Wan 2.2 S2V", "On HuMo")  # weights of others: only their thinking half runs
THUMBNAIL = 384  # pixels, of its height
MOST_WIDE = 3  # times its height
QUALITY = 85
MARGIN, GROUND = 8, (34, 34, 34)  # pixels around a node; the canvas's own grey
# Which workflow shows a node best.
SHOWN_IN = {
    "TBDApplyConditions": "KSampler (expert)", "TBDBatchCases": "Batch queue", "TBDRenderVideo": "Batch queue",
    "TBDEditPrompts": "Edit the prompts mid-graph",
}  # fmt: skip


def frames(path: Path) -> list[Image.Image]:
    """A picture, or the frames of a video."""
    if path.suffix != ".mp4":
        return [Image.open(path).convert("RGB")]
    import imageio_ffmpeg

    reader = imageio_ffmpeg.read_frames(str(path))
    size = next(reader)["size"]
    return [Image.frombytes("RGB", size, frame) for frame in reader]


def thumbnail(files: list[Path]) -> Image.Image:
    """Frames of the video side by side, or the last picture when no video was made."""
    videos = [path for path in files if path.suffix == ".mp4"]
    shown = frames((videos or files)[-1])
    width, height = shown[0].size
    count = max(1, min(len(shown), MOST_WIDE * height // (width * 2) * 2 or 1)) if videos else 1
    chosen = [shown[(2 * i + 1) * len(shown) // (2 * count)] for i in range(count)]
    scale = THUMBNAIL / height
    tiles = [one.resize((round(width * scale), THUMBNAIL), Image.Resampling.LANCZOS) for one in chosen]
    row = Image.new("RGB", (sum(tile.width for tile in tiles), THUMBNAIL))
    for i, tile in enumerate(tiles):
        row.paste(tile, (i * tiles[0].width, 0))
    return row


def think_only(graph: dict[str, Any]) -> list[str]:
    """The nodes that show the planned face: what runs without anyone's weights."""
    charts = {id for id, node in graph.items() if node["class_type"] == "TBDPromptBuilder"}
    return [
        id for id, node in graph.items()
        if node["class_type"] == "PreviewImage" and node["inputs"]["images"][0] in charts
    ]  # fmt: skip


def portrait_of(page: Any, id: str) -> Image.Image:
    """A node as it stands in the page, at its full size."""
    box = page.evaluate(
        """(id) => {
            const canvas = window.app.canvas, node = window.app.rootGraph.getNodeById(Number(id));
            canvas.ds.scale = 1;
            canvas.centerOnNode(node);
            canvas.setDirty(true, true);
            const [x, y, width, height] = node.getBounding();
            const at = canvas.canvas.getBoundingClientRect(), offset = canvas.ds.offset;
            return { x: at.x + x + offset[0], y: at.y + y + offset[1], width, height };
        }""",
        id,
    )
    page.wait_for_timeout(1500)
    clip = {"x": box["x"] - MARGIN, "y": box["y"] - MARGIN}
    size = {"width": box["width"] + 2 * MARGIN, "height": box["height"] + 2 * MARGIN}
    return Image.open(io.BytesIO(page.screenshot(clip=clip | size))).convert("RGB")


def result_of(graph: dict[str, Any], id: str) -> str | None:
    """The node that shows what node `id` made: the picture it feeds, of TBD Sampler the video."""
    wanted = "SaveVideo" if graph[id]["class_type"] == "TBDSampler" else "PreviewImage"
    for other, node in graph.items():
        if node["class_type"] == wanted and (wanted == "SaveVideo" or node["inputs"]["images"][0] == id):
            return other
    return None


def with_result(page: Any, graph: dict[str, Any], id: str) -> Image.Image:
    """The node, and beside it what it made."""
    result = result_of(graph, id)
    parts = [portrait_of(page, one) for one in (id, result) if one]
    row = Image.new("RGB", (sum(part.width for part in parts), max(part.height for part in parts)), GROUND)
    for i, part in enumerate(parts):
        row.paste(part, (sum(one.width for one in parts[:i]), 0))
    return row


def main() -> None:
    from playwright.sync_api import sync_playwright

    graphs = {path.stem: json.loads(path.read_text("utf-8")) for path in (ROOT / "workflows" / "api").glob("*.json")}
    names = sys.argv[1:] or sorted(graphs, key=lambda name: (name in OTHERS, name != "Inference", name))
    images = ROOT / "web" / "docs" / "img"
    images.mkdir(exist_ok=True)
    taken = set()
    with tempfile.TemporaryDirectory() as folder, RUNNING["Server"](Path(folder)) as server, sync_playwright() as tool:
        server.post("/settings", BROWSING["QUIET"] | {"Comfy.VueNodes.Enabled": False, "Comfy.Minimap.Visible": False})
        browser = tool.chromium.launch(executable_path=os.environ.get("CHROMIUM"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1600, "height": 1400})
        page.goto(server.url)
        page.wait_for_function(BROWSING["READY"], timeout=60_000)
        for name in names:
            graph = graphs[name]
            if name in OTHERS:
                result = server.result(server.queue(graph, think_only(graph)))
            else:
                BROWSING["load"](page, name)
                _, result = BROWSING["run"](page, server)
            assert result["status"]["status_str"] == "success", result["status"]
            files = [path for path in RUNNING["result_files"](result, server.folder) if path.is_file()]
            thumbnail(files).save(ROOT / "workflows" / f"{name}.jpg", quality=QUALITY, optimize=True)
            for id, node in graph.items() if name not in OTHERS else ():
                kind = node["class_type"]
                if kind.startswith("TBD") and kind not in taken and SHOWN_IN.get(kind, name) == name:
                    with_result(page, graph, id).save(images / f"{kind}.jpg", quality=QUALITY, optimize=True)
                    taken.add(kind)
        browser.close()


if __name__ == "__main__":
    main()
