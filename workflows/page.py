"""A graph, once written down, in ComfyUI's two formats: the page's (nodes with places and wires) and the API's.

Both come from the same list of nodes and from what ComfyUI tells about them (`GET /object_info`), so an input that
does not exist, a wire between two kinds, or a word that a menu lacks is an error here and never reaches a file.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
EMPTY = {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}
GROWING = "COMFY_AUTOGROW_V3"
OPTIONAL_SHAPE = 7  # a hollow socket
WIDTH, GAP = 360, 60  # pixels of a node, and between nodes
NOTE = "MarkdownNote"
NOTE_COLOURS = {"color": "#432", "bgcolor": "#653"}
# Pixels under the widgets that the page fills: pictures, texts, players.
SHOWS = {
    "PreviewImage": 250, "PreviewAny": 190, "SaveVideo": 330, "LoadImage": 320, "LoadAudio": 90, "TBDRenderVideo": 300,
    "TBDPromptBuilder": 310, "TBDEditPrompts": 260,
}  # fmt: skip
# A file that is not there yet: the person's own, or a model that the page offers to download.
UPLOADS = ("image_upload", "audio_upload", "video_upload")


class Input(NamedTuple):
    """One input as a node's schema tells it."""

    name: str
    kind: str
    options: Mapping[str, Any]
    optional: bool

    @property
    def is_widget(self) -> bool:
        return self.kind in WIDGETS and not self.options.get("forceInput")

    @property
    def default(self) -> Any:
        choices = self.options.get("options")
        return self.options.get("default", (choices or [None])[0] if self.kind == "COMBO" else EMPTY.get(self.kind))


class Link(NamedTuple):
    """Where a wire begins."""

    node: Node
    slot: int

    @property
    def kind(self) -> str:
        return self.node.info["output"][self.slot]


@dataclass(eq=False)
class Node:
    id: int
    type: str
    title: str
    info: Mapping[str, Any]
    given: dict[str, Any]  # by input: a constant, or a Link
    column: int
    extra_height: int = 0
    control: str = "fixed"  # what happens to a seed after each run
    models: Sequence[Mapping[str, str]] = ()
    links: dict[tuple[str, int], int] = field(default_factory=dict)

    def __getitem__(self, output: str | int) -> Link:
        names = [name.lower() for name in self.info["output_name"]]
        slot = output if isinstance(output, int) else names.index(output.lower())
        return Link(self, slot)

    @property
    def inputs(self) -> list[Input]:
        """In the schema's order, growing ones as the sockets that are used and one to spare, or the least there are."""
        found = []
        for one in schema_inputs(self.info):
            if one.kind != GROWING:
                found.append(one)
                continue
            template = one.options["template"]
            (kind, options), *_ = template["input"]["required"].values()
            prefix = f"{one.name}.{template['prefix']}"
            used = 1 + max(
                (int(name.removeprefix(prefix)) for name in self.given if name.startswith(prefix)), default=-1
            )
            for index in range(min(max(used + 1, template["min"]), template["max"])):
                found.append(Input(f"{prefix}{index}", kind, {**options, "forceInput": True}, index >= template["min"]))
        return found

    @property
    def values(self) -> dict[str, Any]:
        """Of every widget, linked ones too: these keep what they show."""
        given = {name: value for name, value in self.given.items() if not isinstance(value, Link)}
        return {one.name: given.get(one.name, one.default) for one in self.inputs if one.is_widget}

    @property
    def height(self) -> int:
        if self.type == NOTE:
            return self.extra_height
        widgets = [one for one in self.inputs if one.is_widget]
        lines = sum(1 for one in widgets if one.options.get("multiline"))
        sockets = max(len(self.inputs) - len(widgets), len(self.info["output"]))
        controls = sum(len(slots_behind(one, "")) for one in widgets)
        rows = 22 * sockets + 26 * (len(widgets) - lines + controls) + 110 * lines
        return 20 + rows + SHOWS.get(self.type, 0) + self.extra_height


