"""A network with its noise levels."""

from __future__ import annotations

from enum import Enum
from math import prod

import torch

import comfy.conds
import comfy.model_management
import comfy.model_sampling
import comfy.ops


class ModelType(Enum):
    EPS = 1
    V_PREDICTION = 2


def model_sampling(model_config, model_type):
    kind = getattr(comfy.model_sampling, model_type.name)
    return type("ModelSampling", (comfy.model_sampling.ModelSamplingDiscrete, kind), {})(model_config)


class BaseModel(torch.nn.Module):
    def __init__(self, model_config, model_type=ModelType.EPS, device=None, unet_model=None):
        super().__init__()
        self.model_config, self.model_type, self.device = model_config, model_type, device
        self.latent_format = model_config.latent_format
        self.manual_cast_dtype = model_config.manual_cast_dtype
        self.memory_usage_factor = model_config.memory_usage_factor
        operations = model_config.custom_operations or comfy.ops.pick_operations(
            model_config.unet_config.get("dtype"), self.manual_cast_dtype, model_config=model_config
        )
        self.diffusion_model = unet_model(**model_config.unet_config, device=device, operations=operations).eval()
        self.model_sampling = model_sampling(model_config, model_type)

    def apply_model(self, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **kwargs):
        """x [rows·F, C, h, w] at noise level t [rows·F] -> what it would be without noise."""
        dtype = self.manual_cast_dtype or self.get_dtype()
        scaled = self.model_sampling.calculate_input(t, x).to(dtype)
        context = None if c_crossattn is None else c_crossattn.to(scaled)
        kwargs = {name: value.to(scaled) if torch.is_tensor(value) else value for name, value in kwargs.items()}
        found = self.diffusion_model(
            scaled,
            self.model_sampling.timestep(t).float(),
            context=context,
            control=control,
            transformer_options=transformer_options or {},
            **kwargs,
        )
        return self.model_sampling.calculate_denoised(t, found.float(), x)

    def get_dtype(self):
        return self.diffusion_model.dtype

    def extra_conds(self, **kwargs):
        text = kwargs.get("cross_attn")
        return {} if text is None else {"c_crossattn": comfy.conds.CONDCrossAttn(text)}

    def extra_conds_shapes(self, **kwargs):
        return {}

    def memory_required(self, input_shape, cond_shapes=None):
        size = comfy.model_management.dtype_size(self.get_dtype())
        return input_shape[0] * prod(input_shape[2:]) * size * 0.01 * self.memory_usage_factor * 2**20

    def process_latent_in(self, latent):
        return self.latent_format.process_in(latent)

    def process_latent_out(self, latent):
        return self.latent_format.process_out(latent)
