"""The handle that nodes pass around in place of a network."""

from __future__ import annotations

import copy
import uuid

import comfy.model_management
import comfy.utils


class ModelPatcher:
    def __init__(self, model, load_device, offload_device, size=0, weight_inplace_update=False):
        self.model, self.load_device, self.offload_device, self.size = model, load_device, offload_device, size
        if getattr(model, "device", None) is None:
            model.device = offload_device
        self.parent = None
        self.patches: dict[str, list] = {}
        self.patches_uuid = uuid.uuid4()
        self.object_patches: dict[str, object] = {}
        self.model_options: dict = {"transformer_options": {}}
        self.attachments: dict[str, object] = {}
        self.additional_models: dict[str, list] = {}
        self.callbacks: dict[str, dict] = {}
        self.wrappers: dict[str, dict] = {}

    def clone(self):
        twin = type(self)(self.model, self.load_device, self.offload_device, self.size)
        twin.parent, twin.patches_uuid = self, self.patches_uuid
        twin.patches = {key: list(value) for key, value in self.patches.items()}
        twin.object_patches, twin.attachments = dict(self.object_patches), dict(self.attachments)
        twin.model_options = copy.deepcopy(self.model_options)  # as in ComfyUI: keep tensors out of it
        for name in ("callbacks", "wrappers"):
            groups = getattr(self, name)
            setattr(twin, name, {t: {k: list(c) for k, c in keys.items()} for t, keys in groups.items()})
        twin.additional_models = {key: [one.clone() for one in value] for key, value in self.additional_models.items()}
        return twin

    def load(self, device_to=None):
        self.model.to(device_to)
        self.model.device = device_to  # a read-only `device`, as transformers' models have, fails here

    def model_size(self):
        self.size = self.size or comfy.model_management.module_size(self.model)
        return self.size

    def model_dtype(self):
        return self.model.get_dtype() if hasattr(self.model, "get_dtype") else None

    def memory_required(self, input_shape):
        return self.model.memory_required(input_shape=input_shape)

    def get_model_object(self, name: str):
        return self.object_patches[name] if name in self.object_patches else comfy.utils.get_attr(self.model, name)

    def add_object_patch(self, name, obj):
        self.object_patches[name] = obj

    def add_patches(self, patches, strength_patch=1.0, strength_model=1.0):
        """Kept, not applied: what a patch does to the weights is for the tests with the real ComfyUI."""
        known = [key for key in patches if key in self.model.state_dict()]
        for key in known:
            self.patches.setdefault(key, []).append((strength_patch, patches[key], strength_model, None, None))
        self.patches_uuid = uuid.uuid4()
        return known

    def set_model_compute_dtype(self, dtype):
        self.add_object_patch("manual_cast_dtype", dtype)

    def set_attachments(self, key: str, attachment):
        self.attachments[key] = attachment

    def get_attachment(self, key: str):
        return self.attachments.get(key)

    def set_additional_models(self, key: str, models: list):
        self.additional_models[key] = models

    def add_callback_with_key(self, call_type: str, key: str, callback):
        self.callbacks.setdefault(call_type, {}).setdefault(key, []).append(callback)

    def get_all_callbacks(self, call_type: str):
        return [one for group in self.callbacks.get(call_type, {}).values() for one in group]

    def add_wrapper_with_key(self, wrapper_type: str, key: str, wrapper):
        self.wrappers.setdefault(wrapper_type, {}).setdefault(key, []).append(wrapper)

    def pre_run(self):
        for callback in self.get_all_callbacks("on_pre_run"):
            callback(self)

    def cleanup(self):
        for callback in self.get_all_callbacks("on_cleanup"):
            callback(self)
