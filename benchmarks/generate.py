"""How long `tbd generate` takes and how much memory it holds, each in a process of its own.

python benchmarks/generate.py time            the sample (3 s) with the bundle's defaults
python benchmarks/generate.py memory          5 s and 120 s of speech, two steps, no guidance: the long one's extra
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile


ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "tbd_core" / "assets" / "sample"


def generate(speech: Path, folder: Path, *more: str) -> dict:
    command = [
        sys.executable, "-m", "tbd_core", "generate", "--json", *more,
        "--portrait", str(SAMPLE / "portrait.png"), "--speech", str(speech),
        "--emotion", "happy", "--intensity", "moderate", "--output", str(folder / "out.mp4"),
    ]  # fmt: skip
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    result = json.loads(done.stdout)
    return {
        "speech_seconds": result["seconds"],
        "process_seconds": round(time.monotonic() - began, 1),
        "wall_seconds": result["wall_seconds"],
        "peak_mb": result["peak_mb"],
    }


def lengthened(seconds: float, folder: Path) -> Path:
    """The sample again and again, at 48 kHz stereo, as a recorder would give it."""
    sound, rate = soundfile.read(SAMPLE / "speech.wav")
    sound = np.repeat(sound, 48_000 // rate)
    sound = np.tile(sound, int(seconds * 48_000 / len(sound)) + 1)[: int(seconds * 48_000)]
    path = folder / f"{seconds:g}s.wav"
    soundfile.write(path, np.stack([sound, sound], axis=1), 48_000)
    return path


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if sys.argv[1:] == ["time"]:
            found = [generate(SAMPLE / "speech.wav", folder)]
        elif sys.argv[1:] == ["memory"]:
            found = [
                generate(lengthened(seconds, folder), folder, "--steps", "2", "--guidance", "1") for seconds in (5, 120)
            ]
        else:
            sys.exit(__doc__)
    for line in found:
        sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
