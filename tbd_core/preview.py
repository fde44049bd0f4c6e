"""What latents look like without the autoencoder: a row of three numbers per channel, for previews between the steps
(ours, in the form of ComfyUI's `latent_rgb_factors`)."""

from __future__ import annotations

from torch import Tensor, cat, isfinite, linalg
from torch.nn.functional import adaptive_avg_pool2d

from .errors import InputError


DIGITS = 4


def fit_preview(latents: Tensor, pictures: Tensor) -> dict[str, list]:
    """Least squares over all cells: {"factors": C lists of 3, "bias": 3}, so that cell @ factors + bias is the mean
    colour, red green blue in [-1, 1], of the pixels under it.

    latents   [B, C, h, w] as the denoiser's (scaled)
    pictures  [B, 3, H, W] in [-1, 1], those that were encoded
    The bundle's header keeps it under `preview`. Raises InputError when something is not a number.
    """
    colours = adaptive_avg_pool2d(pictures.detach().float().cpu(), (latents.shape[2], latents.shape[3]))
    cells = latents.detach().float().cpu().movedim(1, -1).flatten(0, 2).double()
    wanted = colours.movedim(1, -1).flatten(0, 2).double()
    bad = int((~isfinite(cells)).sum() + (~isfinite(wanted)).sum())
    if bad:
        raise InputError(f"{bad} values of latents or pictures are not numbers; load the model as fp32 or bf16")
    known = cat([cells, cells.new_ones(len(cells), 1)], dim=1)
    # gelsd: plain portraits and small pictures leave some directions undetermined; those get no weight.
    *factors, bias = linalg.lstsq(known, wanted, driver="gelsd").solution.tolist()
    return {"factors": [[round(x, DIGITS) for x in row] for row in factors], "bias": [round(x, DIGITS) for x in bias]}
