"""Sampling by Euler's method, every entry of a conditioning by itself. Real samplers: the tests with ComfyUI."""

from __future__ import annotations

import uuid

import torch

import comfy.model_management


SAMPLER_NAMES = ["euler", "euler_ancestral", "heun", "dpm_2", "dpmpp_2m", "ddim", "uni_pc"]  # a few of them
SCHEDULER_NAMES = ["simple", "sgm_uniform", "karras", "beta", "normal"]
DRAWN = ("euler", "ddim")


def calculate_sigmas(model_sampling, scheduler_name: str, steps: int):
    """The noise levels of `steps` steps and the 0 behind them."""
    levels = model_sampling.sigmas
    if scheduler_name == "simple":
        found = levels[[len(levels) - 1 - int(step * len(levels) / steps) for step in range(steps)]]
    elif scheduler_name == "normal":
        found = model_sampling.sigma(torch.linspace(len(levels) - 1, 0, steps))
    else:
        raise ValueError(f"this stand-in has no scheduler {scheduler_name}")
    return torch.cat([found, torch.zeros(1)])


def _active(entry, sigma):
    """Whether a slice of the schedule holds at this noise level; both of its ends belong to it."""
    return float(entry.get("timestep_end", -1)) <= float(sigma) <= float(entry.get("timestep_start", float("inf")))


def calc_cond_batch(model, conds, x_in, timestep, model_options):
    """What each list of entries makes of x_in; zeros, a black picture, where none of a list is active."""
    comfy.model_management.throw_exception_if_processing_interrupted()
    found = []
    for index, entries in enumerate(conds):
        parts = []
        for entry in entries or ():
            if not _active(entry, timestep[0]):
                continue
            values = {k: v.process_cond(batch_size=len(x_in), area=None).cond for k, v in entry["model_conds"].items()}
            options = dict(model_options.get("transformer_options", {}))
            options |= {"cond_or_uncond": [index], "uuids": [entry["uuid"]], "sigmas": timestep}
            parts.append(model.apply_model(x_in, timestep, transformer_options=options, **values))
        found.append(sum(parts) / len(parts) if parts else torch.zeros_like(x_in))
    return found


def cfg_function(model, cond_pred, uncond_pred, cond_scale, x, timestep, model_options=None, cond=None, uncond=None):
    return uncond_pred + (cond_pred - uncond_pred) * cond_scale


def sampling_function(model, x, timestep, uncond, cond, cond_scale, model_options=None, seed=None):
    pair = [cond, None if cond_scale == 1 else uncond]
    with_prompt, without = calc_cond_batch(model, pair, x, timestep, model_options or {})
    return cfg_function(model, with_prompt, without, cond_scale, x, timestep, model_options, *pair)


class KSAMPLER:
    def __init__(self, sampler_function, extra_options=None, inpaint_options=None):
        self.sampler_function = sampler_function

    def sample(
        self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False
    ):
        levels = model_wrap.inner_model.model_sampling
        whole = bool(sigmas[0] >= levels.sigma_max * (1 - 1e-5))
        x = levels.noise_scaling(sigmas[0], noise, latent_image, whole)
        x = self.sampler_function(model_wrap, x, sigmas, extra_args, callback)
        return levels.inverse_noise_scaling(sigmas[-1], x)


def _euler(model, x, sigmas, extra_args, callback):
    for step, (sigma, after) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        clean = model(x, sigma.expand(len(x)), **extra_args)
        if callback is not None:
            callback(step, clean, x, len(sigmas) - 1)
        x = clean + (x - clean) * (after / sigma)
    return x


def sampler_object(name):
    if name not in DRAWN:
        raise ValueError(f"this stand-in has no sampler {name}")
    return KSAMPLER(_euler)


