"""MODEL.caml: one zip of ``weights.safetensors`` and ``model.json``. No pickle; what does not fit is refused.

The file is read as if a stranger had made it: names, sizes, checksums and shapes are compared with what the network
of its description needs before a tensor is made of anything. PyTorch is imported where weights are touched only, so
that a panel can show a model's card without it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import struct
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .case_names import as_digest
from .config import ModelSpec, NetworkConfig
from .errors import ModelFileError, UsageError
from .model_archive import (
    DOCUMENT,
    FAULTS,
    MAX_DOCUMENT,
    MAX_WEIGHTS,
    WEIGHTS,
    check_members,
    damaged,
    foreign,
    opened,
    read_member,
    write_members,
)
from .serialization import from_json, to_json

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "caml-model"
FORMAT_VERSION = 1
#: Room for the head of the safetensors file, which names every tensor.
_HEAD_ROOM = 1024**2
#: Lists and objects in each other, in a description; ours have six.
_DEEPEST = 100
_TYPES = {"F16", "BF16", "F32", "I64"}

Shapes = Mapping[str, tuple[tuple[int, ...], bool]]


@dataclass(frozen=True)
class ModelInfo:
    """A model's card: what it is, what it was trained on, how well it did on held-out cases, where it comes from.

    ``metrics``: figures on held-out cases, nested by name. ``provenance``: seeds, versions, case hashes, times.
    ``plan``: the training plan as JSON values, None where the model was not trained here. Cases that took part stand
    there without their names (``case_names``).
    """

    name: str
    anatomy: str = ""
    modality: str = ""
    description: str = ""
    license: str = ""
    citation: str = ""
    labeled_cases: int = 0
    unlabeled_cases: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] | None = None


def learned_cases(info: ModelInfo) -> tuple[str, ...]:
    """Return the digests of the names (``case_names``) of all cases whose labels a model has learnt from.

    These are the cases of its own training, and of those before it.
    """
    listed, before = info.provenance.get("cases"), info.provenance.get("learned")
    own = listed if isinstance(listed, dict) else {}
    labeled = {name for name, entry in own.items() if isinstance(entry, dict) and entry.get("role") == "labeled"}
    return tuple(sorted({as_digest(str(name)) for name in (*labeled, *(before if isinstance(before, list) else ()))}))


def learned_scans(info: ModelInfo) -> frozenset[tuple[str, str]]:
    """Return (digest of the name, digest of the scan's voxels) of ``learned_cases``.

    Names mean little beyond the cohort they are of. The second is empty where the card, or that of a model before it,
    has the name alone.
    """
    return _scans(info, "learned_scans", learned_cases(info))


def stopping_scans(info: ModelInfo) -> frozenset[tuple[str, str]]:
    """Return, as ``learned_scans``, the held-out cases that decided when its training, or one before it, ended."""
    ids = info.provenance.get("stopped_by")
    return _scans(info, "stopped_by_scans", [as_digest(str(name)) for name in ids] if isinstance(ids, list) else [])


def _scans(info: ModelInfo, entry: str, ids: Iterable[str]) -> frozenset[tuple[str, str]]:
    listed = info.provenance.get(entry)
    pairs = [pair for pair in listed if isinstance(pair, list)] if isinstance(listed, list) else []
    found = {(as_digest(str(pair[0])), str(pair[1])) for pair in pairs if len(pair) == 2}
    known = {name for name, _ in found}
    return frozenset(found | {(name, "") for name in ids if name not in known})


@dataclass(frozen=True)
class ModelCard:
    """All that a model file says without its weights. ``sha256`` is that of the weights, ``size`` the file's bytes."""

    spec: ModelSpec
    info: ModelInfo
    path: Path
    caml_version: str
    sha256: str
    size: int
    parameters: int


@dataclass(frozen=True)
class LoadedModel:
    """A checked model. ``state`` fits ``build_network(spec.network)``: float32 weights, int64 counters, on the CPU."""

    spec: ModelSpec
    state: dict[str, Tensor]
    info: ModelInfo
    path: Path


def save_model(
    path: Path,
    *,
    spec: ModelSpec,
    state: Mapping[str, Tensor],
    info: ModelInfo,
    half: bool = True,
    packed: bool = False,
) -> None:
    """Write a model file under a temporary name, then rename it. Equal content gives equal bytes.

    state: the network's state dict. half: keep weights of two and more dimensions as float16 (biases, scales and
    running statistics stay float32), unless a value does not fit. packed: deflate the file, which takes a twelfth of
    trained weights and more where few of their bits are used; its bytes then depend on the version of zlib, too.
    Raises ModelFileError where the weights do not fit the network or are not finite, ResourceError where the file
    cannot be written; an older file of that name then stays as it was.
    """
    path = Path(path)
    _check_state(state, spec.network, f"The weights for {path}")
    weights = _to_safetensors(state, half)
    document = _plain(
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "caml_version": __version__,
            "spec": to_json(spec),
            "info": to_json(info),
            "weights": {
                "sha256": hashlib.sha256(weights).hexdigest(),
                "bytes": len(weights),
                "parameters": sum(t.numel() for t in state.values() if t.is_floating_point()),
                "tensors": {name: list(tensor.shape) for name, tensor in state.items()},
            },
        }
    )
    document["checksum"] = _checksum(document)
    text = json.dumps(document, indent=1, ensure_ascii=True).encode("ascii")
    _check_sizes(path, len(text), len(weights))
    write_members(path, {DOCUMENT: text, WEIGHTS: weights}, packed)


