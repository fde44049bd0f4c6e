"""Reads sound files: 16-bit WAV only."""

import wave

import torch
from av.error import FFmpegError


def load(filepath: str) -> tuple[torch.Tensor, int]:
    """[C, T] in [-1, 1], and the rate in Hz."""
    try:
        with wave.open(filepath) as file:
            samples = torch.frombuffer(bytearray(file.readframes(file.getnframes())), dtype=torch.int16)
            return samples.view(-1, file.getnchannels()).T.float() / 2**15, file.getframerate()
    except (wave.Error, EOFError) as error:
        raise FFmpegError(1, "Invalid data found when processing input") from error
