"""Prompt Builder and Edit Prompts: what they hand on, show, and do not even ask for."""

from dataclasses import replace
from pathlib import Path

import pytest

from tbd_core.cot_fa.record import steps_as_text
from tbd_core.cot_fa.think import think
from tbd_core.facs.action_units import make_unit


WIDGETS = dict(emotion="happy", intensity="Intense", subject="", style="clip", thinker="rules")
FIELDS = dict(coarse_text="My person.", fine_text="My smile.", negative_text="my fear")
NAMES = ("coarse", "fine", "negative")


@pytest.fixture
def thinking(pack):
    from tbd_pack.nodes import thinking

    return thinking


@pytest.fixture
def build(run, thinking):
    return lambda **changed: run(thinking.TBDPromptBuilder, **(WIDGETS | changed))


@pytest.mark.parametrize(("emotion", "style"), [("happy", "clip"), ("contempt", "natural"), ("neutral", "clip")])
def test_the_builder_hands_on_the_thought(build, emotion, style):
    output = build(emotion=emotion, style=style, subject="an old man")
    thought = think(emotion, "Intense", "an old man", style)
    coarse, fine, negative, given, steps, chart = output.args
    assert (coarse, fine, negative) == (thought.prompts.coarse, thought.prompts.fine, thought.prompts.negative)
    assert given.to_dict() == thought.to_dict()
    assert steps == "\n".join(steps_as_text(thought))
    assert output.ui == {"text": [steps], "warnings": list(thought.warnings)}
    assert tuple(chart.shape) == (1, 256, 1024, 3) and 0 <= chart.min() < chart.max() <= 1


def test_a_portrait_is_noted_and_not_looked_at(build):
    import torch

    with_portrait = build(portrait=torch.zeros(1, 48, 64, 3)).args
    assert "portrait: picture 64 x 48" in with_portrait[4]
    assert with_portrait[:3] == build(portrait=torch.ones(1, 48, 64, 3)).args[:3] == build().args[:3]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"emotion": "hapy"}, "unknown emotion 'hapy'; did you mean happy"),
        ({"intensity": "7"}, "unknown intensity '7'"),
        ({"style": "haiku"}, "unknown prompt style 'haiku'; choose clip or natural"),
        ({"thinker": "oracle"}, "thinker is 'oracle'; choose rules"),
    ],
)
def test_what_a_link_brings_is_checked_too(build, changed, message):
    with pytest.raises(ValueError, match=message):
        build(**changed)


class Graph:
    """Edit Prompts with links, executed as ComfyUI does: lazy inputs first None, then computed if asked for."""

    def __init__(self, run, node, **links):
        self.run, self.node, self.links, self.computed = run, node, links, []

    def queue(self, mode, **fields):
        given = dict(mode=mode, **(FIELDS | fields), **dict.fromkeys(self.links))
        self.computed = []
        while asked := [name for name in self.node.check_lazy_status(**given) if given[name] is None]:
            assert set(asked) <= set(self.links), "an input without a link was asked for"
            self.computed += asked
            given |= {name: self.links[name] for name in asked}
        return self.run(self.node, **given)


@pytest.fixture
def graph(run, thinking):
    thought = think("happy")
    words = dict(zip(NAMES, ("A person.", thought.prompts.fine, "watermark"), strict=True))
    return Graph(run, thinking.TBDEditPrompts, **words, thought=thought)


def test_auto_computes_and_hands_on_what_is_linked(graph):
    output = graph.queue("auto")
    assert graph.computed == [*NAMES, "thought"]
    assert list(output.args) == [graph.links[name] for name in NAMES]
    assert output.ui["state"] == ["auto"] and output.ui["fine"] == [graph.links["fine"]]


def test_edited_hands_on_the_persons_words_and_computes_nothing(graph):
    output = graph.queue("edited")
    assert graph.computed == []
    assert list(output.args) == list(FIELDS.values())
    assert output.ui["state"] == ["edited"] and output.ui["coarse"] == ["My person."]


def test_review_shows_the_prompts_and_stops_all_that_is_below(graph):
    from comfy_execution.graph_utils import ExecutionBlocker

    output = graph.queue("review")
    assert len(output.args) == 3
    assert all(isinstance(value, ExecutionBlocker) and value.message is None for value in output.args)
    assert output.ui["state"] == ["review"] and output.ui["negative"] == ["watermark"]


def test_what_nothing_is_linked_to_is_the_persons_in_auto(run, thinking):
    graph = Graph(run, thinking.TBDEditPrompts, fine="A severe lip corner puller.")
    output = graph.queue("auto")
    assert graph.computed == ["fine"]
    assert list(output.args) == ["My person.", "A severe lip corner puller.", "my fear"]


def test_the_digest_follows_the_texts_and_not_the_mode(graph):
    one = graph.queue("auto").ui["digest"]
    assert one == graph.queue("review").ui["digest"] != graph.queue("edited").ui["digest"]


def test_a_plans_unit_that_a_generated_prompt_leaves_out_is_said(run, thinking):
    graph = Graph(run, thinking.TBDEditPrompts, fine="A smile.", thought=think("happy"))
    warnings = graph.queue("auto").ui["warnings"]
    assert [text for text in warnings if "AU12 is in the plan, but the fine prompt does not say" in text]