def read_card(path: Path) -> ModelCard:
    """Return what the model file says of itself, without PyTorch and without its weights; raise ModelFileError."""
    path = Path(path)
    with opened(path) as archive:
        document = _document(path, archive)
    return _card(path, document)


def load_model(path: Path) -> LoadedModel:
    """Return the model of a file after checking all of it; raise ModelFileError with one plain sentence."""
    path = Path(path)
    with opened(path) as archive:
        document = _document(path, archive)
        card = _card(path, document)
        shapes = _shapes(path, card.spec.network)
        weights = read_member(path, archive, WEIGHTS, limit=_largest_weights(shapes))
    if hashlib.sha256(weights).hexdigest() != card.sha256:
        raise ModelFileError(f"The weights in {path} are not those it was made with; copy or download the file again.")
    state = _from_safetensors(path, weights, shapes)
    return LoadedModel(card.spec, state, card.info, path)


@functools.lru_cache(maxsize=8)
def network_shapes(config: NetworkConfig) -> Shapes:
    """Return (shape, is it a float) of every entry of the network's state dict, in order, without making weights."""
    import torch

    from .model import build_network

    with torch.device("meta"):
        network = build_network(config)
    return {name: (tuple(t.shape), t.is_floating_point()) for name, t in network.state_dict().items()}


def _shapes(path: Path, config: NetworkConfig) -> Shapes:
    """``network_shapes`` of a stranger's description."""
    try:
        return network_shapes(config)
    except (ArithmeticError, RuntimeError, ValueError, TypeError) as error:
        raise ModelFileError(f"The network that {path} describes cannot be built; it is no CAML model.") from error


def misfit(state: Mapping[str, Tensor], shapes: Shapes) -> str:
    """Return what keeps ``state`` from fitting ``shapes``, as the end of a sentence; empty where it fits."""
    return (
        _name_misfit(set(state), set(shapes))
        or next((f for name in shapes if (f := _shape_misfit(name, state[name], *shapes[name]))), "")
        or next((f"{name} holds values that are not finite" for name in shapes if not _is_finite(state[name])), "")
    )


def _name_misfit(found: set[str], expected: set[str]) -> str:
    missing, unknown = sorted(expected - found), sorted(found - expected)
    if missing:
        return f"{len(missing)} of {len(expected)} tensors are missing, the first being {missing[0]}"
    if unknown:
        return f"{len(unknown)} tensors do not belong to the network, the first being {unknown[0]!a:.100}"
    return ""


def _shape_misfit(name: str, tensor: Tensor, shape: tuple[int, ...], is_float: bool) -> str:
    if tuple(tensor.shape) != shape:
        return f"{name} has the shape {tuple(tensor.shape)}, expected {shape}"
    if is_float != tensor.is_floating_point():
        return f"{name} has the type {str(tensor.dtype).removeprefix('torch.')}"
    return ""


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def _check_state(state: Mapping[str, Tensor], config: NetworkConfig, subject: str) -> None:
    if fault := misfit(state, network_shapes(config)):
        raise ModelFileError(f"{subject} do not fit the network: {fault}; nothing was written.")


def _to_safetensors(state: Mapping[str, Tensor], half: bool) -> bytes:
    import torch
    from safetensors.torch import save

    def stored(tensor: Tensor) -> Tensor:
        tensor = tensor.detach().to("cpu")
        if not tensor.is_floating_point():
            return tensor.to(torch.int64).clone()
        full = tensor.to(torch.float32)
        small = full.to(torch.float16) if half and full.dim() >= 2 else full
        # clone: tied or sliced tensors share memory, which safetensors refuses.
        return (small if bool(small.isfinite().all()) else full).contiguous().clone()

    return save({name: stored(tensor) for name, tensor in state.items()})


