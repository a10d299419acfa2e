"""Checkpoints: everything that a run needs to go on bit for bit, written under a temporary name and renamed."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..data.files import replacing
from ..errors import ResourceError, TrainingError

FORMAT = 1


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings, lists, dicts) to ``path``; an older file stays until it is whole.

    Raises ResourceError when the disk is full or cannot be written.
    """
    try:
        with replacing(path) as temporary:
            torch.save({"format": FORMAT, **state}, temporary)
    except RuntimeError as error:  # what torch makes of a failed write
        raise ResourceError(
            f"The checkpoint {path} could not be written; free disk space or allow writing there, then resume: "
            "the last checkpoint is intact."
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what ``save_checkpoint`` wrote, without executing anything in it.

    Raises TrainingError when there is none, or when it is damaged or of a newer version.
    """
    if not path.is_file():
        raise TrainingError(f"There is no checkpoint at {path}; start the training anew with a fresh run folder.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise TrainingError(f"The checkpoint {path} is damaged; start the training anew.") from error
    if not isinstance(state, dict) or not isinstance(state.get("format"), int):
        raise TrainingError(f"{path} is no checkpoint of a CAML training; name a run folder made by caml train.")
    if state["format"] > FORMAT:
        raise TrainingError(f"The checkpoint {path} was made by a newer version; update the extension to resume it.")
    return state


def known_scans(state: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    """Return (id, digest of the voxels) of cases that took part with a label; older versions kept none."""
    return frozenset((str(name), str(digest)) for name, digest in state.get("scans") or ())
