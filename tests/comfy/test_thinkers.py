"""The Qwen family as thinkers: tiny random models of the real classes, saved as transformers saves them.

Here and not in the default tier, because their processors want torchvision, which every ComfyUI has.
"""

import pytest


pytestmark = pytest.mark.comfy

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for part in m['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NARROW = dict(num_heads=2, intermediate_size=16, patch_size=14, hidden_size=16)
VISION = {
    "Qwen2VL": dict(depth=1, embed_dim=16, hidden_size=32, num_heads=2, mlp_ratio=2, patch_size=14),
    "Qwen2_5_VL": dict(**NARROW, depth=1, out_hidden_size=32, fullatt_block_indexes=[0], window_size=56),
    "Qwen3VL": dict(**NARROW, depth=2, out_hidden_size=32, deepstack_visual_indexes=[0], num_position_embeddings=64),
}


@pytest.fixture(scope="module", params=sorted(VISION))
def folder(request, part, tmp_path_factory):
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    kind = request.param
    letters = part("tbd_core.cot_fa.tokenizer").byte_alphabet()
    bytes_only = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytes_only.decoder = decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bytes_only, eos_token="<|im_end|>", pad_token="<pad>", additional_special_tokens=list(SPECIAL)
    )
    start, end, image, video = map(tokenizer.convert_tokens_to_ids, SPECIAL[2:])
    text = dict(
        hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        max_position_embeddings=8192, vocab_size=len(tokenizer), bos_token_id=None, eos_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]},
        **({"head_dim": 16} if kind == "Qwen3VL" else {}),
    )  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(
        text_config=text, vision_config=VISION[kind], vision_start_token_id=start, vision_end_token_id=end,
        image_token_id=image, video_token_id=video,
    )  # fmt: skip
    torch.manual_seed(1)
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    videos = getattr(transformers, f"{'Qwen3' if kind == 'Qwen3VL' else 'Qwen2'}VLVideoProcessor")()
    pictures = transformers.Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=56 * 56, patch_size=14)
    processor = getattr(transformers, f"{kind}Processor")(
        image_processor=pictures, tokenizer=tokenizer, video_processor=videos, chat_template=TEMPLATE
    )
    saved = tmp_path_factory.mktemp("models") / kind
    model.save_pretrained(saved)
    processor.save_pretrained(saved)
    return saved


@pytest.fixture
def seer(part, folder, monkeypatch):
    vlm = part("tbd_core.cot_fa.vlm")
    monkeypatch.setattr(vlm, "MOST_TOKENS", 12)
    thinker = vlm.VLM(folder, "cpu", "fp32")
    yield thinker
    thinker.close()


def test_the_answer_is_transformers_own_greedy_one(part, folder, seer):
    import torch
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    picture = Image.linear_gradient("L").convert("RGB")
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    text = f"{SPECIAL[0]}user\n{SPECIAL[2]}{SPECIAL[4]}{SPECIAL[3]}Who is seen?{SPECIAL[1]}\n{SPECIAL[0]}assistant\n"
    inputs = processor(text=[text], images=[picture], return_tensors="pt")
    with torch.inference_mode():
        made = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    expected = processor.tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    message = part("tbd_core.cot_fa.asking").Message("user", "Who is seen?")
    assert seer.answer([message], picture, lambda: None) == expected != ""


def test_prose_ends_in_the_rules_words_with_a_warning(part, folder, monkeypatch):
    from PIL import Image

    thinkers, vlm = part("tbd_core.cot_fa.thinkers"), part("tbd_core.cot_fa.vlm")
    monkeypatch.setattr(vlm, "MOST_TOKENS", 12)
    options = thinkers.ThinkerOptions("vlm", None, str(folder))
    picture = Image.linear_gradient("L").convert("RGB")
    told = thinkers.thought_of(options, "happy", "Mild", None, portrait="x.png", picture=lambda: picture)
    rules = part("tbd_core.cot_fa.think").think("happy", "Mild", None, portrait="x.png")
    assert told.prompts == rules.prompts and told.action_units == rules.action_units and told.warnings
