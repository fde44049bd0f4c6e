"""Noise levels: x = x0 + sigma · noise, so that sigma² = (1 - kept) / kept."""

import torch


def _wide(sigma, ndim):
    return sigma.reshape(sigma.shape[:1] + (1,) * (ndim - 1)) if sigma.numel() > 1 else sigma.reshape(())


class EPS:
    def calculate_input(self, sigma, noise):
        return noise / (1 + _wide(sigma, noise.ndim) ** 2).sqrt()

    def calculate_denoised(self, sigma, model_output, model_input):
        return model_input - _wide(sigma, model_output.ndim) * model_output

    def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
        return noise * ((1 + sigma**2).sqrt() if max_denoise else sigma) + latent_image

    def inverse_noise_scaling(self, sigma, latent):
        return latent


class V_PREDICTION(EPS):
    def calculate_denoised(self, sigma, model_output, model_input):
        sigma = _wide(sigma, model_output.ndim)
        total = 1 + sigma**2
        return model_input / total - model_output * sigma / total.sqrt()


class ModelSamplingDiscrete(torch.nn.Module):
    def __init__(self, model_config=None, zsnr=None):
        super().__init__()
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        kept = (1 - betas).cumprod(0)
        self.set_sigmas(((1 - kept) / kept).sqrt())

    def set_sigmas(self, sigmas):
        self.register_buffer("sigmas", sigmas.float())
        self.register_buffer("log_sigmas", sigmas.log().float())

    @property
    def sigma_min(self):
        return self.sigmas[0]

    @property
    def sigma_max(self):
        return self.sigmas[-1]

    def timestep(self, sigma):
        return (sigma.log()[..., None] - self.log_sigmas).abs().argmin(-1)

    def sigma(self, timestep):
        """Between two whole timesteps the logarithm is linear."""
        at = timestep.float().clamp(0, len(self.sigmas) - 1)
        return self.log_sigmas[at.floor().long()].lerp(self.log_sigmas[at.ceil().long()], at.frac()).exp()

    def percent_to_sigma(self, percent):
        if not 0 < percent < 1:
            return 999999999.9 if percent <= 0 else 0.0
        return self.sigma(torch.tensor(999 * (1 - percent))).item()
