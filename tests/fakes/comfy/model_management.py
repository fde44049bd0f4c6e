"""Devices, memory and cancelling, on a machine that has a CPU and memory for everything."""

from __future__ import annotations

import torch


OOM_EXCEPTION = torch.cuda.OutOfMemoryError
CPU = torch.device("cpu")
current_loaded_models: list = []  # the patchers; ComfyUI holds weak references
_interrupted = False


class InterruptProcessingException(Exception):
    """An ordinary Exception, as in ComfyUI: `except Exception` swallows a cancel."""


def interrupt_current_processing(value=True):
    global _interrupted
    _interrupted = value


def processing_interrupted():
    return _interrupted


def throw_exception_if_processing_interrupted():
    if processing_interrupted():
        interrupt_current_processing(False)
        raise InterruptProcessingException()


def load_models_gpu(
    models, memory_required=0, force_patch_weights=False, minimum_memory_required=None, force_full_load=False
):
    for patcher in models:
        patcher.load(patcher.load_device)
        if patcher not in current_loaded_models:
            current_loaded_models.append(patcher)


def load_model_gpu(model):
    load_models_gpu([model])


def loaded_models(only_currently_used=False):
    return list(current_loaded_models)


def unload_all_models():
    current_loaded_models.clear()


def free_memory(memory_required, device, keep_loaded=()):
    if get_free_memory(device) > memory_required:
        return
    current_loaded_models[:] = [patcher for patcher in current_loaded_models if patcher in keep_loaded]


def soft_empty_cache(force=False):
    """Nothing is held back here."""


def get_torch_device():
    return CPU


def unet_offload_device():
    return CPU


def text_encoder_device():
    return CPU


def text_encoder_offload_device():
    return CPU


def vae_device():
    return CPU


def vae_offload_device():
    return CPU


def intermediate_device():
    return CPU


def unet_dtype(device=None, model_params=0, supported_dtypes=(torch.float32,), weight_dtype=None):
    return torch.float32


def unet_manual_cast(weight_dtype, inference_device, supported_dtypes=(torch.float32,)):
    return None if weight_dtype == torch.float32 else torch.float32


def vae_dtype(device=None, allowed_dtypes=()):
    return torch.float32


def text_encoder_dtype(device=None):
    return torch.float16  # on a CPU too, as in ComfyUI


def should_use_fp16(device=None, model_params=0, prioritize_performance=True, manual_cast=False):
    return False


def should_use_bf16(device=None, model_params=0, prioritize_performance=True, manual_cast=False):
    return False


def cpu_mode():
    return True


def is_device_cpu(device):
    return torch.device(device).type == "cpu"


def dtype_size(dtype):
    return dtype.itemsize


def module_size(module):
    return sum(tensor.nbytes for tensor in module.state_dict().values())


def get_free_memory(dev=None, torch_free_too=False):
    return 2**40


def cast_to(weight, dtype=None, device=None, non_blocking=False, copy=False, stream=None):
    return weight.to(device=device, dtype=dtype, copy=copy)


def cast_to_device(tensor, device, dtype, copy=False):
    return tensor.to(device=device, dtype=dtype, copy=copy)
