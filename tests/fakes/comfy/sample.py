"""The door that KSampler nodes go through."""

import comfy.samplers


def sample(
    model, noise, steps, cfg, sampler_name, scheduler, positive, negative, latent_image, denoise=1.0,
    disable_noise=False, start_step=None, last_step=None, force_full_denoise=False, noise_mask=None, sigmas=None,
    callback=None, disable_pbar=False, seed=None,
):  # fmt: skip
    sampler = comfy.samplers.KSampler(
        model, steps, model.load_device, sampler_name, scheduler, denoise, model.model_options
    )
    return sampler.sample(
        noise, positive, negative, cfg, latent_image, start_step, last_step, force_full_denoise, noise_mask, sigmas,
        callback, disable_pbar, seed,
    )  # fmt: skip


def fix_empty_latent_channels(model, latent_image):
    return latent_image
