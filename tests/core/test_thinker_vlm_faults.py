"""A thinker in a folder that fails with any kind of error: the rules go on, and a cancel stays a cancel."""

import gc
import weakref
from types import SimpleNamespace

import pytest
import torch

from tbd_core.cot_fa import vlm
from tbd_core.cot_fa.asking import STEPS, Memory, Message, UnansweredError, ask
from tbd_core.cot_fa.think import think
from tbd_core.cot_fa.thinkers import ThinkerOptions, thought_of
from tbd_core.cot_fa.vlm import VLM


QUESTION = [Message("user", "Who is seen?")]
GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 40.00 GiB")
MPS = RuntimeError("MPS backend out of memory (MPS allocated: 30.19 GB)")
CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: 40 bytes")
FULL = (GPU, MPS, CPU, MemoryError())


@pytest.fixture
def folder(tmp_path):
    """What can be told of a model before it is loaded, and no more."""
    folder = tmp_path / "seer"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llava"}')
    (folder / "model.safetensors").write_bytes(b"")
    return folder


class Network:
    """Stands for processor and model; `fails` at its first layer."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, fails: BaseException | None = None) -> None:
        self.fails, self.tokenizer = fails, SimpleNamespace(decode=lambda *_, **__: "no answer")

    def generate(self, stopping_criteria, **_):
        if self.fails is not None:
            raise self.fails
        for one in stopping_criteria:
            one(torch.zeros(1, 1), None)
        return torch.zeros(1, 2)


@pytest.fixture
def serve(folder, monkeypatch):
    """`serve(fails) -> VLM` whose model fails so."""
    inputs = type("Inputs", (dict,), {"to": lambda self, *_: self})(input_ids=torch.zeros(1, 1))
    monkeypatch.setattr(vlm, "prepare", lambda *_: inputs)

    def serve(fails=None) -> VLM:
        monkeypatch.setattr(vlm, "load", lambda *_: (network := Network(fails), network))
        return VLM(folder, "cpu", "fp32")

    return serve


def raising(error):
    def raises(*_, **__):
        raise error

    return raises


@pytest.mark.parametrize(
    ("error", "every"),
    [
        *((error, False) for error in FULL),
        (AttributeError("'NoneType' object has no attribute 'shape'"), False),
        (ImportError("needs torchvision"), False),
        (AssertionError("one picture too many"), True),
        (RuntimeError("shapes do not fit"), True),
        (ZeroDivisionError("division by zero"), True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_model_that_fails_never_loses_the_run(serve, error, every):
    thought = ask(serve(error), "happy", memory=Memory())
    said = [text for text in thought.warnings if "by the rules" in text]
    assert len(said) == (len(STEPS) - 1 if every else 1), "without a picture step I is not asked"
    assert all(f"it failed with {type(error).__name__}: " in text for text in said)
    assert (" and all that follow" in said[0]) is not every
    assert thought.prompts == think("happy").prompts


@pytest.mark.parametrize("error", FULL, ids=lambda error: str(error)[:6])
def test_a_model_that_does_not_fit_is_said_so_wherever_it_is_found(folder, error, monkeypatch):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = SimpleNamespace(chat_template="", tokenizer=0)
    monkeypatch.setattr(AutoProcessor, "from_pretrained", lambda *_, **__: processor)
    network = SimpleNamespace(generation_config=SimpleNamespace(), to=raising(error))
    for loaded in (raising(error), lambda *_, **__: (network, {"missing_keys": []})):
        monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", loaded)
        with pytest.raises(UnansweredError, match=r"^it does not fit into the memory of cpu$") as caught:
            VLM(folder, "cpu").answer(QUESTION, None, lambda: None)
        assert caught.value.hopeless


def test_an_error_of_any_kind_while_loading_is_one_warning(folder, monkeypatch):
    monkeypatch.setattr(vlm, "load", raising(AssertionError("half a file\nand more")))
    (said,) = (text for text in ask(VLM(folder), "happy", memory=Memory()).warnings if "by the rules" in text)
    assert "and all that follow" in said and "it cannot be loaded (AssertionError: 'half a file')" in said


class CancelledError(Exception):
    """As a host raises it when its user pressed cancel."""


@pytest.mark.parametrize("error", [CancelledError(), AttributeError("cancelled"), MemoryError(), KeyboardInterrupt()])
def test_a_cancel_of_any_kind_passes_through_unchanged(serve, error):
    for token in (1, 2, 3):  # before loading, after it, at the first token
        calls = []

        def check(calls=calls, token=token):
            calls.append(1)
            if len(calls) == token:
                raise error

        with pytest.raises(type(error)) as caught:
            serve().answer(QUESTION, None, check)
        assert caught.value is error and len(calls) == token


def test_a_users_interrupt_inside_the_model_passes_through(serve):
    with pytest.raises(KeyboardInterrupt):
        serve(KeyboardInterrupt()).answer(QUESTION, None, lambda: None)


@pytest.mark.parametrize("stays", [True, False])
def test_one_that_stayed_is_freed_before_another_is_loaded(serve, folder, stays, monkeypatch):
    serve()
    loaded, there = [], []

    def alive() -> int:
        gc.collect()
        return sum(model() is not None for model in loaded)

    def load(*_):
        there.append(alive())
        loaded.append(weakref.ref(network := Network()))
        return network, network

    monkeypatch.setattr(vlm, "load", load)
    for dtype, stay in (("fp32", True), ("bf16", stays)):
        thinker = VLM(folder, "cpu", dtype, stay, make_room=lambda _: there.append(alive()))
        thinker.answer(QUESTION, None, lambda: None)
        thinker.close()
    assert there == [0, 0, 0, 0], "models in memory when room is made for the next and when it is loaded"
    del thinker
    assert alive() == int(stays)
    VLM(folder, "cpu").close()


def test_one_that_stayed_is_freed_by_the_next_that_does_not_stay_though_it_is_not_asked(serve, folder):
    network = weakref.ref(serve()._load()[1])
    gc.collect()
    assert network() is None
    thinker = VLM(folder, "cpu", "fp32", stay=True)
    network = weakref.ref(thinker._load()[1])
    thinker.close()
    gc.collect()
    assert network() is not None
    VLM(folder, "cpu", "bf16").close()
    gc.collect()
    assert network() is None


def test_a_folder_that_is_no_model_is_still_refused_before_the_run(folder):
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(vlm.InputError, match="is of the kind 'bert', which does not both see and speak"):
        thought_of(ThinkerOptions("vlm", model=str(folder)), "happy")
