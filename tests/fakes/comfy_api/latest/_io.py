"""The node API of ComfyUI 0.8.0, small and strict: what 0.8.0 does not know is a TypeError here too.

Own text. `tests/comfy/test_fakes.py` holds every signature against a real checkout.
"""

from __future__ import annotations

from collections import Counter
from copy import copy
from dataclasses import KW_ONLY, dataclass, field, fields
from enum import Enum
from typing import Any, ClassVar


__all__ = [
    "Audio", "Autogrow", "AnyType", "Boolean", "Clip", "Combo", "ComfyNode", "Conditioning", "Custom", "Float",
    "FolderType", "Guider", "Hidden", "Image", "Input", "Int", "Latent", "Mask", "Model", "NodeOutput", "Noise",
    "NumberDisplay", "Output", "Sampler", "Schema", "Sigmas", "String", "Vae", "Video", "WidgetInput",
]  # fmt: skip

# How an option is called on its way to the front-end, where that differs.
_SENT_AS = {"force_input": "forceInput", "dynamic_prompts": "dynamicPrompts", "display_mode": "display"}
_NOT_SENT = {"id", "extra_dict"}


class NumberDisplay(str, Enum):
    number = "number"
    slider = "slider"


class FolderType(str, Enum):
    input = "input"
    output = "output"
    temp = "temp"


class Hidden(str, Enum):
    unique_id = "UNIQUE_ID"
    prompt = "PROMPT"
    extra_pnginfo = "EXTRA_PNGINFO"
    dynprompt = "DYNPROMPT"


def _plain(value: Any) -> Any:
    """As JSON has it."""
    return value.value if isinstance(value, Enum) else value.as_dict() if hasattr(value, "as_dict") else value


@dataclass(eq=False)
class Input:
    io_type: ClassVar[str]

    id: str
    _: KW_ONLY
    display_name: str | None = None
    optional: bool = False
    tooltip: str | None = None
    lazy: bool | None = None
    extra_dict: dict | None = None

    def as_dict(self) -> dict[str, Any]:
        options = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _NOT_SENT}
        sent = {_SENT_AS.get(name, name): _plain(value) for name, value in options.items()}
        return {name: value for name, value in (sent | (self.extra_dict or {})).items() if value is not None}

    def get_io_type(self) -> str:
        return self.io_type


@dataclass(eq=False)
class WidgetInput(Input):
    _: KW_ONLY
    default: Any = None
    socketless: bool | None = None


@dataclass(eq=False)
class Output:
    io_type: ClassVar[str]

    id: str | None = None
    _: KW_ONLY
    display_name: str | None = None
    tooltip: str | None = None
    is_output_list: bool = False

    def __post_init__(self):
        self.display_name = self.display_name or self.id


def _kind(io_type: str, *parts: str):
    """Gives a class of sockets its wire type, and to each of `parts` that it lacks the plain form."""

    def mark(cls: type) -> type:
        cls.io_type = io_type
        for part, plain in (("Input", Input), ("Output", Output)):
            if part in (parts or ("Input", "Output")):
                setattr(cls, part, type(part, (getattr(cls, part, plain),), {"io_type": io_type}))
        return cls

    return mark


def Custom(io_type: str) -> type:
    return _kind(io_type)(type(io_type, (), {}))


AnyType, Audio, Clip, Conditioning, Guider = map(Custom, ("*", "AUDIO", "CLIP", "CONDITIONING", "GUIDER"))
Image, Latent, Mask, Model, Noise = map(Custom, ("IMAGE", "LATENT", "MASK", "MODEL", "NOISE"))
Sampler, Sigmas, Vae, Video = map(Custom, ("SAMPLER", "SIGMAS", "VAE", "VIDEO"))


@_kind("BOOLEAN")
class Boolean:
    @dataclass(eq=False, kw_only=True)
    class Input(WidgetInput):
        label_on: str | None = None
        label_off: str | None = None
        force_input: bool | None = None


@_kind("INT")
class Int:
    @dataclass(eq=False, kw_only=True)
    class Input(WidgetInput):
        min: int | None = None
        max: int | None = None
        step: int | None = None
        control_after_generate: bool | None = None
        force_input: bool | None = None


@_kind("FLOAT")
class Float:
    @dataclass(eq=False, kw_only=True)
    class Input(WidgetInput):
        min: float | None = None
        max: float | None = None
        step: float | None = None
        round: float | None = None
        display_mode: NumberDisplay | None = None
        force_input: bool | None = None


@_kind("STRING")
class String:
    @dataclass(eq=False, kw_only=True)
    class Input(WidgetInput):
        multiline: bool = False
        placeholder: str | None = None
        dynamic_prompts: bool | None = None
        force_input: bool | None = None


