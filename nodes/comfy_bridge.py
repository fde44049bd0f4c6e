"""Everything that touches ComfyUI's insides (read against 0.8.0), so that the nodes and tbd_core need not.

In the order of a run: the bundle as MODEL, CLIP, VAE and audio encoder; portrait and sound; sampling clip by clip; what
nodes ask of the host. Latents on a wire are the autoencoder's own ("raw"); times `scale_factor` they are "scaled", as
the denoiser sees them. Shape legend in tbd_core/flow.py.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import comfy.sample
import comfy.samplers
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import comfy.utils
import folder_paths
import latent_preview
import node_helpers
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import CallbacksMP
from torch import Tensor

from ..tbd_core import conditioning, denoise, host, loudness, speech
from ..tbd_core.checkpoint import store
from ..tbd_core.config import TEXT_STRENGTH, TINY_BUNDLE, ModelConfig
from ..tbd_core.cot_fa.review import over_budget
from ..tbd_core.devices import pick_dtype
from ..tbd_core.errors import InputError, needed_packages
from ..tbd_core.guide import TRAILING, DrawOptions, Guide, check_guide, last_frames
from ..tbd_core.host import KEY, Parts, image_to_pil, tbd_parts
from ..tbd_core.host import pil_to_image as pil_to_image
from ..tbd_core.likeness import unlike_training
from ..tbd_core.models import build
from ..tbd_core.models.hosted import AudioEncoderModule, FirstStage, HostAttention, HostedDenoiser
from ..tbd_core.models.unet import UNet
from ..tbd_core.parts import fingerprint
from ..tbd_core.portrait import fit_portrait, load_portrait
from ..tbd_core.preview import fit_preview
from ..tbd_core.slicing import exact_slices
from ..tbd_core.units import CLIP_FRAMES, FPS, LATENT_SCALE, MOTION_FRAMES, TEXT_TOKENS, num_clips
from .sockets import EncodedReference, EncodedSpeech


BUNDLED = "tbd_tiny (bundled)"
FROM_BUNDLE = "from the bundle"
AUDIO_ENCODERS = "audio_encoders"  # ComfyUI's own folder for them
check_interrupt = mm.throw_exception_if_processing_interrupted  # raises when the user pressed cancel
OUT_OF_MEMORY = () if mm.OOM_EXCEPTION is Exception else mm.OOM_EXCEPTION  # an old torch has no kind of its own for it
KINDS = {"epsilon": comfy.model_base.ModelType.EPS, "v_prediction": comfy.model_base.ModelType.V_PREDICTION}

folder_paths.add_model_folder_path(KEY, os.path.join(folder_paths.models_dir, KEY))
folder_paths.folder_names_and_paths[KEY][1].add(".safetensors")  # else a new key lists files of every kind


# The bundle's networks.


class TBDModelConfig(comfy.supported_models_base.BASE):
    """What BaseModel wants to know of its network."""

    unet_extra_config: dict = {}  # BASE's would become arguments of our network

    def __init__(self, config: ModelConfig, latents: comfy.latent_formats.LatentFormat):
        self.latent_format = lambda: latents  # BASE calls it
        super().__init__({"config": config, "attention": optimized_attention})
        self.sampling_settings = {"zsnr": config.scheduler.rescale_betas_zero_snr}
        self.memory_usage_factor = 1.5 * config.unet.block_out_channels[0] / 320  # SD 1.5's, which is 320 wide


class TBDModel(comfy.model_base.BaseModel):
    def __init__(self, about: TBDModelConfig, config: ModelConfig, device: torch.device):
        predicts = config.scheduler.prediction_type
        if predicts not in KINDS:
            raise InputError(f"the bundle predicts {predicts!r}; ComfyUI's samplers can use {' or '.join(KINDS)}")
        super().__init__(about, KINDS[predicts], device=device, unet_model=HostedDenoiser)
        self.model_sampling.set_sigmas(denoise.sigmas(config.scheduler))  # no beta schedule has to be renamed

    def extra_conds(self, **kwargs):
        """Runs once per entry of a CONDITIONING, so nothing is copied here."""
        text, wanted = kwargs.get("cross_attn"), self.diffusion_model.config.cross_attention_dim
        if text is not None and text.shape[-1] != wanted:
            raise InputError(
                f"the prompts are {text.shape[-1]} wide, this model wants {wanted}; use the CLIP of Load TBD Model"
            )
        flags = {"tbd_once": kwargs.get("tbd_once"), "tbd_changing": kwargs.get("hooks")}  # hooks: scheduled LoRAs
        constants = {KEY: kwargs.get(KEY), **{name: True for name, value in flags.items() if value}}
        out = {name: comfy.conds.CONDConstant(value) for name, value in constants.items() if value is not None}
        return out if text is None else {**out, "c_crossattn": comfy.conds.CONDCrossAttn(text)}


class OneWindow(comfy.sd1_clip.SDTokenizer):
    """CLIP's tokenizer that keeps the first 77 tokens, as in training, where ComfyUI's would begin another window.
    `(words:1.2)` and `embedding:name` work."""

    def __init__(self, **kwargs):
        super().__init__(max_length=10**6, pad_to_max_length=False, **kwargs)

    def tokenize_with_weights(self, text, return_word_ids=False, **kwargs):
        begin, *body, end = super().tokenize_with_weights(text, True, **kwargs)[0]
        if len(body) > TEXT_TOKENS - 2:
            host.warn(over_budget("encoded", text))
        row = [begin, *body[: TEXT_TOKENS - 2], end]
        row += [(self.pad_token, 1.0, 0)] * (TEXT_TOKENS - len(row))
        return [row if return_word_ids else [token[:2] for token in row]]


class TBDVAE(comfy.sd.VAE):
    def __init__(self, vae: Any, dtype: torch.dtype, bundle: Path):
        with host.hide_log_lines("No VAE weights detected"):
            super().__init__(sd={})  # sets every default, also those of other versions, and builds nothing
        self.bundle, self.latent_channels = bundle, vae.config.latent_channels
        self.first_stage_model = FirstStage(vae, check_interrupt).eval()
        self.working_dtypes = [torch.bfloat16, torch.float32]
        self.disable_offload = True  # plain layers: wholly on the device or not at all
        wide = 8 * max(vae.config.block_out_channels[:2]) * 3 / vae.config.in_channels  # numbers a pixel, at the widest
        self.memory_used_encode = lambda shape, kind: wide * shape[2] * shape[3] * mm.dtype_size(kind)
        self.memory_used_decode = lambda shape, kind: self.memory_used_encode(shape, kind) * LATENT_SCALE**2
        self.device, self.vae_dtype, self.output_device = mm.vae_device(), dtype, mm.intermediate_device()
        self.patcher = comfy.model_patcher.ModelPatcher(self.first_stage_model, self.device, mm.vae_offload_device())
        self.model_size()


def bundle_names() -> list[str]:
    return [BUNDLED, *folder_paths.get_filename_list(KEY)]


def bundle_path(name: str) -> Path:
    """InputError when there is no such file."""
    found = str(TINY_BUNDLE) if name == BUNDLED else folder_paths.get_full_path(KEY, name)
    if found is not None and os.path.isfile(found):
        return Path(found)
    if name == BUNDLED:
        raise InputError(f"{found} is missing, which comes with this pack; install the pack again")
    raise InputError(f"{name} is not in models/{KEY}; put it there or choose {BUNDLED}")


def load_bundle(path: Path, dtype: str = "auto", beta_schedule: str = FROM_BUNDLE) -> tuple[Any, Any, Any, Any]:
    """(MODEL, CLIP, VAE, AudioEncoder) of a bundle. `dtype`: auto or a name in devices.DTYPES; `beta_schedule` in
    diffusers' words. Each network is read for itself. Raises InputError."""
    # ComfyUI runs its nodes in inference mode, and what is made there can never be trained or compiled.
    with torch.inference_mode(False), torch.no_grad(), needed_packages():
        config, device, offload = store.read_config(path), mm.get_torch_device(), mm.unet_offload_device()
        if beta_schedule != FROM_BUNDLE:
            config = replace(config, scheduler=replace(config.scheduler, beta_schedule=beta_schedule))
        weights, cast = _dtypes(dtype, device, path.stat().st_size // 2)
        exact = mm.is_device_cpu(device) or dtype == "fp32"  # else ComfyUI chooses for the autoencoder
        pictures = weights if exact else mm.vae_dtype(mm.vae_device(), [torch.bfloat16, torch.float32])
        vae = TBDVAE(store.make(path, "vae", pictures, partial(build.build_vae, config)), pictures, path)
        clip = _build_clip(path, config)

        about = TBDModelConfig(config, _latent_format(config, vae))
        about.set_inference_dtype(weights, cast)
        main = TBDModel(about, config, offload)
        store.make(path, "denoising_unet", weights, lambda: main.diffusion_model, beside=("audioproj",))
        model = comfy.model_patcher.ModelPatcher(main, device, offload)
        for when in (CallbacksMP.ON_PRE_RUN, CallbacksMP.ON_CLEANUP):  # around every sampling, failed ones too
            model.add_callback_with_key(when, KEY, _forget)

        layers = {"ops": comfy.ops.pick_operations(weights, cast), "attend": HostAttention(optimized_attention)}
        unet = build.reference_config(config.unet)
        reference = store.make(path, "reference_unet", weights, lambda: UNet(unet, head=False, **layers))
        reference = comfy.model_patcher.ModelPatcher(reference, device, offload)
        empty = clip.encode_from_tokens(clip.tokenize(""))
        small = {name: store.make(path, name, torch.float32, partial(_small, config, name)) for name in _small(config)}
        face = comfy.model_patcher.ModelPatcher(torch.nn.ModuleDict(small), device, offload) if small else None
        model.set_attachments(KEY, Parts(config, path, cast or weights, reference, empty, face))

        sound = torch.float32 if exact or not mm.should_use_fp16(device) else torch.float16
        hears = store.make(path, "audio_encoder", sound, partial(build.build_audio_encoder, config))
        encoder = comfy.model_patcher.ModelPatcher(AudioEncoderModule(hears), device, offload)
        return model, clip, vae, host.AudioEncoder(encoder, path, config.audio_chunk)


def audio_encoder_names() -> list[str]:
    """Files, and folders as transformers stores a model."""
    files = folder_paths.get_filename_list(AUDIO_ENCODERS)
    return sorted({*files, *(folder.name for folder in _model_folders(AUDIO_ENCODERS))})


def audio_encoder_path(name: str) -> Path:
    """InputError when there is no such file or folder."""
    found = folder_paths.get_full_path(AUDIO_ENCODERS, name)
    if found is not None and os.path.isfile(found):
        return Path(found)
    for folder in _model_folders(AUDIO_ENCODERS):
        if folder.name == name:
            return folder
    count = len(audio_encoder_names())
    raise InputError(
        f"{name!r} is not among the {count} files and folders in models/{AUDIO_ENCODERS}; put a wav2vec 2.0 there"
    )


def load_audio_encoder(path: Path, dtype: str = "auto") -> host.AudioEncoder:
    """A wav2vec 2.0 that belongs to no bundle. `dtype`: auto or fp32. Raises InputError."""
    from ..tbd_core.checkpoint.audio_encoder import read_encoder  # not at ComfyUI's start

    with torch.inference_mode(False), torch.no_grad(), needed_packages():
        device = mm.get_torch_device()
        exact = mm.is_device_cpu(device) or dtype == "fp32" or not mm.should_use_fp16(device)
        hears = AudioEncoderModule(read_encoder(path, torch.float32 if exact else torch.float16))
        encoder = comfy.model_patcher.ModelPatcher(hears, device, mm.unet_offload_device())
        return host.AudioEncoder(encoder, None, None)


def _small(config: ModelConfig, name: str | None = None) -> Any:
    """The networks about a face alone that a bundle has, or one of them, without weights."""
    with torch.device("meta"):
        found = build.build_face(config)
    return found if name is None else found[name]


def _dtypes(name: str, device: torch.device, parameters: int) -> tuple[torch.dtype, torch.dtype | None]:
    """(of the weights, computed in or None for the same)."""
    if mm.is_device_cpu(device):  # ComfyUI would compute fp32 here whatever the CPU can
        if name == "fp16":
            raise InputError("fp16 needs a GPU, and ComfyUI computes on the CPU here; choose auto, fp32 or bf16")
        return pick_dtype(name, device), None
    kinds = [torch.float16, torch.bfloat16, torch.float32]
    weights = mm.unet_dtype(device, parameters, kinds) if name == "auto" else pick_dtype(name, device)
    return weights, mm.unet_manual_cast(weights, device, kinds)


def _forget(model: Any) -> None:
    """Drop what was kept for one sampling: the next may have other weights. Raises nothing in another error's way."""
    getattr(model.model.diffusion_model, "kept", {}).clear()


def _build_clip(path: Path, config: ModelConfig) -> Any:
    values = {"hidden_act": "quick_gelu", "max_position_embeddings": TEXT_TOKENS, "eos_token_id": build.CLIP_END}
    values |= config.text_encoder
    network = partial(comfy.sd1_clip.SDClipModel, textmodel_json_config=values, return_projected_pooled=False)
    target = comfy.supported_models_base.ClipTarget(
        partial(comfy.sd1_clip.SD1Tokenizer, tokenizer=partial(OneWindow, embedding_size=values["hidden_size"])),
        partial(comfy.sd1_clip.SD1ClipModel, clip_model=network),
    )
    options = {"dtype": torch.float32} if mm.is_device_cpu(mm.text_encoder_device()) else {}
    clip = comfy.sd.CLIP(target, folder_paths.get_folder_paths("embeddings"), model_options=options)
    state = {f"text_model.{k.removeprefix('text_model.')}": v for k, v in store.read(path, "text_encoder").items()}
    state["text_projection.weight"] = torch.eye(values["hidden_size"])  # ComfyUI's class has one, training had none
    missing, unknown = clip.load_sd(state)
    if missing or unknown:
        raise InputError(f"{path}: text_encoder lacks {len(missing)} keys and has {len(unknown)} unknown; take another")
    return clip


def _latent_format(config: ModelConfig, vae: TBDVAE) -> comfy.latent_formats.LatentFormat:
    """The colours of previews are SD 1.5's with its autoencoder, else fitted to the sample portrait."""
    latents = comfy.latent_formats.LatentFormat()
    latents.scale_factor = vae.first_stage_model.vae.config.scaling_factor
    if math.isclose(latents.scale_factor, 0.18215):
        preview = {"factors": comfy.latent_formats.SD15().latent_rgb_factors, "bias": None}
    else:
        pixels = load_portrait(host.SAMPLE / "portrait.png", None, config.defaults.size).pixels
        preview = fit_preview(vae.encode(host.to_image(pixels)) * latents.scale_factor, pixels)
    latents.latent_rgb_factors, latents.latent_rgb_factors_bias = preview["factors"], preview["bias"]
    return latents


def _scale(model: Any) -> float:
    return model.get_model_object("latent_format").scale_factor


# Portrait and sound.


def see_portrait(
    model: Any, vae: Any, image: Tensor, size: tuple[int, int] | None = None, box: str = "", mask: Tensor | None = None,
    embedding: str = "", text_strength: float = TEXT_STRENGTH,
) -> tuple[EncodedReference, Tensor]:  # fmt: skip
    """(what the model sees of an IMAGE [1, H, W, C], the picture it sees as an IMAGE). `size`: (W, H) pixels, None: the
    bundle's square; `box` and `mask`: where the face is (`face_box`); `embedding`: whose it is, a file below the input
    folder, and `text_strength`, with Hallo's weights. Raises InputError."""
    parts, picture = tbd_parts(model), image_to_pil(image)
    notes = host.check_vae(vae, parts)
    face = host.face_box(box, mask, picture.size)
    portrait = fit_portrait(picture, size, parts.config.defaults.size, "the portrait", face)
    shown = host.to_image(portrait.pixels)
    pixels, guide, told = (shown.shape[2], shown.shape[1]), None, ()
    with host.told_what_to_do(OUT_OF_MEMORY, "looking at the portrait", pixels):
        latents = (vae.encode(shown) * _scale(model)).float().cpu()
        notes = (*notes, *portrait.warnings)
        if isinstance(vae, TBDVAE):
            about, own = store.read_about(parts.bundle), vae.first_stage_model.vae
            if said := unlike_training(about, parts.bundle, own, latents, portrait.pixels):
                notes = (*notes, f"{portrait.source} {said}")
        if parts.config.unet.wants_face:
            marked = host.marked_face(face, picture.size, pixels)
            guide, told = see_face(parts, image_to_pil(shown), marked, embedding, text_strength)
        features = reference_features(model, latents, guide)
    notes = (*notes, *told)
    host.warn(notes)
    told_of = [] if guide is None else [*guide.tensors(), guide.text_strength]
    digest = fingerprint(latents, [str(parts.bundle), str(parts.dtype)], *told_of)
    return EncodedReference(latents, features, pixels, portrait.source, notes, digest, parts.bundle, guide), shown


def see_face(
    parts: Parts, picture: Any, marked: Any, embedding: str, text_strength: float
) -> tuple[Any, tuple[str, ...]]:  # fmt: skip
    """(FaceGuide: what Hallo's weights are told of the face in a drawn Pillow `picture`, warnings). Raises
    InputError."""
    from ..tbd_core.embedding import read_numbers  # not at ComfyUI's start
    from ..tbd_core.face_guide import guide_by, notes_on, place_face

    config, nets = parts.config.unet, {}
    boxes, notes = place_face(picture, marked)
    values = read_numbers(input_file(embedding)) if embedding.strip() else None
    if parts.face is not None:
        mm.load_models_gpu([parts.face], force_full_load=True)  # plain layers
        nets = dict(parts.face.model.items())
    guide = guide_by(
        config, boxes, values, picture.size, nets.get("imageproj"), nets.get("face_locator"), text_strength
    ).on(torch.zeros(0, device=mm.intermediate_device()))
    return guide, (*notes, *notes_on(config, values, None))


def reference_features(model: Any, latents: Tensor, face: Any = None) -> dict[str, Tensor]:
    """ReferenceNet's features {layer: [B, h·w, C]} of scaled latents [B, C, h, w]; with Hallo's weights it hears the
    tokens of `face` (FaceGuide)."""
    parts = tbd_parts(model)
    heard = parts.empty if face is None or face.tokens is None else face.tokens
    mm.load_models_gpu([parts.reference], memory_required=model.model.memory_required(list(latents.shape)))
    where = {"device": parts.reference.load_device, "dtype": parts.dtype}
    latents = latents.to(**where).contiguous(memory_format=torch.channels_last)
    features = parts.reference.model.features(latents, heard.to(**where).expand(len(latents), -1, -1))
    return {name: value.to(mm.intermediate_device()) for name, value in features.items()}


def listen(
    encoder: host.AudioEncoder, audio: Any, level: bool = False, gate_below: float | None = None
) -> EncodedSpeech:
    """An AUDIO as the model hears it, levelled and gated (loudness.treat), silence behind it up to a whole clip. What
    is kept for the sound track is the recording as it is. Raises InputError."""
    spoken = host.recording(audio)
    treated = loudness.treat(spoken, level, gate_below)
    host.warn(treated.warnings)
    frames = num_clips(spoken.num_frames) * CLIP_FRAMES
    with host.told_what_to_do(OUT_OF_MEMORY, f"listening to {spoken.num_frames / FPS:.1f} s of speech"):
        mm.load_models_gpu([encoder.patcher], force_full_load=True)  # plain layers
        network, wave = encoder.patcher.model.encoder, speech.normalise(treated.waveform)
        features = conditioning.speech_features(network, wave, frames, check_interrupt, encoder.chunk)
    spoken = replace(spoken, warnings=treated.warnings)
    return EncodedSpeech(features, spoken, fingerprint(features, spoken.waveform), encoder.bundle)


# Drawing.


def guide_for(
    model: Any, reference: EncodedReference, audio: EncodedSpeech, clip: int, before: Tensor | None = None
) -> Guide:
    """What clip `clip`, from 0, is guided by. `before` [M, C, h, w]: the last scaled latents of the clip before; None:
    the portrait. InputError when reference or sound belong to another model."""
    face, frames = reference.face, audio.speech.num_frames
    check_guide(tbd_parts(model).config, reference.features, face, audio.features, frames, clip)
    before = denoise.first_motion(reference.latents) if before is None else before
    motion = reference_features(model, before, face)
    windows = speech.window_frames(audio.features, range(clip * CLIP_FRAMES, (clip + 1) * CLIP_FRAMES))
    moved = {name: value[None] for name, value in motion.items()}
    return Guide(reference.features, moved, windows, reference.size, face)


def apply_conditions(
    model: Any, reference: EncodedReference, audio: EncodedSpeech, positive: list, negative: list, clip: int,
    previous: dict | None,
) -> tuple[list, list, dict]:  # fmt: skip
    """One clip for a plain KSampler: (positive, negative, empty LATENT). `previous`: LATENT of the clip before, needed
    from the second clip on. Raises InputError."""
    before = last_frames(None if previous is None else previous["samples"], clip, reference.latents)
    guide = guide_for(model, reference, audio, clip, None if before is None else before * _scale(model))
    empty = torch.zeros((CLIP_FRAMES, *reference.latents.shape[1:]), device=mm.intermediate_device())
    return _put(positive, guide), _put(negative, guide.unguided()), {"samples": empty}


def _put(entries: list, guide: Guide) -> list:
    return node_helpers.conditioning_set_values(entries, {KEY: guide})


def run_sigmas(model: Any, options: DrawOptions) -> list[float]:
    """The S + 1 noise levels of one run, the last one 0. Raises InputError."""
    config = tbd_parts(model).config
    options = options.settled(config.defaults)
    if options.scheduler != TRAILING:
        return model_sigmas(model, options.scheduler, options.steps, options.sampler)
    return denoise.trailing_sigmas(config.scheduler, options.steps, model.get_model_object("model_sampling").sigmas)


class TBDGuider(comfy.samplers.CFGGuider):
    """Text and sound that pull for themselves (denoise.Guidance), at the price of one more pass each. Other packs'
    pre-CFG functions are not called here."""

    separate_scales: dict[str, float]  # of each cond beside positive and negative (DrawOptions)

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        options, positive = model_options or {}, self.conds["positive"]
        negative = None if math.isclose(self.cfg, 1.0) else self.conds["negative"]
        asked = [positive, negative, *(self.conds[name] for name in self.separate_scales)]
        full, without, *lacking = comfy.samplers.calc_cond_batch(self.inner_model, asked, x, timestep, options)
        guided = comfy.samplers.cfg_function(
            self.inner_model, full, without, self.cfg, x, timestep, options, positive, negative
        )
        for scale, part in zip(self.separate_scales.values(), lacking, strict=True):
            guided = guided + (scale - self.cfg) * (full - part)
        return guided


def draw_clips(
    model: Any, reference: EncodedReference, audio: EncodedSpeech, positive: list, negative: list,
    options: DrawOptions, start: int = 0, before: Tensor | None = None,
) -> Iterator[Tensor]:  # fmt: skip
    """The raw latents [14, C, h, w] of each clip from `start` on; `before` as in `guide_for`. Progressive prompts are
    cut for this run's steps, progress is shown over all clips. A cancel passes through; what was kept is dropped."""
    options = options.settled(tbd_parts(model).config.defaults)
    levels = run_sigmas(model, options)
    positive, negative = exact_slices(positive, levels), exact_slices(negative, levels)
    clips, steps = num_clips(audio.speech.num_frames), len(levels) - 1
    bar = comfy.utils.ProgressBar(clips * steps)
    previewer = latent_preview.get_previewer(model.load_device, model.get_model_object("latent_format"))
    try:
        for clip in range(start, clips):
            check_interrupt()
            say(f"clip {clip + 1}/{clips}")

            def on_step(step: int, clean: Tensor, _x: Tensor, _steps: int, clip: int = clip) -> None:
                shown = previewer.decode_latent_to_preview_image("JPEG", clean) if previewer else None
                bar.update_absolute(clip * steps + min(step + 1, steps), clips * steps, shown)

            with host.told_what_to_do(OUT_OF_MEMORY, f"clip {clip + 1}/{clips}", reference.size):
                guide = guide_for(model, reference, audio, clip, before)
                passes = {"positive": (positive, guide), "negative": (negative, guide.unguided())}
                passes |= {"no_text": (negative, guide), "no_audio": (positive, guide.without_sound())}
                conds = {name: _put(*passes[name]) for name in ("positive", "negative", *options.separate_scales)}
                noise = denoise.clip_noise(options.seed, clip, reference.latents)
                latents = _sample(model, noise, torch.tensor(levels), conds, options, clip, on_step)
            before = latents[-MOTION_FRAMES:].float().cpu() * _scale(model)
            yield latents
    finally:
        _forget(model)


def _sample(model: Any, noise: Tensor, sigmas: Tensor, conds: dict, options: DrawOptions, clip: int, on_step) -> Tensor:
    """One clip through ComfyUI's sampling: noise → raw latents, both [14, C, h, w]."""
    seed, still = denoise.clip_seed(options.seed, clip), torch.zeros_like(noise)  # seed: of samplers that add noise
    common: dict[str, Any] = {"callback": on_step, "disable_pbar": not comfy.utils.PROGRESS_BAR_ENABLED, "seed": seed}
    if not options.separate_scales:
        scheduler = "simple" if options.scheduler == TRAILING else options.scheduler  # `sigmas` say it
        return comfy.sample.sample(
            model, noise, options.steps, options.guidance, options.sampler, scheduler, conds["positive"],
            conds["negative"], still, sigmas=sigmas, **common,
        )  # fmt: skip
    guider = TBDGuider(model)
    guider.inner_set_conds(conds)
    guider.set_cfg(options.guidance)
    guider.separate_scales = options.separate_scales
    sampler = comfy.samplers.sampler_object(options.sampler)
    return guider.sample(noise, still, sampler, sigmas, **common).to(mm.intermediate_device())


# What the nodes ask of the host.


def sampler_names() -> list[str]:
    return list(comfy.samplers.KSampler.SAMPLERS)


def scheduler_names() -> list[str]:
    return list(comfy.samplers.KSampler.SCHEDULERS)


def model_sigmas(model: Any, scheduler: str, steps: int, sampler: str = "euler") -> list[float]:
    """The noise levels at which KSampler draws with any MODEL; it knows which samplers leave one out."""
    named = {"sampler": sampler, "scheduler": scheduler, "model_options": model.model_options}
    return comfy.samplers.KSampler(model, steps, model.load_device, **named).sigmas.tolist()


def encode_text(clip: Any, text: str) -> list:
    """One prompt as CONDITIONING, by any CLIP."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def load_audio(path: str | Path) -> dict[str, Any]:
    """A sound file, or a video's sound, as AUDIO. InputError when there is none that can be read."""
    from av.error import FFmpegError
    from comfy_extras.nodes_audio import load

    try:
        waveform, rate = load(str(path))
    except (ValueError, FFmpegError) as error:
        raise InputError(f"{Path(path).name} has no sound that can be read ({error}); give a WAV or FLAC") from error
    return {"waveform": waveform.unsqueeze(0), "sample_rate": rate}


def output_folder() -> Path:
    return Path(folder_paths.get_output_directory())


def input_folder() -> Path:
    return Path(folder_paths.get_input_directory())


def input_file(name: str) -> Path:
    """A file below the input folder. InputError when there is none of that name, or when it leads elsewhere."""
    folder = os.path.realpath(input_folder())
    path = Path(os.path.realpath(os.path.join(folder, name.strip())))
    if not path.is_relative_to(folder) or not path.is_file():
        raise InputError(f"{name!r} is no file below ComfyUI's input folder; put it there and give its name")
    return path


def blocker(count: int) -> list[Any]:
    """Outputs that silently stop what is below them."""
    from comfy_execution.graph_utils import ExecutionBlocker

    return [ExecutionBlocker(None) for _ in range(count)]


def say(text: str) -> None:
    """One line on the node that is running, where somebody watches."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if server is not None and server.last_node_id is not None:
        server.send_progress_text(text, server.last_node_id)


# Files of other makers, long work and room for networks that ComfyUI does not manage.

WEIGHTS = (".safetensors", ".ckpt", ".pth", ".pt", ".bin")
TOLD_BY = ("model_index.json", "config.json")  # in a folder that is a model as a whole


def models_folder() -> Path:
    return Path(folder_paths.models_dir)


def bundles_folder() -> Path:
    """Absolute; where new bundles go."""
    return Path(os.path.abspath(folder_paths.get_folder_paths(KEY)[0]))


def _roots(kind: str) -> list[Path]:
    """The folders of a kind of models; packs that are not installed have registered none."""
    known = kind in folder_paths.folder_names_and_paths
    return [Path(one) for one in folder_paths.get_folder_paths(kind)] if known else [models_folder() / kind]


def _model_folders(kind: str) -> list[Path]:
    """Those among a kind's models that are one model as a whole."""
    roots = [root for root in _roots(kind) if root.is_dir()]
    return [folder for root in roots for folder in root.iterdir() if any((folder / n).is_file() for n in TOLD_BY)]


def model_files(*kinds: str) -> list[str]:
    """What ComfyUI's model folders of these kinds hold: `checkpoints/v1-5.ckpt`, and folders that are one model,
    `diffusers/v1-5`."""
    found = []
    for kind in kinds:
        roots = [root for root in _roots(kind) if root.is_dir()]
        if kind in folder_paths.folder_names_and_paths:
            names = folder_paths.get_filename_list(kind)
        else:
            names = [path.name for root in roots for path in root.iterdir() if path.is_file()]
        names = [name for name in names if name.lower().endswith(WEIGHTS)]
        names += [folder.name for folder in _model_folders(kind)]
        found += [f"{kind}/{name}" for name in sorted(set(names))]
    return found


def model_file(entry: str) -> Path:
    """The file or folder of an entry of `model_files`. InputError when it is gone, and for a way out by `..`."""
    kind, _, name = entry.partition("/")
    for root in map(os.path.abspath, _roots(kind)):
        path = Path(os.path.abspath(os.path.join(root, name)))
        if name and path.is_relative_to(root) and path.exists():
            return path
    raise InputError(f"{entry} is not in ComfyUI's model folders; put it there, or choose another or none")


def counter() -> Callable[[int, int], None]:
    """(done, in all) → the bar of the node that is running; raises when the user pressed cancel."""
    bar, shown = None, -1

    def count(done: int, total: int) -> None:
        nonlocal bar, shown
        check_interrupt()
        bar = bar or comfy.utils.ProgressBar(total)
        if 100 * done // total > shown:  # each is a message to the page
            shown = 100 * done // total
            bar.update_absolute(done, total)

    return count


def free_bytes() -> int:
    """Of the machine's own memory, where pictures are put together."""
    return mm.get_free_memory(torch.device("cpu"))


def foreign_device() -> str:
    """Where a network that ComfyUI does not manage computes, in the words of devices.pick_device."""
    return "cpu" if mm.is_device_cpu(mm.get_torch_device()) else "auto"


def make_room(needed: int) -> None:
    """`needed` bytes on the device for a network that ComfyUI does not manage: where less is free, its models leave."""
    mm.free_memory(needed, mm.get_torch_device())
    mm.soft_empty_cache()
