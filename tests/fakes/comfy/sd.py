"""CLIP and VAE, the objects on the wires of those names."""

from __future__ import annotations

import logging

import torch

import comfy.model_management as mm
from comfy.model_patcher import ModelPatcher


class CLIP:
    def __init__(
        self, target=None, embedding_directory=None, no_init=False, tokenizer_data=None, parameters=0,
        state_dict=(), model_options=None,
    ):  # fmt: skip
        if no_init:
            return
        options = model_options or {}
        dtype = options.get("dtype") or mm.text_encoder_dtype(mm.text_encoder_device())
        self.cond_stage_model = target.clip(device=mm.CPU, dtype=dtype, model_options=options, **target.params)
        self.tokenizer = target.tokenizer(embedding_directory=embedding_directory, tokenizer_data=tokenizer_data or {})
        self.patcher = ModelPatcher(self.cond_stage_model, mm.text_encoder_device(), mm.text_encoder_offload_device())
        self.layer_idx = None

    def clone(self):
        twin = CLIP(no_init=True)
        twin.__dict__ |= self.__dict__ | {"patcher": self.patcher.clone()}
        return twin

    def tokenize(self, text, return_word_ids=False, **kwargs):
        return self.tokenizer.tokenize_with_weights(text, return_word_ids, **kwargs)

    def encode_from_tokens(self, tokens, return_pooled=False, return_dict=False):
        self.load_model()
        cond, pooled = self.cond_stage_model.encode_token_weights(tokens)
        if return_dict:
            return {"cond": cond, "pooled_output": pooled}
        return (cond, pooled) if return_pooled else cond

    def encode_from_tokens_scheduled(self, tokens, unprojected=False, add_dict=None, show_pbar=True):
        found = self.encode_from_tokens(tokens, return_dict=True)
        return [[found.pop("cond"), {**found, **(add_dict or {})}]]

    def load_sd(self, sd, full_model=False):
        return self.cond_stage_model.load_sd(sd)

    def load_model(self):
        mm.load_model_gpu(self.patcher)
        return self.patcher


class VAE:
    def __init__(self, sd=None, device=None, config=None, dtype=None, metadata=None):
        assert sd == {}, "this stand-in recognises no weights: give {} and set first_stage_model"
        self.memory_used_encode = lambda shape, dtype: 1
        self.memory_used_decode = lambda shape, dtype: 1
        self.downscale_ratio = self.upscale_ratio = 8
        self.latent_channels, self.latent_dim, self.output_channels = 4, 2, 3
        self.process_input = lambda image: image * 2.0 - 1.0
        self.process_output = lambda image: ((image + 1.0) / 2.0).clamp(0.0, 1.0)
        self.working_dtypes = [torch.bfloat16, torch.float32]
        self.disable_offload = False
        self.size = None
        self.crop_input = True
        self.first_stage_model = None
        logging.warning("No VAE weights detected")

    def model_size(self):
        self.size = mm.module_size(self.first_stage_model) if self.size is None else self.size
        return self.size

    def spacial_compression_encode(self):
        return self.downscale_ratio

    def get_sd(self):
        return self.first_stage_model.state_dict()

    def _ready(self, memory):
        mm.load_models_gpu([self.patcher], memory_required=memory, force_full_load=self.disable_offload)

    def encode(self, pixel_samples):
        """[B, H, W, 3] in [0, 1] -> [B, C, h, w]."""
        pixels = pixel_samples[..., : self.output_channels].movedim(-1, 1)
        self._ready(self.memory_used_encode(pixels.shape, self.vae_dtype))
        pixels = self.process_input(pixels).to(self.vae_dtype).to(self.device)
        return self.first_stage_model.encode(pixels).to(self.output_device).float()

    def decode(self, samples_in, vae_options=None):
        """[B, C, h, w] -> [B, H, W, 3] in [0, 1]."""
        self._ready(self.memory_used_decode(samples_in.shape, self.vae_dtype))
        pixels = self.first_stage_model.decode(samples_in.to(self.vae_dtype).to(self.device), **(vae_options or {}))
        return self.process_output(pixels.to(self.output_device).float()).movedim(1, -1)
