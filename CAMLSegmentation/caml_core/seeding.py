"""Random numbers as functions of (seed, purpose, iteration, sample): nothing to save, nothing shared by workers."""

from __future__ import annotations

import zlib

import numpy as np
import torch


def generator_for(seed: int, purpose: str, *indices: int) -> np.random.Generator:
    """Return a generator that depends on its arguments alone."""
    return np.random.Generator(np.random.PCG64([seed, zlib.crc32(purpose.encode("ascii")), *indices]))


def torch_generator_for(seed: int, purpose: str, *indices: int) -> torch.Generator:
    """As ``generator_for``, on the CPU, for torch's functions."""
    return torch.Generator().manual_seed(int(generator_for(seed, purpose, *indices).integers(2**62)))


def seed_torch(seed: int, purpose: str, *indices: int) -> None:
    """Seed torch's global generators (dropout) for one step, so that a resumed run repeats it bit for bit."""
    torch.manual_seed(int(generator_for(seed, purpose, *indices).integers(2**62)))