@_kind("COMBO")
class Combo:
    @dataclass(eq=False)
    class Input(WidgetInput):
        options: list | None = None
        _: KW_ONLY
        control_after_generate: bool | None = None

        def as_dict(self) -> dict[str, Any]:
            return super().as_dict() | {"multiselect": False}

    @dataclass(eq=False, kw_only=True)
    class Output(Output):
        options: list[str] = field(default_factory=list)


@_kind("COMFY_AUTOGROW_V3", "Input")
class Autogrow:
    @dataclass(eq=False)
    class TemplatePrefix:
        input: Input
        prefix: str
        min: int = 1
        max: int = 10

        def __post_init__(self):
            assert not hasattr(self.input, "template"), "an Autogrow cannot grow inside another"
            assert self.min >= 0 and 1 <= self.max <= 100
            self.input = copy(self.input)
            if isinstance(self.input, WidgetInput):
                self.input.force_input = True

        def as_dict(self) -> dict[str, Any]:
            sockets = _input_types([self.input])
            return {"input": sockets, "prefix": self.prefix, "min": self.min, "max": self.max}

    @dataclass(eq=False)
    class Input(Input):
        template: Autogrow.TemplatePrefix


def _input_types(inputs: list[Input]) -> dict[str, dict]:
    """`{"required": {id: (type, options)}, "optional": …}`, as the front-end reads it."""
    found: dict[str, dict] = {"required": {}}
    for one in inputs:
        options = one.as_dict()
        group = "optional" if options.pop("optional", False) else "required"
        found.setdefault(group, {})[one.id] = (one.get_io_type(), options)
    return found


@dataclass(eq=False)
class Schema:
    node_id: str
    _: KW_ONLY
    display_name: str | None = None
    category: str = "sd"
    inputs: list[Input] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    hidden: list[Hidden] = field(default_factory=list)
    description: str = ""
    is_input_list: bool = False
    is_output_node: bool = False
    is_deprecated: bool = False
    is_experimental: bool = False
    is_api_node: bool = False
    not_idempotent: bool = False
    enable_expand: bool = False

    def finalize(self) -> None:
        if self.is_output_node:
            self.hidden += [one for one in (Hidden.prompt, Hidden.extra_pnginfo) if one not in self.hidden]
        for index, output in enumerate(self.outputs):
            output.id = output.id or f"_{index}_{output.io_type}_"

    def validate(self) -> None:
        for kind, sockets in (("input", self.inputs), ("output", self.outputs)):
            twice = [id for id, count in Counter(socket.id for socket in sockets).items() if count > 1]
            if twice:
                raise ValueError(f"{self.node_id}: {kind} ids given twice: {twice}")


class NodeOutput:
    def __init__(self, *args: Any, ui: Any = None, expand: dict | None = None, block_execution: str | None = None):
        self.args, self.ui, self.expand, self.block_execution = args, ui, expand, block_execution

    @property
    def result(self) -> tuple | None:
        return self.args or None


class ComfyNode:
    hidden: Any = None

    @classmethod
    def define_schema(cls) -> Schema:
        raise TypeError(f"{cls.__name__} has no schema")

    @classmethod
    def execute(cls, **kwargs) -> NodeOutput:
        raise TypeError(f"{cls.__name__} cannot be executed")

    @classmethod
    def check_lazy_status(cls, **kwargs) -> list[str]:
        return [name for name, value in kwargs.items() if value is None]

    @classmethod
    def FINALIZE_SCHEMA(cls) -> Schema:
        schema = cls.define_schema()
        schema.finalize()
        return schema

    @classmethod
    def GET_SCHEMA(cls) -> Schema:
        schema = cls.FINALIZE_SCHEMA()
        schema.validate()
        return schema

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict]:
        schema = cls.FINALIZE_SCHEMA()
        found = _input_types(schema.inputs)
        if schema.hidden:
            found["hidden"] = {one.name: (one.value,) for one in schema.hidden}
        return found

    @classmethod
    def GET_NODE_INFO_V1(cls) -> dict[str, Any]:
        """The node's entry of `GET /object_info`."""
        schema, taken = cls.GET_SCHEMA(), cls.INPUT_TYPES()
        return {
            "input": taken,
            "input_order": {group: list(inputs) for group, inputs in taken.items()},
            "output": [output.io_type for output in schema.outputs],
            "output_is_list": [output.is_output_list for output in schema.outputs],
            "output_name": [output.display_name or output.io_type for output in schema.outputs],
            "output_tooltips": [output.tooltip for output in schema.outputs],
            "output_matchtypes": None,
            "name": schema.node_id,
            "display_name": schema.display_name,
            "description": schema.description,
            "python_module": getattr(cls, "RELATIVE_PYTHON_MODULE", "nodes"),
            "category": schema.category,
            "output_node": schema.is_output_node,
            "deprecated": schema.is_deprecated,
            "experimental": schema.is_experimental,
            "api_node": schema.is_api_node,
        }