@pytest.mark.parametrize("mode", ["auto", "review"])
def test_a_plan_with_a_hard_exclusion_is_a_red_node_that_says_which_unit_to_remove(graph, mode):
    units = (make_unit(12, "C"), make_unit(24, "B"), make_unit(26, "C"))
    graph.links["thought"] = replace(graph.links["thought"], action_units=units)
    with pytest.raises(ValueError, match=r"AU24 .* and AU26 .* exclude each other: .*; remove one") as caught:
        graph.queue(mode)
    assert type(caught.value).__name__ == "InputError"
    assert list(graph.queue("edited").args) == list(FIELDS.values())


def test_words_of_ones_own_are_not_called_cut_while_any_encoder_may_read_them(graph):
    warnings = graph.queue("edited", fine_text="word " * 80).ui["warnings"]
    assert [text for text in warnings if "fine prompt has 82 tokens; a CLIP encoder reads 77 and would cut" in text]


@pytest.mark.parametrize("name", ["coarse", "fine"])
def test_blank_words_stop_the_run_before_anything_is_drawn(graph, name):
    with pytest.raises(ValueError, match=rf"mode is edited and the {name} prompt is blank \(0 words\)"):
        graph.queue("edited", **{f"{name}_text": " "})
    assert graph.queue("auto", **{f"{name}_text": " "}).args[0] == "A person."


def test_texts_are_sockets_that_wait_and_the_node_can_be_run_alone(thinking):
    schema = thinking.TBDEditPrompts.GET_SCHEMA()
    lazy = {one.id: (one.optional, one.lazy) for one in schema.inputs if one.id in (*NAMES, "thought")}
    assert lazy == dict.fromkeys((*NAMES, "thought"), (True, True))
    assert schema.is_output_node
    assert [one.id for one in schema.inputs][:4] == ["mode", "coarse_text", "fine_text", "negative_text"]


@pytest.fixture
def gone(pack, monkeypatch):
    """A server that cannot be reached; the questions that it was asked."""
    from tbd_pack.tbd_core.cot_fa import server
    from tbd_pack.tbd_core.cot_fa.asking import UnansweredError

    asked = []

    def answer(self, messages, picture, check):
        asked.append((self, picture))
        check()
        raise UnansweredError("it cannot be reached", hopeless=True)

    monkeypatch.setattr(server.Server, "answer", answer)
    return asked


def test_a_server_is_shown_the_portrait_and_what_it_fails_in_is_the_rules(build, gone, thinking):
    import torch

    before = thinking.TBDPromptBuilder.fingerprint_inputs(thinker="server")
    fields = dict(thinker="server", thinker_url="http://127.0.0.1:1", thinker_model="seer")
    output = build(**fields, portrait=torch.zeros(1, 48, 64, 3))
    (server, picture), *more = gone
    assert (server.model, server.host, picture.size, more) == ("seer", "127.0.0.1", (64, 48), [])
    assert output.args[:3] == build().args[:3]
    assert len(output.ui["warnings"]) == 1 and "it cannot be reached" in output.ui["warnings"][0]
    assert thinking.TBDPromptBuilder.fingerprint_inputs(thinker="server") != before  # the same inputs are asked again


def test_what_is_left_in_another_thinkers_fields_is_no_mistake(build, gone):
    left = build(thinker_url="http://127.0.0.1:1", thinker_model="seer", thinker_stays=True)
    assert left.args[:3] == build().args[:3] and gone == []


def test_a_cancel_is_heard_while_a_server_thinks(build, gone):
    import comfy.model_management

    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        build(thinker="server", thinker_model="seer")


def test_fields_of_the_thinkers_stand_behind_all_others(thinking):
    ids = [one.id for one in thinking.TBDPromptBuilder.GET_SCHEMA().inputs]
    assert ids[-4:] == ["portrait", "thinker_url", "thinker_model", "thinker_stays"]


@pytest.fixture
def seer(pack, monkeypatch):
    """A vlm that need not be there: where it was to compute, for which bytes room was made, and when it was loaded."""
    from tbd_pack.tbd_core.cot_fa import vlm
    from tbd_pack.tbd_core.cot_fa.asking import UnansweredError

    told = []

    def load(folder, device, dtype):
        told.append(("loaded", device))
        raise UnansweredError("it is only a stand-in", hopeless=True)

    monkeypatch.setattr(vlm, "check_folder", lambda folder: Path(folder))
    monkeypatch.setattr(vlm, "load", load)
    return told


def test_what_comfyui_holds_makes_room_before_a_vlm_is_loaded_and_for_no_other(
    build, gone, seer, tmp_path, monkeypatch, thinking
):
    import comfy.model_management as mm

    (tmp_path / "model.safetensors").write_bytes(bytes(1000))

    def freed(needed, device, keep_loaded=()):
        seer.append((needed, device.type))

    monkeypatch.setattr(mm, "free_memory", freed)
    build()
    build(thinker="server", thinker_model="another seer", thinker_url="http://127.0.0.1:1")
    assert seer == []
    build(thinker="vlm", thinker_model=str(tmp_path))
    # ComfyUI computes on the CPU here, and so does what it does not manage.
    assert seer == [(1000 + 2 * 2**30, "cpu"), ("loaded", "cpu")]
    monkeypatch.setattr(mm, "is_device_cpu", lambda device: False)
    assert thinking.comfy_bridge.foreign_device() == "auto"


def test_with_memory_enough_nothing_has_to_leave(pack, monkeypatch):
    import comfy.model_management as mm

    from tbd_pack.nodes import comfy_bridge

    mm.current_loaded_models[:] = ["a model"]
    comfy_bridge.make_room(2**30)
    assert mm.current_loaded_models == ["a model"]
    monkeypatch.setattr(mm, "get_free_memory", lambda *_: 2**29)
    comfy_bridge.make_room(2**30)
    assert mm.current_loaded_models == []
