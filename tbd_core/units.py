"""Units and fixed ratios of the pipeline. What follows from another number is computed, not typed."""

from .errors import InputError


def exact_div(a: int, b: int) -> int:
    """`a / b`, which must be whole."""
    if a % b:
        raise InputError(f"{a} is not a multiple of {b}; choose numbers that divide without rest")
    return a // b


SAMPLE_RATE = 16_000  # Hz, what wav2vec2 listens at
FPS = 25  # frames per second of every video
SAMPLES_PER_FRAME = exact_div(SAMPLE_RATE, FPS)  # 640

LATENT_SCALE = 8  # pixels per latent cell, each way (f8 VAE)
LATENT_CHANNELS = 4

CLIP_FRAMES = 14  # frames drawn together (paper section 4.1)
MOTION_FRAMES = 2  # frames of the previous clip that the next one sees
AUDIO_WINDOW = 5  # 25 fps audio frames (i-2 .. i+2) that one video frame listens to
AUDIO_CHUNK = 100  # frames of speech that the bundled model's encoder listens to at once, as when it learnt (ours)
TEXT_TOKENS = 77  # CLIP's context, begin and end token included


def num_frames(num_samples: int, sample_rate: int) -> int:
    """Video frames that a recording of `num_samples` at `sample_rate` Hz lasts: floor(25 n / rate + 0.5)."""
    return (2 * FPS * num_samples + sample_rate) // (2 * sample_rate)


def num_clips(num_frames: int) -> int:
    """Clips that `num_frames` frames are drawn in; the last one may be short."""
    return -(-num_frames // CLIP_FRAMES)
