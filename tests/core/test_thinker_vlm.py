"""A thinker in a folder: a tiny random LLaVA, saved as transformers saves it, is loaded, asked, cancelled and freed."""

import gc
import json
import re
import shutil
import weakref

import pytest
from PIL import Image

from tbd_core.cot_fa import vlm
from tbd_core.cot_fa.asking import Memory, Message, ask
from tbd_core.cot_fa.think import think
from tbd_core.cot_fa.thinkers import ThinkerOptions, check_thinker, thought_of
from tbd_core.cot_fa.tokenizer import byte_alphabet
from tbd_core.cot_fa.vlm import VLM
from tbd_core.errors import InputError


QUESTION = [Message("user", "Who is seen?")]
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] + ': ' }}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder: every class is the real one, 16 numbers wide; its tokens are the bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )
    from transformers.models.clip import image_processing_pil_clip as clip

    bytes_only = Tokenizer(models.BPE({letter: i for i, letter in enumerate(byte_alphabet())}, []))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytes_only.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytes_only, eos_token="</s>", pad_token="<pad>", additional_special_tokens=["<image>"]
    )
    pictures = clip.CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = LlavaProcessor(
        pictures, tokenizer, patch_size=14, vision_feature_select_strategy="default", chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    )  # fmt: skip
    narrow = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**narrow, image_size=28, patch_size=14),
        text_config=LlamaConfig(**narrow, vocab_size=len(tokenizer), max_position_embeddings=8192),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("models") / "tiny-llava"
    model = LlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def few_tokens(monkeypatch):
    monkeypatch.setattr(vlm, "MOST_TOKENS", 12)


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of the folder to be spoilt."""
    return shutil.copytree(saved, tmp_path / "model")


@pytest.fixture
def picture():
    return Image.linear_gradient("L").convert("RGB")


def seer(folder, **given) -> VLM:
    return VLM(folder, "cpu", "fp32", **given)


def test_the_answer_is_transformers_own_greedy_one(saved, picture):
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(saved)
    model = AutoModelForImageTextToText.from_pretrained(saved).eval()
    text = "user: <image>Who is seen?\nassistant: "
    inputs = processor(text=[text], images=[picture], return_tensors="pt")
    with torch.inference_mode():
        made = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    expected = processor.tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    thinker = seer(saved)
    assert thinker.answer(QUESTION, picture, lambda: None) == expected != ""
    assert thinker.answer(QUESTION, picture, lambda: None) == expected
    thinker.close()


def test_the_picture_stands_in_the_first_question_and_is_optional(saved, picture):
    processor, model = vlm.load(saved, "cpu", "fp32")
    again = [*QUESTION, Message("assistant", "Hm."), Message("user", "Once more.")]
    with_picture, without = vlm.prepare(processor, again, picture), vlm.prepare(processor, again, None)
    assert with_picture["pixel_values"].shape == (1, 3, 28, 28) and "pixel_values" not in without
    shown = (with_picture["input_ids"] == model.config.image_token_index).sum()
    assert shown == (28 // 14) ** 2
    text = processor.tokenizer.decode(without["input_ids"][0])
    assert text == "user: Who is seen?\nassistant: Hm.\nuser: Once more.\nassistant: "


def test_a_cancel_is_heard_at_the_next_token(saved, picture):
    class CancelledError(Exception):
        pass

    calls = []

    def check():
        calls.append(1)
        if len(calls) == 5:  # before and after loading, then with each token
            raise CancelledError

    thinker = seer(saved)
    with pytest.raises(CancelledError):
        thinker.answer(QUESTION, picture, check)
    assert len(calls) == 5
    thinker.close()


@pytest.mark.parametrize("error", [RuntimeError("cancelled"), ValueError("cancelled"), KeyboardInterrupt()])
def test_a_cancel_of_any_kind_is_no_failure_of_the_model(saved, picture, error):
    calls = []

    def check():
        calls.append(1)
        if len(calls) == 4:
            raise error

    with pytest.raises(type(error)) as caught:
        seer(saved).answer(QUESTION, picture, check)
    assert caught.value is error


def test_what_a_model_babbles_is_repaired_once_and_then_the_rules_think(saved, picture):
    thinker = seer(saved)
    thought = ask(thinker, "angry", "Mild", picture=picture, memory=Memory())
    thinker.close()
    rules = think("angry", "Mild")
    assert (thought.action_units, thought.prompts) == (rules.action_units, rules.prompts)
    assert len(thought.warnings) == 4
    assert all("by the rules, not by the thinker tiny-llava: its answer" in text for text in thought.warnings)


@pytest.mark.parametrize("stay", [False, True])
def test_it_is_freed_after_thinking_unless_told_to_stay(saved, picture, stay, monkeypatch):
    loaded, load = [], vlm.load

    def counted(*given):
        processor, model = load(*given)
        loaded.append(weakref.ref(model))
        return processor, model

    monkeypatch.setattr(vlm, "load", counted)
    monkeypatch.setattr(vlm, "MOST_TOKENS", 2)
    for emotion in ("happy", "sad"):
        options = ThinkerOptions("vlm", model=str(saved), device="cpu", dtype="fp32", stay=stay)
        thought_of(options, emotion, picture=lambda: picture)
    gc.collect()
    assert [model() is not None for model in loaded] == ([True] if stay else [False, False])
    seer(saved).close()
    gc.collect()
    assert [model() for model in loaded] == [None] * len(loaded)


def broken(folder, how: str):
    if how == "absent":
        return folder / "nowhere"
    if how == "a file":
        return folder / "config.json"
    if how == "no config":
        (folder / "config.json").unlink()
    elif how == "config is no JSON":
        (folder / "config.json").write_text("{half")
    elif how == "config is a list":
        (folder / "config.json").write_text("[]")
    elif how == "reads no pictures":
        (folder / "config.json").write_text('{"model_type": "bert"}')
    elif how == "a pickle alone":
        next(folder.glob("*.safetensors")).rename(folder / "pytorch_model.bin")
    return folder


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("absent", "nowhere is not a folder"),
        ("a file", "config.json is not a folder"),
        ("no config", "model has no config.json"),
        ("config is no JSON", "config.json cannot be read"),
        ("config is a list", "is of the kind None, which does not both see and speak"),
        ("reads no pictures", "is of the kind 'bert', which does not both see and speak"),
        ("a pickle alone", r"has 0 files \*.safetensors"),
    ],
)
def test_a_wrong_folder_is_refused_before_anything_is_loaded(folder, how, message):
    with pytest.raises(InputError, match=message) as caught:
        check_thinker(ThinkerOptions("vlm", model=str(broken(folder, how))))
    assert "\n" not in str(caught.value)


def test_no_folder_at_all_is_refused():
    with pytest.raises(InputError, match=r"thinker-model is blank \(0 characters\)"):
        check_thinker(ThinkerOptions("vlm"))


def truncate(folder):
    weights = next(folder.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1000])


def lose_a_weight(folder):
    from safetensors.torch import load_file, save_file

    weights = next(folder.glob("*.safetensors"))
    state = load_file(weights)
    state.pop(next(name for name in state if name.endswith("lm_head.weight")))
    save_file(state, weights, {"format": "pt"})


def lose_template(folder):
    (folder / "chat_template.jinja").unlink()


def lose_tokenizer(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncate, r"model cannot be loaded \(SafetensorError"),
        (lose_a_weight, "model lacks 1 weights, such as lm_head.weight"),
        (lose_template, "model has 0 chat templates"),
        (lose_tokenizer, r"model cannot be loaded \("),
    ],
)
def test_a_damaged_folder_is_one_warning_and_the_rules_think(folder, spoil, message, picture):
    spoil(folder)
    thought = ask(seer(folder), "sad", picture=picture, memory=Memory())
    (said,) = thought.warnings
    assert re.search("step I .* is by the rules and all that follow, not by the thinker model: .*" + message, said)
    assert "\n" not in said and len(said) < 700 and thought.prompts == think("sad").prompts


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('roles must alternate') }}", "TemplateError: .*roles must alternate"),
        ("{{ nobody.knows.it }}", "UndefinedError: .*'nobody' is undefined"),
        ("{% for %}", "TemplateSyntaxError: "),
    ],
)
def test_a_chat_template_that_fails_is_not_asked_again(folder, template, message, picture):
    (folder / "chat_template.jinja").write_text(template)
    (said,) = ask(seer(folder), "sad", picture=picture, memory=Memory()).warnings
    assert re.search(f"by the rules and all that follow, .*: it failed with {message}", said)


def test_code_in_the_folder_is_never_run(folder, picture):
    (folder / "evil.py").write_text("raise SystemExit('the folder ran its code')")
    for name in ("config.json", "processor_config.json"):
        path = folder / name
        values = json.loads(path.read_text())
        values["auto_map"] = dict.fromkeys(("AutoConfig", "AutoProcessor", "AutoModelForImageTextToText"), "evil.Evil")
        path.write_text(json.dumps(values))
    thinker = seer(folder)
    assert isinstance(thinker.answer(QUESTION, picture, lambda: None), str)
    thinker.close()


def test_another_state_of_the_folder_is_another_identity(folder):
    before = seer(folder).identity
    assert before == seer(folder).identity
    truncate(folder)
    assert seer(folder).identity != before


def test_room_is_asked_for_once_with_the_bytes_of_the_weights_before_they_are_loaded(saved, picture, monkeypatch):
    asked, load = [], vlm.load
    monkeypatch.setattr(vlm, "load", lambda *where: asked.append("load") or load(*where))
    thinker = seer(saved, make_room=asked.append)
    for _ in "ab":
        thinker.answer(QUESTION, picture, lambda: None)
    thinker.close()
    weights = sum(path.stat().st_size for path in saved.glob("*.safetensors"))
    assert asked == [weights + vlm.ROOM_TO_THINK, "load"] and weights > 1000