def schema_inputs(info: Mapping[str, Any]) -> list[Input]:
    """As the page orders them: required before optional."""
    found = []
    for group in ("required", "optional"):
        for name, spec in info["input"].get(group, {}).items():
            kind, options = spec[0], dict(spec[1]) if len(spec) > 1 else {}
            if isinstance(kind, list):  # the older way to tell a menu
                kind, options = "COMBO", {**options, "options": kind}
            found.append(Input(name, kind, options, group == "optional"))
    return found


def slots_behind(one: Input, control: str) -> list[Any]:
    """What the page keeps in `widgets_values` behind this widget's own value."""
    if one.options.get("control_after_generate") or one.name in ("seed", "noise_seed"):
        return [control]
    if one.options.get("image_upload"):
        return ["image"]
    return [None, None] if one.options.get("audio_upload") else []


class Graph:
    """Nodes in columns from left to right, each below the one before it in its column."""

    def __init__(self, name: str, object_info: Mapping[str, Any], versions: Mapping[str, str]):
        self.name, self.object_info, self.versions = name, object_info, versions
        self.nodes: list[Node] = []
        self.columns: list[str] = []

    def column(self, title: str) -> None:
        """What is added from now on stands in a new column, a group of this title."""
        self.columns.append(title)

    def note(self, text: str, height: int) -> None:
        info = {"input": {}, "output": [], "output_name": [], "display_name": "Note"}
        self.nodes.append(Node(len(self.nodes) + 1, NOTE, "Note", info, {"text": text}, len(self.columns) - 1, height))

    def add(self, type_: str, title: str = "", control: str = "fixed", models=(), **given: Any) -> Node:
        """A node. Inputs: constants, Links, and lists of Links for inputs that grow; the others keep their defaults."""
        info = self.object_info[type_]
        title = title or info.get("display_name") or type_
        node = Node(
            len(self.nodes) + 1, type_, title, info, {}, len(self.columns) - 1, control=control, models=models
        )  # fmt: skip
        for one in schema_inputs(info):
            if one.kind == GROWING:
                prefix = f"{one.name}.{one.options['template']['prefix']}"
                node.given |= {f"{prefix}{i}": link for i, link in enumerate(given.pop(one.name, ()))}
        node.given |= given
        self._check(node)
        self.nodes.append(node)
        return node

    def _check(self, node: Node) -> None:
        known = {one.name: one for one in node.inputs}
        where = f"{self.name}, {node.type}"
        if unknown := node.given.keys() - known.keys():
            raise ValueError(f"{where} has no input {', '.join(sorted(unknown))}")
        for name, one in known.items():
            value = node.given.get(name)
            if isinstance(value, Link):
                if "*" not in (value.kind, one.kind) and value.kind != one.kind:
                    raise ValueError(f"{where}.{name} takes {one.kind}, not {value.kind}")
            elif name in node.given and not one.is_widget:
                raise ValueError(f"{where}.{name} takes a link, not {value!r}")
            elif name not in node.given and not (one.is_widget or one.optional or "." in name):
                raise ValueError(f"{where}.{name} is not linked")
        offered = {model["name"] for model in node.models}
        for name, value in node.values.items():
            options = known[name].options
            if known[name].kind != "COMBO" or any(options.get(upload) for upload in UPLOADS):
                continue
            if value not in options["options"] and value not in offered:
                raise ValueError(f"{where}.{name} has no {value!r}")

    def api(self) -> dict[str, Any]:
        """What `POST /prompt` takes."""
        found = {}
        for node in (node for node in self.nodes if node.type != NOTE):
            wires = {n: [str(v.node.id), v.slot] for n, v in node.given.items() if isinstance(v, Link)}
            found[str(node.id)] = {
                "class_type": node.type,
                "inputs": node.values | wires,
                "_meta": {"title": node.title},
            }
        return found

    def page(self) -> dict[str, Any]:
        """What the page loads and saves, schema 0.4."""
        wires = self._wires()
        places = self._places()
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"think-before-draw/{self.name}")),
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(wires),
            "nodes": [self._page_node(node, places[node.id], wires) for node in self.nodes],
            "links": wires,
            "groups": self._groups(places),
            "config": {},
            "extra": {"ds": {"scale": 0.6, "offset": [120, 160]}},
            "version": 0.4,
        }

    def _sockets(self, node: Node) -> list[Input]:
        """The inputs that the page writes down: all without a widget, then the linked ones with."""
        inputs = node.inputs
        linked = [one for one in inputs if one.is_widget and isinstance(node.given.get(one.name), Link)]
        return [one for one in inputs if not one.is_widget] + linked

    def _wires(self) -> list[list[Any]]:
        wires = []
        for node in self.nodes:
            for slot, one in enumerate(self._sockets(node)):
                link = node.given.get(one.name)
                if isinstance(link, Link):
                    wires.append([len(wires) + 1, link.node.id, link.slot, node.id, slot, link.kind])
        return wires

    def _page_node(self, node: Node, place: tuple[int, int], wires: list) -> dict[str, Any]:
        found: dict[str, Any] = {
            "id": node.id,
            "type": node.type,
            "pos": list(place),
            "size": [WIDTH, node.height],
            "flags": {},
            "order": node.id - 1,
            "mode": 0,
            "inputs": [],
            "outputs": [],
        }  # fmt: skip  order: a link is made from a node that is there already, so they stand in order
        if node.type == NOTE:
            return found | {"properties": {}, "widgets_values": [node.given["text"]]} | NOTE_COLOURS
        into = {(wire[3], wire[4]): wire[0] for wire in wires}
        for slot, one in enumerate(self._sockets(node)):
            socket = {"name": one.name, "type": one.kind, "link": into.get((node.id, slot))}
            if "." in one.name:
                socket["label"] = one.name.rpartition(".")[2]
            if one.optional:
                socket["shape"] = OPTIONAL_SHAPE
            if one.is_widget:
                socket["widget"] = {"name": one.name}
            found["inputs"].append(socket)
        for slot, (name, kind) in enumerate(zip(node.info["output_name"], node.info["output"], strict=True)):
            links = [wire[0] for wire in wires if wire[1:3] == [node.id, slot]]
            found["outputs"].append({"name": name, "type": kind, "links": links or None})
        if node.title != (node.info.get("display_name") or node.type):
            found["title"] = node.title
        pack = "comfyui-think-before-draw" if node.type.startswith("TBD") else "comfy-core"
        properties: dict[str, Any] = {"cnr_id": pack, "ver": self.versions[pack], "Node name for S&R": node.type}
        if node.models:
            properties["models"] = [dict(model) for model in node.models]
        values = node.values
        widgets = [one for one in node.inputs if one.is_widget]
        slots = [[values[one.name], *slots_behind(one, node.control)] for one in widgets]
        return found | {"properties": properties, "widgets_values": [value for slot in slots for value in slot]}

    def _places(self) -> dict[int, tuple[int, int]]:
        down = [0] * len(self.columns)
        places = {}
        for node in self.nodes:
            places[node.id] = (node.column * (WIDTH + GAP + 20), down[node.column])
            down[node.column] += node.height + GAP
        return places

    def _groups(self, places: dict[int, tuple[int, int]]) -> list[dict[str, Any]]:
        groups = []
        for index, title in enumerate(self.columns):
            inside = [node for node in self.nodes if node.column == index]
            left, top = places[inside[0].id]
            bottom = max(places[node.id][1] + node.height for node in inside)
            bounding = [left - 20, top - 90, WIDTH + 40, bottom - top + 110]
            groups.append({"id": index + 1, "title": title, "bounding": bounding, "font_size": 24, "flags": {}})
        return groups
