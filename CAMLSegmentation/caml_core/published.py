"""Checkpoints as the published CAML code writes them (one state dict in a .pth file), read without running their code.

PyTorch is imported inside the functions that read a file.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from .anatomy import LEFT_ATRIUM
from .config import ChannelIntensity, Geometry, ModelSpec
from .errors import ModelFileError
from .model_file import ModelInfo, misfit, network_shapes
from .presets import PAPER_PATCH, paper_preset

if TYPE_CHECKING:
    from torch import Tensor

MAX_CHECKPOINT = 4 * 1024**3
#: How a .pth begins: a zip, or (before PyTorch 1.6) a pickle of protocol 2 and up.
_BEGINNINGS = (b"PK\x03\x04", b"\x80")
#: Under which names training scripts like to nest a state dict.
_NESTS = ("state_dict", "model_state_dict", "model", "network", "net", "weights", "ema")
#: What PyTorch's DataParallel puts before every name.
_PARALLEL = "module."


def published_spec() -> ModelSpec:
    """Return what the published Left Atrium networks expect: 0.625 mm, z-scored over the whole image, two classes.

    Mirrored in the first two axes is how they were trained; orientation is that of the challenge's files.
    """
    preset = paper_preset(in_channels=1, classes=2, labeled_cases=8)
    return ModelSpec(
        geometry=Geometry(spacing=(0.625, 0.625, 0.625), patch=PAPER_PATCH),
        network=preset.network,
        channels=(ChannelIntensity(kind="zscore", lower=0.0, upper=100.0, region="image", modality="MR"),),
        segments=(LEFT_ATRIUM,),
        flip_axes=preset.augmentation.flip_axes,
    )


def published_info(name: str, path: Path) -> ModelInfo:
    """Return the card of an imported checkpoint: what is known of it, and its own SHA-256."""
    return ModelInfo(
        name=name,
        anatomy="Left atrium",
        modality="MR",
        description="Imported from a checkpoint of the published CAML code, made for late-enhancement heart MRI.",
        citation="Gao et al., Correlation-Aware Mutual Learning for Semi-supervised Medical Image Segmentation, "
        "MICCAI 2023",
        provenance={"imported_from": path.name, "sha256": _digest(path)},
    )


def read_published(path: Path) -> dict[str, Tensor]:
    """Return the state dict of a published checkpoint, in the network's order; raise ModelFileError.

    Only plain tensors are read (PyTorch's ``weights_only``): a file that would run code is refused.
    """
    shapes = network_shapes(published_spec().network)
    state = _find_state(path, _load(path))
    try:
        state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
        fault = misfit(state, shapes)
    except RuntimeError as error:  # sparse tensors, and those without values
        raise _damaged(path) from error
    if fault:
        raise ModelFileError(
            f"The checkpoint {path} does not fit the published CAML network: {fault}; expected a .pth file of "
            f"{len(shapes)} tensors for 1 channel and 2 classes."
        )
    return {name: state[name] for name in shapes}


def _load(path: Path) -> Any:
    import torch

    _check_file(path)
    try:
        with open(path, "rb") as stream:
            if not stream.read(4).startswith(_BEGINNINGS):
                raise _damaged(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except ModelFileError:
        raise
    except PermissionError as error:
        raise ModelFileError(
            f"The checkpoint {path} may not be read; ask its owner for the permission to read it."
        ) from error
    except pickle.UnpicklingError as error:
        if _is_torn(error):
            raise _damaged(path) from error
        raise ModelFileError(
            f"The checkpoint {path} holds more than plain weights and could run code of its own when opened; save its "
            "state dict alone with torch.save(model.state_dict(), ...) and import that."
        ) from error
    except Exception as error:  # torn files make the reader fail in many ways, none of which a user can act on
        raise _damaged(path) from error


def _check_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise ModelFileError(f"{path} is a folder; expected a published checkpoint (.pth).")
        size = path.stat().st_size
    except OSError as error:
        raise ModelFileError(f"There is no checkpoint {path}; check the path.") from error
    if not path.is_file() or size == 0:
        raise ModelFileError(f"The checkpoint {path} is empty; copy or download it again.")
    if size > MAX_CHECKPOINT:
        raise ModelFileError(
            f"The checkpoint {path} is larger than any published one ({size / 1e9:.1f} GB); it is not opened."
        )


def _is_torn(error: pickle.UnpicklingError) -> bool:
    return any(hint in str(error) for hint in ("truncated", "ran out of input", "invalid load key"))


def _damaged(path: Path) -> ModelFileError:
    return ModelFileError(
        f"The checkpoint {path} is damaged or of another kind; expected a .pth file written by the published code."
    )


def _find_state(path: Path, content: Any) -> dict[str, Tensor]:
    """The state dict itself, taken out of what it is nested in, without DataParallel's prefix."""
    for nest in (None, *_NESTS):
        candidate = content if nest is None else content.get(nest) if isinstance(content, Mapping) else None
        if _is_state(candidate):
            if all(name.startswith(_PARALLEL) for name in candidate):
                return {name.removeprefix(_PARALLEL): tensor for name, tensor in candidate.items()}
            return dict(candidate)
    raise ModelFileError(
        f"The checkpoint {path} holds no state dict; expected named tensors, bare or under {', '.join(_NESTS[:3])}."
    )


def _is_state(candidate: Any) -> TypeGuard[Mapping[str, Tensor]]:
    import torch

    return (
        isinstance(candidate, Mapping)
        and len(candidate) > 0
        and all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in candidate.items())
    )


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
