"""What every node promises before it runs: to the page, to saved graphs, to ComfyUI-Manager."""

import ast
import inspect
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[2]
NODES = {
    "TBDModelLoader": "model",
    "TBDAudioEncoderLoader": "model",
    "TBDSampleInputs": "model",
    "TBDPromptBuilder": "thinking",
    "TBDEditPrompts": "thinking",
    "TBDProgressiveScheduler": "scheduling",
    "TBDAudioEncode": "encoding",
    "TBDReferenceEncode": "encoding",
    "TBDSampler": "drawing",
    "TBDApplyConditions": "drawing",
    "TBDRenderVideo": "rendering",
    "TBDBatchCases": "batch",
    "TBDFindFace": "faces",
    "TBDPasteBack": "faces",
    "TBDConvert": "converting",
}
CORE_TYPES = {
    "*", "AUDIO", "BOOLEAN", "CLIP", "COMBO", "COMFY_AUTOGROW_V3", "CONDITIONING", "FLOAT", "IMAGE", "INT", "LATENT",
    "MASK", "MODEL", "SIGMAS", "STRING", "VAE", "VIDEO",
}  # fmt: skip
HEAVY = ("diffusers", "transformers", "librosa", "soundfile", "accelerate", "scipy", "imageio_ffmpeg")

LIST_THE_NODES = f"""
import asyncio, importlib.util, sys
spec = importlib.util.spec_from_file_location("pack", {str(ROOT / "__init__.py")!r})
pack = sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
assert "torch" not in sys.modules, "the import alone needs torch"
for node in asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list()):
    node.INPUT_TYPES()
assert not [name for name in {HEAVY!r} if name in sys.modules], [name for name in {HEAVY!r} if name in sys.modules]
"""


@pytest.fixture(params=NODES)
def node(request, node_classes):
    return node_classes[request.param]


def widgets_and_sockets(node) -> list:
    """The node's inputs, and those that grow."""
    inputs = node.GET_SCHEMA().inputs
    return [*inputs, *(one.template.input for one in inputs if hasattr(one, "template"))]


def test_the_pack_lists_these_nodes_each_in_its_module(node_classes):
    assert {name: cls.__module__.rpartition(".")[2] for name, cls in node_classes.items()} == NODES


def test_listing_the_nodes_is_silent_and_loads_no_heavy_library(tmp_path):
    fakes = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "fakes")}
    command = [sys.executable, "-c", LIST_THE_NODES]
    result = subprocess.run(command, cwd=tmp_path, env=fakes, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def schemas_in(path: Path) -> dict[str, object]:
    """ComfyUI-Manager's reading of a file: class -> node id, by the text alone."""
    found = {}
    for cls in (one for one in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(one, ast.ClassDef)):
        if any(ast.unparse(base) == "io.ComfyNode" for base in cls.bases):
            calls = [one for one in ast.walk(cls) if isinstance(one, ast.Call) and ast.unparse(one.func) == "io.Schema"]
            given = {word.arg: word.value for call in calls for word in call.keywords}
            found[cls.name] = getattr(given.get("node_id"), "value", None)
    return found


def test_node_ids_are_literals_and_equal_the_class_names():
    found = [
        pair for module in sorted(set(NODES.values())) for pair in schemas_in(ROOT / "nodes" / f"{module}.py").items()
    ]
    assert sorted(found) == sorted((name, name) for name in NODES)


def test_the_schema_is_valid_and_says_what_the_node_is(node):
    schema = node.GET_SCHEMA()
    assert schema.node_id == node.__name__
    assert schema.category == "Think-Before-Draw"
    assert schema.display_name and schema.description


def test_every_input_has_a_tooltip(node):
    assert [one.id for one in widgets_and_sockets(node) if not (one.tooltip or "").strip()] == []


def test_required_inputs_come_before_optional_ones(node):
    order = [bool(one.optional) for one in node.GET_SCHEMA().inputs]
    assert order == sorted(order)


def test_outputs_have_names_and_our_own_types_our_prefix(node):
    schema = node.GET_SCHEMA()
    assert all(output.display_name for output in schema.outputs)
    used = {one.io_type for one in [*schema.inputs, *schema.outputs]}
    assert sorted(one for one in used - CORE_TYPES if not one.startswith("TBD_")) == []


def test_defaults_lie_within_their_own_limits(node):
    for one in widgets_and_sockets(node):
        options, default = getattr(one, "options", None), getattr(one, "default", None)
        if options:
            assert default is None or default in options, one.id
        elif getattr(one, "min", None) is not None and hasattr(one, "default"):
            assert one.min <= default <= one.max, one.id


def test_no_text_field_lets_the_page_expand_braces(node):
    """`{a|b}` in a prompt would reach the node as one of a and b, and never twice the same."""
    texts = [one for one in widgets_and_sockets(node) if one.io_type == "STRING"]
    assert [one.id for one in texts if one.dynamic_prompts is not False and not one.force_input] == []


def test_execute_takes_every_input_and_can_do_without_the_optional_ones(node):
    takes = inspect.signature(node.execute).parameters
    schema = node.GET_SCHEMA()
    assert [one.id for one in schema.inputs if one.id not in takes] == []
    absent = [one for one in schema.inputs if one.optional or hasattr(one, "template")]
    assert [one.id for one in absent if takes[one.id].default is inspect.Parameter.empty] == []


def test_the_inputs_are_told_within_five_milliseconds(node):
    """ComfyUI asks many times for each prompt, and for all nodes when the page opens."""
    took = []
    for _ in range(5):
        began = time.perf_counter()
        node.INPUT_TYPES()
        took.append(time.perf_counter() - began)
    assert min(took) < 0.005
