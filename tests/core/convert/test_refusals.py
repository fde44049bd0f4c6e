"""Wrong and mixed files: every one is told apart by what it is."""

import json

import torch
from safetensors.torch import load_file

from tbd_core.checkpoint.convert import convert
from tbd_core.config import replace


def test_sdxl_is_refused_by_its_name(refused, world, public, tmp_path, save):
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(
        block_out_channels=(32, 32, 32), norm_num_groups=16, cross_attention_dim=48, attention_head_dim=(2, 4, 8),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), use_linear_projection=True,
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), addition_embed_type="text_time",
        transformer_layers_per_block=(1, 2, 3), addition_time_embed_dim=8, projection_class_embeddings_input_dim=64,
    )  # fmt: skip
    folder = public.diffusers_folder(tmp_path / "sdxl", world.parts | {"unet": unet})
    refused("paper-init", r"sdxl is SDXL: of \d+ keys for \*_unet\.\* it lacks \d+ \(first unet\.", sd=folder)
    # Its VAE has SD 1.5's names and shapes, and other latents.
    single = public.ldm(world.parts) | {"conditioner.embedders.0.transformer.text_model.x": torch.zeros(1)}
    path = save(tmp_path / "sd_xl_base.safetensors", single)
    refused("paper-init", r"sd_xl_base\.safetensors is SDXL: of \d+ keys for vae\.\* it has all names, but", vae=path)


def test_sdxl_s_single_file_is_refused_by_its_name(refused, world, public, tmp_path, save):
    single = {key: value for key, value in public.ldm(world.parts).items() if not key.startswith("cond_stage_model.")}
    single["model.diffusion_model.label_emb.0.0.weight"] = torch.zeros(4, 4)
    single["conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight"] = torch.zeros(4, 4)
    path = save(tmp_path / "sd_xl_base.safetensors", single)
    refused("paper-init", r"sd_xl_base\.safetensors is SDXL: of \d+ keys for text_encoder\.\* it lacks \d+ ", sd=path)


def test_sd_2_1_s_text_encoder_is_refused_with_its_width(refused, world, public, tmp_path):
    wide = replace(world.config, text_encoder=world.config.text_encoder | {"hidden_size": 32})
    folder = tmp_path / "text_encoder"
    public.sd(wide)["text_encoder"].save_pretrained(folder)
    refused(
        "hallo-compat",
        r"text_encoder is a CLIP text encoder: .* of another shape \(first .* \[49408, 32\], must be "
        r"\[49408, 16\]\); give SD 1\.5's text encoder",
        text=folder,
    )


def test_sd_2_1_is_refused_by_its_name(refused, world, public, tmp_path, save):
    wide = public.sd(replace(world.config, unet=replace(world.config.unet, cross_attention_dim=1024)))
    folder = public.diffusers_folder(tmp_path / "sd21", world.parts | {"unet": wide["unet"]})
    refused(
        "paper-init",
        r"sd21 is SD 2\.x: .*it has 64 of another shape \(first unet\.\S+attn2\.to_k\.weight \[20, 1024\], must be "
        r"\[20, 16\]\)",
        sd=folder,
    )
    tensors = {key.replace("transformer.text_model", "model"): value for key, value in public.ldm(world.parts).items()}
    refused("paper-init", r"is SD 2\.x: of \d+ keys for text_encoder", sd=save(tmp_path / "v2-1.safetensors", tensors))


def test_a_motion_module_without_mid_block_is_refused(refused, world, tmp_path):
    tensors = torch.load(world.files["motion"], weights_only=True)
    path = tmp_path / "v3_sd15_mm.ckpt"
    torch.save({key: value for key, value in tensors.items() if not key.startswith("mid_block")}, path)
    refused(
        "paper-init",
        r"v3_sd15_mm\.ckpt is AnimateDiff's v1 or v3 motion module \(no mid_block\): of 448 keys for "
        r"denoising_unet\.\*\.motion_modules\.\* it lacks 28 \(first mid_block\..*give mm_sd_v15_v2\.ckpt",
        motion=path,
    )


def test_it_is_told_in_diffusers_spelling_too_and_a_wrapped_one_is_none(refused, world, tmp_path, motion_adapter, save):
    tensors = torch.load(world.files["motion"], weights_only=True)
    file = motion_adapter(tensors, world.config, tmp_path / "v3") / "diffusion_pytorch_model.safetensors"
    save(file, {key: value for key, value in load_file(file).items() if not key.startswith("mid_block")})
    refused(
        "paper-init",
        r"v3 is AnimateDiff's v1 or v3 motion module \(no mid_block\): of 448 keys for .* it lacks \d+ \(",
        motion=tmp_path / "v3",
    )
    torch.save({"model": tensors}, tmp_path / "mm.ckpt")
    refused("paper-init", r"mm\.ckpt is a motion module: of 448 keys for .* it lacks 448", motion=tmp_path / "mm.ckpt")


