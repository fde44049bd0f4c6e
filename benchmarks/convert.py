"""How much memory `tbd convert` takes on full-size files with random values, in a process of its own.

python benchmarks/convert.py FOLDER [RECIPE ...]      converts with each recipe (default: all three)

The sources are written into FOLDER first, about 17 GB, which takes 10 GB of memory; those already there serve again.
`resident` counts mapped pages of .ckpt and .pth files too, which the system takes back when it needs them; `own` does
not (Linux). Goal: either at most 1.3 times the largest source.
"""

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path


ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

CONVERT = """
import json, sys, threading, time
sys.path.insert(0, sys.argv[1])
from tbd_core.checkpoint.convert import convert

most, done = {"VmRSS": 0, "RssAnon": 0}, threading.Event()

def watch():
    while not done.wait(0.02):
        with open("/proc/self/status") as file:
            for line in file:
                name = line.partition(":")[0]
                if name in most:
                    most[name] = max(most[name], int(line.split()[1]) * 1024)

watcher = threading.Thread(target=watch)
watcher.start()
import torch, diffusers, transformers  # noqa
time.sleep(0.1)
before = dict(most)
began = time.monotonic()
try:
    report = convert(sys.argv[2], json.loads(sys.argv[3]), sys.argv[4], existing="replace")
finally:
    done.set()
    watcher.join()
print(json.dumps({"bytes": report.bytes, "tensors": report.tensors, "seconds": round(time.monotonic() - began, 1),
                  "resident": most["VmRSS"], "own": most["RssAnon"], "own_before": before["RssAnon"]}))
"""


def random_tensors(shapes: dict[str, tuple[int, ...]]) -> dict:
    import torch

    generator = torch.Generator().manual_seed(0)
    return {key: torch.randn(shape, generator=generator).mul_(0.02) for key, shape in shapes.items()}


def write_sources(folder: Path) -> dict[str, Path]:
    """SD 1.5 as one file, the VAE in old names, AnimateDiff and Hallo as pickles, wav2vec2; all fp32."""
    import torch
    from safetensors.torch import save_file

    from tbd_core.checkpoint.plan import networks_of
    from tbd_core.config import replace, sd15
    from tbd_core.models.unet import UNet

    spec = importlib.util.spec_from_file_location("public_files", ROOT / "tests" / "core" / "public_files.py")
    public = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(public)
    nets = networks_of(sd15())
    with torch.device("meta"):
        parts = {"unet": UNet(replace(sd15().unet, audio="none", motion=False)), "vae": nets["vae"]}
        parts["text_encoder"] = nets["text_encoder"]
        single = {key: tuple(value.shape) for key, value in public.ldm(parts).items()}
    hallo = {key: tuple(shape) for key, shape in public.hallo_names(ROOT).items()}
    inside = "denoising_unet."
    motion = {key.removeprefix(inside): shape for key, shape in hallo.items() if ".motion_modules." in key}
    sets = {
        "sd": ("v1-5-pruned-emaonly.safetensors", single),
        "vae": ("sd-vae-ft-mse.safetensors", {k: v.shape for k, v in public.old_vae(parts).items()}),
        "motion": ("mm_sd_v15_v2.ckpt", motion),
        "wav2vec2": ("wav2vec2.safetensors", {k: v.shape for k, v in nets["audio_encoder"].state_dict().items()}),
        "hallo": ("net.pth", hallo),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, shapes in sets.values():
        path = folder / name
        if not path.exists():
            tensors = random_tensors(shapes)
            save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
            sys.stderr.write(f"{path}: {path.stat().st_size / 1e9:.2f} GB\n")
    return {name: folder / file for name, (file, _) in sets.items()}


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    from tbd_core.checkpoint.recipe import load_recipe, shipped

    folder = Path(sys.argv[1])
    if sys.argv[2:] == ["only-write"]:  # in a process of its own: writing holds whole files in memory
        write_sources(folder)
        return
    subprocess.run([sys.executable, __file__, str(folder), "only-write"], check=True)
    files = {
        "sd": "v1-5-pruned-emaonly.safetensors", "text": "v1-5-pruned-emaonly.safetensors",
        "vae": "sd-vae-ft-mse.safetensors", "motion": "mm_sd_v15_v2.ckpt", "wav2vec2": "wav2vec2.safetensors",
        "hallo": "net.pth",
    }  # fmt: skip
    for recipe in sys.argv[2:] or shipped():
        given = {name: str(folder / files[name]) for name in load_recipe(recipe).sources}
        command = [sys.executable, "-c", CONVERT, str(ROOT), recipe, json.dumps(given), str(folder / "out.safetensors")]
        began = time.monotonic()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        largest = max(Path(path).stat().st_size for path in given.values())
        found = json.loads(done.stdout) | {"recipe": recipe, "largest_source": largest}
        found |= {"process_seconds": round(time.monotonic() - began, 1)}
        found |= {name: round(found[key] / largest, 3) for name, key in (("ratio", "resident"), ("own_ratio", "own"))}
        sys.stdout.write(json.dumps(found) + "\n")
        (folder / "out.safetensors").unlink()


if __name__ == "__main__":
    main()
