"""What a model tells of itself before it is built."""

import comfy.latent_formats


class ClipTarget:
    def __init__(self, tokenizer, clip):
        self.tokenizer, self.clip, self.params = tokenizer, clip, {}


class BASE:
    unet_config: dict = {}
    unet_extra_config = {"num_heads": -1, "num_head_channels": 64}  # reach the network's constructor too
    sampling_settings: dict = {}
    latent_format = comfy.latent_formats.LatentFormat
    memory_usage_factor = 2.0
    manual_cast_dtype = None
    custom_operations = None
    quant_config = None
    optimizations = {"fp8": False}

    def __init__(self, unet_config):
        self.unet_config = {**unet_config, **self.unet_extra_config}
        self.sampling_settings = dict(self.sampling_settings)
        self.latent_format = self.latent_format()

    def set_inference_dtype(self, dtype, manual_cast_dtype):
        self.unet_config["dtype"] = dtype
        self.manual_cast_dtype = manual_cast_dtype

    def __getattr__(self, name):
        raise AttributeError(f"{name} is not set; ComfyUI would log a warning and go on with None")
