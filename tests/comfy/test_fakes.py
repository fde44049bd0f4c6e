"""The stand-ins in tests/fakes promise nothing that ComfyUI does not keep: names, arguments, their order, wire types.

Both sides are read as text: nothing of ComfyUI is imported.
"""

import ast
import os
import runpy
from dataclasses import dataclass
from pathlib import Path

import pytest


pytestmark = pytest.mark.comfy

FAKES = Path(__file__).resolve().parents[1] / "fakes"
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")
FILES = [path.relative_to(FAKES) for path in sorted(FAKES.rglob("*.py")) if path.parent.name != "av"]  # PyAV's own


@dataclass(frozen=True)
class Arguments:
    placed: list[str]  # may be given by place
    named: list[str]  # may be given by name only
    rest: bool = False  # **kwargs


class Module:
    """The classes and functions of a file; a class answers for what it inherits within the file."""

    def __init__(self, path: Path):
        self.tree = ast.parse(path.read_text("utf-8"))
        self.classes: dict[str, ast.ClassDef] = {}
        self.functions: dict[str, Arguments] = {}
        self._read(self.tree, "")

    def _read(self, body: ast.AST, prefix: str) -> None:
        for one in ast.iter_child_nodes(body):
            if isinstance(one, ast.ClassDef):
                self.classes[prefix + one.name] = one
                self._read(one, f"{prefix}{one.name}.")
            elif isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef)):
                args = one.args
                placed = [arg.arg for arg in (*args.posonlyargs, *args.args) if arg.arg not in ("self", "cls")]
                self.functions[prefix + one.name] = Arguments(
                    placed, [arg.arg for arg in args.kwonlyargs], rest=args.kwarg is not None
                )

    def _bases(self, name: str) -> list[str]:
        """The base classes of a class; a name that is its own inner class's means the outer one."""
        return [base.id for base in self.classes[name].bases if isinstance(base, ast.Name) and base.id in self.classes]

    def _fields(self, name: str) -> Arguments:
        """The arguments that a dataclass's annotations make."""
        inherited = [self._fields(base) for base in self._bases(name)]
        placed = [field for base in inherited for field in base.placed]
        named = [field for base in inherited for field in base.named]
        into = named if "kw_only=True" in self.marks(name) else placed
        for one in self.classes[name].body:
            if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
                kind = ast.unparse(one.annotation)
                into = named if kind == "KW_ONLY" else into
                if kind != "KW_ONLY" and "ClassVar" not in kind:
                    into.append(one.target.id)
        return Arguments(placed, named)

    def marks(self, name: str) -> str:
        return " ".join(ast.unparse(mark) for mark in self.classes[name].decorator_list)

    def arguments(self, name: str) -> Arguments | None:
        """Of `function`, `Class.method` or `Class` (its constructor); None: there is no such thing."""
        if name in self.classes:
            return self._fields(name) if "dataclass" in self.marks(name) else self.arguments(f"{name}.__init__")
        if name in self.functions:
            return self.functions[name]
        owner, _, method = name.rpartition(".")
        bases = self._bases(owner) if owner in self.classes else []
        return next((found for base in bases if (found := self.arguments(f"{base}.{method}"))), None)

    def public(self) -> dict[str, Arguments]:
        found = {name: self.arguments(name) for name in [*self.functions, *self.classes]}
        hidden = {name for name in found if any(part.startswith("_") for part in name.split("."))}
        return {name: args for name, args in found.items() if args and name not in hidden}


def faults(fake: Module, real: Module) -> list[str]:
    """Every public name of `fake` that `real` lacks, or whose arguments it would refuse or take for others."""
    found = []
    for name, here in fake.public().items():
        there = real.arguments(name)
        if there is None:
            found.append(f"{name} does not exist")
            continue
        strange = [arg for arg in here.placed + here.named if arg not in there.placed + there.named]
        if strange and not there.rest:
            found.append(f"{name} has no {', '.join(strange)}")
        elif not strange and here.placed != there.placed[: len(here.placed)]:
            found.append(f"{name} begins with {', '.join(there.placed[: len(here.placed)])}")
    return found


@pytest.mark.parametrize("file", FILES, ids=str)
def test_stand_ins_have_the_names_and_arguments_of_the_real_ones(file):
    fake = Module(FAKES / file)
    if fake.public():
        assert (COMFYUI / file).is_file(), f"no {file} in {COMFYUI}; set COMFYUI_PATH to a ComfyUI checkout"
        assert faults(fake, Module(COMFYUI / file)) == []


def test_socket_types_and_public_names_are_the_real_ones():
    path = Path("comfy_api", "latest", "_io.py")
    fake = runpy.run_path(str(FAKES / path))
    real = Module(COMFYUI / path)
    lists = (one for one in real.tree.body if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == "__all__")
    public = ast.literal_eval(next(lists).value)
    assert set(fake["__all__"]) - set(public) == set()
    types = {name: fake[name].io_type for name in fake["__all__"] if hasattr(fake[name], "io_type")}
    assert {name: kind for name, kind in types.items() if f"'{kind}'" not in real.marks(name)} == {}


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("def f(a, b, c): ...", "f has no c"),
        ("def f(b, a): ...", "f begins with a, b"),
        ("def g(): ...", "g does not exist"),
        ("@dataclass\nclass A:\n    x: int\n    z: int", "A has no z"),
        ("class B:\n    def m(self, q): ...", "B.m has no q"),
    ],
)
def test_a_planted_difference_is_found(tmp_path, code, fault):
    (tmp_path / "real.py").write_text(
        "def f(a, b): ...\nclass A:\n    def __init__(self, x, y): ...\n    def m(self, p): ...\nclass B(A): ...\n"
    )
    (tmp_path / "fake.py").write_text(code)
    assert faults(Module(tmp_path / "fake.py"), Module(tmp_path / "real.py")) == [fault]