class CFGGuider:
    def __init__(self, model_patcher):
        self.model_patcher, self.model_options = model_patcher, model_patcher.model_options
        self.original_conds: dict[str, list[dict]] = {}
        self.cfg = 1.0

    def set_conds(self, positive, negative):
        self.inner_set_conds({"positive": positive, "negative": negative})

    def set_cfg(self, cfg):
        self.cfg = cfg

    def inner_set_conds(self, conds):
        for name, entries in conds.items():
            new = [{"model_conds": {}, **more, "cross_attn": text, "uuid": uuid.uuid4()} for text, more in entries]
            self.original_conds[name] = new

    def __call__(self, x, timestep, model_options=None, seed=None):
        return self.predict_noise(x, timestep, model_options or {}, seed)

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        pair = self.conds.get("negative"), self.conds.get("positive")
        return sampling_function(self.inner_model, x, timestep, *pair, self.cfg, model_options, seed)

    def _ready(self, entry, name, noise, device):
        """The entry with its percents as noise levels and its values as the network takes them."""
        levels = self.inner_model.model_sampling
        for percent, level in (("start_percent", "timestep_start"), ("end_percent", "timestep_end")):
            if percent in entry:
                entry = {**entry, level: levels.percent_to_sigma(entry[percent])}
        told = {**entry, "device": device, "noise": noise, "prompt_type": name}
        told |= {"width": noise.shape[3] * 8, "height": noise.shape[2] * 8}
        return {**entry, "model_conds": {**entry["model_conds"], **self.inner_model.extra_conds(**told)}}

    def sample(
        self, noise, latent_image, sampler, sigmas, denoise_mask=None, callback=None, disable_pbar=False, seed=None
    ):
        patcher = self.model_patcher
        comfy.model_management.load_models_gpu([patcher, *(m for ms in patcher.additional_models.values() for m in ms)])
        self.inner_model = patcher.model
        if latent_image.count_nonzero():
            latent_image = self.inner_model.process_latent_in(latent_image)
        try:
            patcher.pre_run()
            self.conds = {
                name: [self._ready(entry, name, noise, patcher.load_device) for entry in entries]
                for name, entries in self.original_conds.items()
            }
            extra = {"model_options": {**self.model_options}, "seed": seed}
            drawn = sampler.sample(self, sigmas, extra, callback, noise, latent_image, denoise_mask, disable_pbar)
            return self.inner_model.process_latent_out(drawn.float())
        finally:
            patcher.cleanup()
            self.conds = {}


def sample(
    model, noise, positive, negative, cfg, device, sampler, sigmas, model_options=None, latent_image=None,
    denoise_mask=None, callback=None, disable_pbar=False, seed=None,
):  # fmt: skip
    guider = CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return guider.sample(noise, latent_image, sampler, sigmas, denoise_mask, callback, disable_pbar, seed)


class KSampler:
    SCHEDULERS = SCHEDULER_NAMES
    SAMPLERS = SAMPLER_NAMES
    DISCARD_PENULTIMATE_SIGMA_SAMPLERS = {"dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"}

    def __init__(self, model, steps, device, sampler=None, scheduler=None, denoise=None, model_options=None):
        self.model, self.steps, self.device, self.denoise = model, steps, device, denoise
        self.sampler = sampler if sampler in self.SAMPLERS else self.SAMPLERS[0]
        self.scheduler = scheduler if scheduler in self.SCHEDULERS else self.SCHEDULERS[0]
        self.model_options = model_options or {}
        short = self.sampler in self.DISCARD_PENULTIMATE_SIGMA_SAMPLERS
        levels = calculate_sigmas(model.get_model_object("model_sampling"), self.scheduler, steps + short).to(device)
        self.sigmas = torch.cat([levels[:-2], levels[-1:]]) if short else levels

    def sample(
        self, noise, positive, negative, cfg, latent_image=None, start_step=None, last_step=None,
        force_full_denoise=False, denoise_mask=None, sigmas=None, callback=None, disable_pbar=False, seed=None,
    ):  # fmt: skip
        return sample(
            self.model, noise, positive, negative, cfg, self.device, sampler_object(self.sampler),
            self.sigmas if sigmas is None else sigmas, self.model_options, latent_image, denoise_mask, callback,
            disable_pbar, seed,
        )  # fmt: skip