def test_a_network_that_looks_the_same_is_refused_by_its_config_and_doubted_without_one(
    refused, again, world, tmp_path, save
):
    folder = tmp_path / "hubert"
    world.listener.wav2vec2.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "hubert"}))
    refused("paper-init", r"hubert: its config\.json says model_type hubert \(must be wav2vec2\)", wav2vec2=folder)
    (folder / "config.json").unlink()
    doubt = "source wav2vec2 has no config.json: a HuBERT looks the same; use wav2vec2-base-960h"
    assert again("paper-init", wav2vec2=folder).warnings.count(doubt) == 1
    named = save(tmp_path / "w.safetensors", world.listener.state_dict())
    assert doubt not in again("paper-init", wav2vec2=named).warnings

    folder = tmp_path / "text"
    world.parts["text_encoder"].save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    for kind in ("clip_text_model", "clip", "siglip_text_model"):
        (folder / "config.json").write_text(json.dumps(config | {"model_type": kind}))
        if kind.startswith("clip"):
            again("hallo-compat", text=folder)
    refused("hallo-compat", r"model_type siglip_text_model \(must be clip_text_model or clip\)", text=folder)


def test_an_autoencoder_without_config_is_doubted(again, world, public, tmp_path, save):
    doubt = "source vae has no config.json: SDXL's autoencoder looks the same; use sd-vae-ft-mse"
    assert doubt in again("paper-init", vae=save(tmp_path / "v.safetensors", public.old_vae(world.parts))).warnings
    world.parts["vae"].save_pretrained(tmp_path / "vae")
    assert doubt not in again("paper-init", vae=tmp_path / "vae").warnings
    whole = save(tmp_path / "sd.safetensors", public.ldm(world.parts))
    assert not any("looks the same" in said for said in again("paper-init", sd=whole, vae=None).warnings)


def test_another_project_s_net_pth_is_refused_with_counts(refused, world, tmp_path):
    path = tmp_path / "net.pth"
    torch.save({f"generator.conv{i}.weight": torch.zeros(3, 3) for i in range(9)}, path)
    refused("hallo-compat", r"net\.pth is of no known kind: of 2516 keys for \* it lacks 2516 \(first ", hallo=path)
    unets = {k: v for k, v in world.net_pth.items() if "_unet." in k and ".audio_modules." not in k}
    torch.save(unets, path)
    refused("hallo-compat", r"is a portrait animation's network: of 2516 keys for \* it lacks 700 \(", hallo=path)


def test_swapped_sources_are_told_by_what_they_are(refused, world):
    refused("paper-init", r"net\.pth is Hallo's net\.pth: .* lacks 448 .*; give mm_sd", motion=world.files["hallo"])
    refused("paper-init", r"wav2vec2 is a wav2vec2: of \d+ keys for vae", vae=world.files["wav2vec2"])


def test_a_folder_whose_config_tells_of_another_network_is_refused(refused, world, public, tmp_path):
    folder = public.diffusers_folder(tmp_path / "sd", world.parts)
    config = json.loads((folder / "vae" / "config.json").read_text())
    (folder / "vae" / "config.json").write_text(json.dumps(config | {"scaling_factor": 0.13025}))
    refused("paper-init", r"sd: its config\.json says scaling_factor 0\.13025 \(must be 0\.5\)", sd=folder, vae=None)


def test_keys_that_fit_nothing_are_told(again, world, tmp_path):
    path = tmp_path / "net.pth"
    torch.save(world.net_pth | {"denoising_unet.wings.weight": torch.zeros(2), "lip_net.x": torch.zeros(2)}, path)
    report = again("hallo-compat", hallo=path)
    assert report.sources["hallo"].unexpected == ["denoising_unet.wings.weight", "lip_net.x"]
    assert "source hallo has 2 keys that fit nothing known; they are left out" in report.warnings


def test_a_wav2vec2_without_its_training_mask_serves_and_says_so(world, tmp_path, save):
    tensors = dict(world.listener.state_dict())
    del tensors["wav2vec2.masked_spec_embed"]
    given = world.given("paper-init", wav2vec2=save(tmp_path / "w.safetensors", tensors))
    report = convert(world.recipe("paper-init"), given, tmp_path / "x.safetensors")
    assert report.missing == ["audio_encoder.masked_spec_embed"]
    assert report.fresh["audio_encoder.masked_spec_embed"] == "zero"
