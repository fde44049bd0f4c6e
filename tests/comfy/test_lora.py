"""LoRAs on MODEL and CLIP, by ComfyUI's own code: heeded in what is kept between steps, and without a new listening."""

import asyncio

import pytest
import torch


pytestmark = pytest.mark.comfy

LAYERS = (
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k",  # the reference's keys, kept between steps
    "up_blocks.1.attentions.2.transformer_blocks.0.attn2.to_v",  # the text's
    "mid_block.audio_modules.0.transformer_blocks.0.attn2.to_k",  # the sound's
    "down_blocks.1.resnets.0.conv1",
    "audioproj.proj1",
)


@pytest.fixture(scope="module")
def lora(loaded):
    """A random LoRA of rank 2 under kohya's names."""
    weights, generator = {}, torch.Generator().manual_seed(5)
    for layer in LAYERS:
        shape = loaded.model.model.diffusion_model.get_parameter(f"{layer}.weight").shape
        name = f"lora_unet_{layer.replace('.', '_')}"
        weights[f"{name}.lora_down.weight"] = torch.randn(2, *shape[1:], generator=generator) * 0.3
        weights[f"{name}.lora_up.weight"] = torch.randn(shape[0], 2, *[1] * (len(shape) - 2), generator=generator) * 0.3
        weights[f"{name}.alpha"] = torch.tensor(2.0)
    return weights


@pytest.fixture(scope="module")
def patched(loaded, lora):
    """`patched(strength)`: the loaded bundle, its MODEL behind ComfyUI's LoRA loader."""
    import comfy.sd

    def patch(strength):
        model, _ = comfy.sd.load_lora_for_models(loaded.model, None, dict(lora), strength, 0)
        return type(loaded)(**{**vars(loaded), "model": model})

    return patch


def test_every_layer_of_a_lora_is_found_under_its_sd15_name(patched, lora):
    assert len(patched(1.0).model.patches) == len(LAYERS)


def test_a_lora_draws_what_its_merged_weights_draw(part, load, drawn, patched, lora, small_bundle, tmp_path, loaded):
    store = part("tbd_core.checkpoint.store")
    networks, config = store.load(small_bundle, "cpu", torch.float32)
    with torch.no_grad():
        for layer in LAYERS:
            name = f"lora_unet_{layer.replace('.', '_')}"
            up, down = lora[f"{name}.lora_up.weight"], lora[f"{name}.lora_down.weight"]
            net = networks.audioproj if layer.startswith("audioproj.") else networks.denoising_unet
            weight = net.get_parameter(f"{layer.removeprefix('audioproj.')}.weight")
            weight += 0.7 * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
    path = tmp_path / "merged.safetensors"
    store.save(path, networks, config, {"name": "merged"}, torch.float32)

    plain, expected = drawn(), drawn(over=load(path))
    assert (expected - plain).abs().max() > 0.05  # the LoRA does something
    assert torch.allclose(drawn(over=patched(0.7)), expected, atol=1e-3)
    assert not loaded.model.model.diffusion_model.kept
    assert torch.allclose(drawn(), plain, atol=1e-4)  # and leaves the model as it was


def test_a_lora_by_hooks_draws_what_the_loaded_one_draws(bridge, part, drawn, patched, lora, loaded):
    """Its weights change between steps: nothing is kept, the audio projection's output neither. And what the hooks
    note in themselves is no part of what names a video."""
    import comfy.hooks

    hooks, describe = comfy.hooks.create_hook_lora(dict(lora), 0.7, 0.0), part("tbd_core.render").describe
    before = describe(hooks)
    with torch.inference_mode():
        words = [bridge.encode_text(loaded.clip, text) for text in ("a happy person", "blurry")]
    hooked = [[[tensor, {**values, "hooks": hooks}] for tensor, values in entries] for entries in words]
    assert torch.allclose(drawn(positive=hooked[0], negative=hooked[1]), drawn(over=patched(0.7)), atol=1e-3)
    assert describe(hooks) == before != describe(comfy.hooks.create_hook_lora(dict(lora), 0.3, 0.0))


def test_a_text_lora_fits_clip(loaded):
    import comfy.sd

    layer = "text_model_encoder_layers_0_self_attn_q_proj"
    shapes = {"lora_up": (16, 1), "lora_down": (1, 16)}
    weights = {f"lora_te_{layer}.{name}.weight": torch.ones(shape) for name, shape in shapes.items()}
    _, clip = comfy.sd.load_lora_for_models(None, loaded.clip, weights, 0, 1.0)
    with torch.inference_mode():
        states = [one.encode_from_tokens(one.tokenize("a smile")) for one in (loaded.clip, clip)]
    assert not torch.allclose(*states, atol=1e-3)


def graph(strength, fine="AU12 marked"):
    """Load, think nothing, draw: with a LoRA on the way of MODEL."""
    nodes = {
        "load": ("TBDModelLoader", {"model": "small.safetensors", "dtype": "fp32", "beta_schedule": "from the bundle"}),
        "lora": (
            "LoraLoaderModelOnly",
            {"model": ["load", 0], "lora_name": "random.safetensors", "strength_model": strength},
        ),
        "inputs": ("TBDSampleInputs", {}),
        "short": ("TrimAudioDuration", {"audio": ["inputs", 1], "start_index": 0.0, "duration": 0.5}),
        "listen": ("TBDAudioEncode", {"audio_encoder": ["load", 3], "audio": ["short", 0]}),
        "see": (
            "TBDReferenceEncode",
            {"model": ["load", 0], "vae": ["load", 2], "image": ["inputs", 0], "width": 64, "height": 64, "box": ""},
        ),
        "fine": ("CLIPTextEncode", {"clip": ["load", 1], "text": fine}),
        "none": ("CLIPTextEncode", {"clip": ["load", 1], "text": ""}),
        "draw": (
            "TBDSampler",
            {
                "model": ["lora", 0], "reference": ["see", 0], "audio": ["listen", 0], "positive": ["fine", 0],
                "negative": ["none", 0], "seed": 1, "steps": 2, "guidance": 2.0, "sampler": "euler",
                "scheduler": "trailing", "text_scale": -1.0, "audio_scale": -1.0,
            },
        ),
        "decode": ("VAEDecode", {"samples": ["draw", 0], "vae": ["load", 2]}),
        "show": ("PreviewImage", {"images": ["decode", 0]}),
    }  # fmt: skip
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


def test_another_lora_or_word_redoes_nothing_above_it(queue, checkout, shelve, small_bundle, lora, tmp_path):
    from safetensors.torch import save_file

    import nodes

    save_file(lora, tmp_path / "random.safetensors")
    shelve("loras", "random.safetensors", tmp_path / "random.safetensors")
    shelve("tbd", "small.safetensors", small_bundle)
    assert asyncio.run(nodes.load_custom_node(str(checkout / "comfy_extras" / "nodes_audio.py")))

    assert queue(graph(1.0)) == graph(1.0).keys()
    assert queue(graph(1.0)) == set()
    assert queue(graph(0.5)) == {"lora", "draw", "decode", "show"}
    assert queue(graph(0.5, "AU12 severe")) == {"fine", "draw", "decode", "show"}