def _from_safetensors(path: Path, weights: bytes, shapes: Shapes) -> dict[str, Tensor]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    _check_types(path, weights)
    try:
        tensors = load(weights)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise damaged(path) from error
    if fault := misfit(tensors, shapes):
        raise ModelFileError(f"The weights in {path} do not fit the network that it describes: {fault}; do not use it.")
    return {
        name: tensors[name].to(torch.float32 if is_float else torch.int64).clone()
        for name, (_, is_float) in shapes.items()
    }


def _check_types(path: Path, weights: bytes) -> None:
    """Only 16 and 32 bit floats and 64 bit counters are ours; anything else is refused before it is decoded."""
    try:
        (length,) = struct.unpack_from("<Q", weights)
        head = json.loads(weights[8 : 8 + length]) if length <= _HEAD_ROOM else None
        types = {entry["dtype"] for name, entry in head.items() if name != "__metadata__"}  # type: ignore[union-attr]
    except (*FAULTS, RecursionError, AttributeError, KeyError, TypeError) as error:
        raise damaged(path) from error
    if unknown := sorted(map(str, types - _TYPES)):
        raise ModelFileError(
            f"The weights in {path} have the type {unknown[0]!a:.40}, expected float32 or float16; it is no CAML model."
        )


def _largest_weights(shapes: Shapes) -> int:
    numbers = sum(functools.reduce(lambda a, b: a * b, shape, 1) for shape, _ in shapes.values())
    return min(8 * numbers + _HEAD_ROOM, MAX_WEIGHTS)


def _document(path: Path, archive: zipfile.ZipFile) -> dict[str, Any]:
    try:
        document = json.loads(read_member(path, archive, DOCUMENT, MAX_DOCUMENT))
    except (ValueError, RecursionError) as error:
        raise damaged(path) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise foreign(path)
    if _is_deeper(document, _DEEPEST):
        raise damaged(path)
    version = document.get("format_version")
    if not isinstance(version, int) or version < 1:
        raise damaged(path)
    if version > FORMAT_VERSION:
        raise _too_new(path, document)
    check_members(path, archive)
    return document


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects are nested so deeply that Python could not write them again."""
    inside = [value]
    for _ in range(levels + 1):
        inside = [v for outer in inside for v in (outer.values() if isinstance(outer, dict) else outer)]
        inside = [v for v in inside if isinstance(v, (dict, list))]
    return bool(inside)


def _card(path: Path, document: dict[str, Any]) -> ModelCard:
    if document.get("checksum") != _checksum(document):
        raise ModelFileError(f"{DOCUMENT} in {path} was changed after it was made; copy or download the file again.")
    try:
        spec = from_json(ModelSpec, document.get("spec"), "spec")
        info = from_json(ModelInfo, document.get("info"), "info")
        weights = document["weights"]
        return ModelCard(
            spec=spec,
            info=info,
            path=path,
            caml_version=str(document.get("caml_version", "")),
            sha256=str(weights["sha256"]),
            size=path.stat().st_size,
            parameters=int(weights["parameters"]),
        )
    except UsageError as error:
        if _version(str(document.get("caml_version", ""))) > _version(__version__):
            raise _too_new(path, document) from error
        raise ModelFileError(f"The description in {path} makes no sense: {error}") from error
    except (KeyError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise damaged(path) from error


def _checksum(document: Mapping[str, Any]) -> str:
    """SHA-256 of everything in the description but the checksum itself."""
    content = {name: value for name, value in document.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=True).encode("ascii")).hexdigest()


def _plain(value: Any) -> Any:
    """JSON values alone: numpy's and PyTorch's numbers become Python's, NaN and infinity become null."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return _plain(value.item()) if callable(getattr(value, "item", None)) else str(value)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdecimal() and len(part) < 10)


def _check_sizes(path: Path, document: int, weights: int) -> None:
    if document > MAX_DOCUMENT or weights > MAX_WEIGHTS:
        raise ModelFileError(
            f"The model is too large for {path}: {document / 1e6:.1f} MB of description (at most "
            f"{MAX_DOCUMENT / 1e6:.0f}), {weights / 1e6:.0f} MB of weights (at most {MAX_WEIGHTS / 1e6:.0f})."
        )


def _too_new(path: Path, document: Mapping[str, Any]) -> ModelFileError:
    version = ascii(document.get("caml_version", "unknown"))[:40]
    return ModelFileError(
        f"The model file {path} was made by a newer version of CAML ({version}; this is {__version__}); "
        "update the extension."
    )
