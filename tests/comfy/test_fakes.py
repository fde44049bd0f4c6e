"""The stand-ins in tests/fakes promise nothing that ComfyUI does not keep: names, arguments, their order, wire types.

Both sides are read as text: nothing of ComfyUI is imported.
"""

import ast
import importlib.util
import os
from pathlib import Path

import pytest


pytestmark = pytest.mark.comfy

FAKES = Path(__file__).resolve().parents[1] / "fakes"
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")
FILES = [path.relative_to(FAKES) for path in sorted(FAKES.rglob("*.py"))]
REST = "**"  # stands for all further arguments


class Module:
    """The classes and functions of a file; a class answers for what it inherits within the file."""

    def __init__(self, path: Path):
        self.classes: dict[str, ast.ClassDef] = {}
        self.functions: dict[str, list[str]] = {}
        self._read(ast.parse(path.read_text("utf-8")), "")

    def _read(self, body, prefix: str) -> None:
        for one in ast.iter_child_nodes(body):
            if isinstance(one, ast.ClassDef):
                self.classes[prefix + one.name] = one
                self._read(one, f"{prefix}{one.name}.")
            elif isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef)):
                self.functions[prefix + one.name] = self._arguments(one.args)

    @staticmethod
    def _arguments(args: ast.arguments) -> list[str]:
        names = [arg.arg for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs)]
        return [name for name in names if name not in ("self", "cls")] + [REST] * bool(args.kwarg)

    def _bases(self, name: str) -> list[str]:
        """The base classes of a class; a name that is its own inner class's means the outer one."""
        return [base.id for base in self.classes[name].bases if isinstance(base, ast.Name) and base.id in self.classes]

    def fields(self, name: str) -> list[str]:
        """The arguments that a dataclass's annotations make."""
        inherited = [field for base in self._bases(name) for field in self.fields(base)]
        own = [one for one in self.classes[name].body if isinstance(one, ast.AnnAssign)]
        return inherited + [one.target.id for one in own if one.target.id != "_" and "ClassVar" not in ast.unparse(one)]

    def is_data(self, name: str) -> bool:
        return any("dataclass" in ast.unparse(mark) for mark in self.classes[name].decorator_list)

    def arguments(self, name: str) -> list[str] | None:
        """Of `function`, `Class.method` or `Class` (its constructor); None: there is no such thing."""
        if name in self.classes:
            return self.fields(name) if self.is_data(name) else self.arguments(f"{name}.__init__")
        if name in self.functions:
            return self.functions[name]
        owner, _, method = name.rpartition(".")
        bases = self._bases(owner) if owner in self.classes else []
        return next((found for base in bases if (found := self.arguments(f"{base}.{method}")) is not None), None)

    def public(self) -> list[str]:
        names = [*self.functions, *(name for name in self.classes if self.arguments(name))]
        return [name for name in names if not any(part.startswith("_") for part in name.split("."))]


def faults(fake: Module, real: Module) -> list[str]:
    """Every public name of `fake` that `real` lacks, or whose arguments it would refuse."""
    found = []
    for name in fake.public():
        here, there = fake.arguments(name), real.arguments(name)
        if there is None:
            found.append(f"{name} does not exist")
            continue
        extra = [arg for arg in here if arg not in there and arg != REST]
        if extra and REST not in there:
            found.append(f"{name} has no {', '.join(extra)}")
        elif (shared := [arg for arg in here if arg in there]) != [arg for arg in there if arg in here]:
            found.append(f"{name} wants another order than {', '.join(shared)}")
    return found


@pytest.mark.parametrize("file", FILES, ids=str)
def test_stand_ins_have_the_names_and_arguments_of_the_real_ones(file):
    fake = Module(FAKES / file)
    if fake.public():
        assert (COMFYUI / file).is_file(), f"no {file} in {COMFYUI}; set COMFYUI_PATH to a ComfyUI checkout"
        assert faults(fake, Module(COMFYUI / file)) == []


def test_socket_types_and_public_names_are_the_real_ones():
    path = Path("comfy_api", "latest", "_io.py")
    spec = importlib.util.spec_from_file_location("fake_io", FAKES / path)
    fake = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fake)
    real = Module(COMFYUI / path)
    tree = ast.parse((COMFYUI / path).read_text("utf-8"))
    public = next(ast.literal_eval(one.value) for one in tree.body if isinstance(one, ast.Assign))
    assert set(fake.__all__) - set(public) == set()
    marks = {name: ast.unparse(mark) for name, cls in real.classes.items() for mark in cls.decorator_list}
    types = {name: getattr(fake, name).io_type for name in fake.__all__ if hasattr(getattr(fake, name), "io_type")}
    assert {name: kind for name, kind in types.items() if f"'{kind}'" not in marks[name]} == {}


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("def f(a, b, c): ...", "f has no c"),
        ("def f(b, a): ...", "f wants another order than b, a"),
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
