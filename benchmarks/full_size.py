"""What a full-size model costs: a step of 14 + 2 frames and its decoding, random weights, by device, dtype, offload.

python benchmarks/full_size.py                                      on the GPU: fp16, bf16 and fp32, each offload
python benchmarks/full_size.py --device cpu --dtype bf16 --size 256 one row; repeat --dtype and --offload for more

Each row is a process of its own. `needed` is what `tbd generate` would say beforehand, `most` what was held: on CUDA by
torch's own count, on the CPU all resident memory of the process. `step` is the second of two steps without
guidance (the first also projects keys and values); a guided step is nearly twice that. Times on the CPU are the
processor's, of all threads together: what else the machine does is not in them.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path


ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
COLUMNS = ("device", "dtype", "offload", "size", "needed_gb", "most_gb", "see_s", "first_step_s", "step_s", "decode_s")


def random_networks(config, dtype):
    """On the CPU, of `dtype` from the start: twice the memory is never needed."""
    import torch

    from tbd_core.models.build import build
    from tbd_core.models.motion import PositionalEncoding

    with torch.device("meta"):
        networks = build(config)
    noise = (0.02 * torch.randn(2**24, generator=torch.Generator().manual_seed(0))).to(dtype)  # again and again
    for _, network in networks.items():
        # (nn.Module's own `to`: diffusers' warns. In its final layout from the start: copies would be counted.)
        torch.nn.Module.to(network, dtype, memory_format=torch.channels_last).to_empty(device="cpu")
        for name, value in network.state_dict().items():
            if value.ndim > 1:
                for part in value.as_strided((value.numel(),), (1,)).split(len(noise)):
                    part.copy_(noise[: len(part)])
            else:
                value.fill_(name.endswith("weight"))
        for part in network.modules():
            if hasattr(part, "position_ids"):
                part.position_ids = torch.arange(part.position_ids.shape[-1]).unsqueeze(0)
            if isinstance(part, PositionalEncoding):
                part.pe.copy_(PositionalEncoding(part.pe.shape[2]).pe)
    return networks.to("cpu", dtype).eval()


def row(device: str, dtype: str, offload: str, size: int) -> dict:
    import torch

    from tbd_core import denoise, estimate, frames
    from tbd_core.config import sd15
    from tbd_core.devices import DTYPES, has_own_memory, pick_device
    from tbd_core.memory import keep_memory, peak_mb
    from tbd_core.models.attention import Context, KVCache
    from tbd_core.offload import arrange

    where, config = pick_device(device), sd15()
    torch_dtype = getattr(torch, DTYPES[dtype])
    keep_memory()
    networks = random_networks(config, torch_dtype)
    numbers = {name: sum(v.numel() for v in net.state_dict().values()) for name, net in networks.items()}
    layers = (part for _, net in networks.items() for part in net.modules())
    largest = max(sum(p.numel() for p in layer.parameters(recurse=False)) for layer in layers)
    own = has_own_memory(where)
    job = estimate.Drawing(numbers, largest, config, (size, size), dtype, offload, own, 1, str(where))
    if offload == "none":
        networks.to(where, torch_dtype)
    free = arrange(networks, where, offload)
    on_gpu = where.type == "cuda"
    clock = time.process_time if where.type == "cpu" else time.monotonic

    def timed(work):
        if on_gpu:
            torch.cuda.synchronize()
        began = clock()
        made = work()
        if on_gpu:
            torch.cuda.synchronize()
        return made, round(clock() - began, 2)

    cells, there = size // 8, {"device": where, "dtype": torch_dtype}
    random = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        text = torch.randn(1, 77, config.unet.cross_attention_dim, generator=random).to(**there)
        portrait = torch.randn(1, 4, cells, cells, generator=random)
        seen = denoise.see(networks.reference_unet, portrait, text)
        motion, see_s = timed(lambda: denoise.see(networks.reference_unet, portrait.expand(2, -1, -1, -1), text))
        free()
        tokens = torch.randn(1, 14, config.audio_projection.tokens, config.audio_projection.width, generator=random)
        ctx = Context(
            text=text, num_frames=14, reference=seen, audio=tokens.to(**there), cache=KVCache(),
            motion={name: value.unsqueeze(0) for name, value in motion.items()},
        )  # fmt: skip
        latents = torch.randn(14, 4, cells, cells, generator=random).to(**there)
        latents = latents.contiguous(memory_format=torch.channels_last)
        at = torch.tensor([999.0], device=where)
        _, first_s = timed(lambda: networks.denoising_unet(latents, at, ctx).float().cpu())
        out, step_s = timed(lambda: networks.denoising_unet(latents, at, ctx).float().cpu())
        ctx.cache.clear()
        free()
        # The autoencoder's random weights overflow nothing that is as small as this.
        _, decode_s = timed(lambda: frames.decode(networks.vae, 0.01 * out.nan_to_num().clamp(-1, 1)))
    most = torch.cuda.max_memory_allocated(where) / 1e9 if on_gpu else peak_mb() / 1e3
    name = torch.cuda.get_device_name(where) if on_gpu else str(where)
    found = (name, dtype, offload, size, round(estimate.need(job) / 1e9, 2), round(most, 2), see_s, first_s, step_s)
    return dict(zip(COLUMNS, (*found, decode_s), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", action="append", help="default: fp16, bf16, fp32; on the CPU bf16, fp32")
    parser.add_argument("--offload", action="append", help="default: none, cpu, sequential; on the CPU none")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--row", action="store_true", help=argparse.SUPPRESS)  # in this process, as JSON
    given = parser.parse_args()
    if given.row:
        print(json.dumps(row(given.device, given.dtype[0], given.offload[0], given.size)))  # noqa: T201
        return
    from tbd_core.devices import has_own_memory, pick_device

    own = has_own_memory(pick_device(given.device))
    sys.stdout.write(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n")
    for dtype in given.dtype or (["fp16"] if own else []) + ["bf16", "fp32"]:
        for offload in given.offload or (["none", "cpu", "sequential"] if own else ["none"]):
            command = [
                sys.executable,
                __file__,
                "--row",
                "--device",
                given.device,
                "--dtype",
                dtype,
                "--offload",
                offload,
            ]
            done = subprocess.run([*command, "--size", str(given.size)], stdout=subprocess.PIPE, text=True)
            if done.returncode:
                sys.stdout.write(f"| {given.device} | {dtype} | {offload} | {given.size} | failed, see above |\n")
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            sys.stdout.write(f"| {' | '.join(str(found[name]) for name in COLUMNS)} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
