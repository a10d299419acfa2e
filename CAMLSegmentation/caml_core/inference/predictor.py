"""From a case's volumes to its segmentation on the scan's own grid."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..config import ModelSpec, NumericMode, Triple
from ..data.geometry import NetworkGrid
from ..data.grid import Grid
from ..data.intensity import normalize
from ..data.io import Volume
from ..device import available_ram, out_of_memory
from ..errors import Cancelled, DataError, ModelFileError, ResourceError, UsageError
from ..events import Listener, silent
from ..model.caml import CamlNetwork
from .assembly import Assembly, volumes_ml
from .numeric import cast, free_memory, memory_per_voxel, prepared_network
from .postprocessing import BY_MODEL, PostProcessing, clean
from .sliding_window import Weighting, Windows, fitted_windows, strided_windows, sums_bytes, sweep
from .uncertainty import case_score

Quality = Literal["fast", "balanced", "best"]
SubModel = Literal["auto", "v", "a", "mean"]
#: Least overlap of windows, as a share of their sides.
OVERLAPS: dict[Quality, float] = {"fast": 0.1, "balanced": 0.25, "best": 0.5}
#: Windows may be longer than the training patch by these factors, largest first as memory allows.
_STRETCHES = (1.5, 1.25, 1.0)
#: "fast" takes the whole volume at once where it can.
_WHOLE = (1e6, 4.0, 3.0, 2.0, *_STRETCHES)
#: Voxels beyond which one window is not sensible whatever the memory: 8 GB with 16 filters in bfloat16.
_LARGEST_WINDOW = 32 * 2**20
#: Share of the free memory that the windows may take.
_MEMORY_SHARE = 0.5
#: Why there is no map where one was asked for.
_NO_TRAINED_A = "The model has one trained sub-model: there is no disagreement map."
_NO_SECOND_OPINION = (
    "Sub-model a of this model lacks in predictions the attention that it was trained with and is no second opinion: "
    "there is no disagreement map, unless the mean of both is asked for."
)


@dataclass(frozen=True)
class Protocol:
    """Windows of exactly the training patch at a fixed stride, as published evaluations have them."""

    stride: Triple
    weighting: Weighting = "uniform"


@dataclass(frozen=True, eq=False)
class Prediction:
    """``labels`` uint8 [X, Y, Z] on ``grid``, the scan's own. ``disagreement``: 0 to 255 for 0 to 1, or None.

    ``agreement``: Dice of sub-model v against a per segment (empty where one ran), ``volumes_ml`` per segment,
    ``removed_ml`` what cleaning took from a segment (only those that lost some), ``windows`` those of the network
    (their size depends on the free memory, and the labels a little on it), ``timing`` seconds of ``prepare``,
    ``network`` and ``total``.
    """

    labels: np.ndarray
    grid: Grid
    disagreement: np.ndarray | None = None
    probability: np.ndarray | None = None
    agreement: dict[str, float] = field(default_factory=dict)
    volumes_ml: dict[str, float] = field(default_factory=dict)
    removed_ml: dict[str, float] = field(default_factory=dict)
    windows: Windows | None = None
    timing: dict[str, float] = field(default_factory=dict)

    @property
    def score(self) -> float | None:
        """Mean agreement of both sub-models on what they found, None where they found nothing or one ran."""
        return case_score(self.agreement, self.volumes_ml)


class Predictor:
    """Segments one case after another with one model. ``network`` is copied, and free to be trained on afterwards.

    ``quality``: "fast" takes the fewest windows and sub-model v alone, "balanced" both sub-models and an overlap of a
    quarter, "best" half an overlap and the mirrors that the model was trained with; a model whose sub-model a is no
    second opinion (``ModelSpec.second_opinion``) has v alone, and neither agreement nor map. ``sub_model`` overrides
    which sub-models make the labels, and asks any that was trained. ``cleaning`` is applied to them; agreement and maps
    are those before it. ``stop`` is asked before every window.
    """

    def __init__(
        self,
        network: CamlNetwork,
        spec: ModelSpec,
        *,
        numeric: NumericMode | None = None,
        device: str = "cpu",
        quality: Quality = "balanced",
        sub_model: SubModel = "auto",
        cleaning: PostProcessing = BY_MODEL,
        protocol: Protocol | None = None,
        stop: Callable[[], bool] = lambda: False,
        listener: Listener = silent,
    ) -> None:
        self.spec, self.device, self.quality, self.protocol = spec, device, quality, protocol
        self.numeric = numeric or NumericMode(channels_last=device == "cpu")
        self.use = _sub_models(spec, quality, sub_model)
        self.cleaning = cleaning.for_model(spec)
        self._stop, self.listener = stop, listener
        self._told = False  # of windows that are smaller than usual
        self._original = network
        self._network = prepared_network(network, self.numeric, device)
        self._mirrors = _mirrors(spec.flip_axes if quality == "best" and protocol is None else ())
        if protocol is not None:
            _check_stride(protocol.stride, spec.geometry.patch)

    def predict(
        self,
        volumes: Sequence[Volume],
        *,
        uncertainty: bool = False,
        probability: bool = False,
        within: np.ndarray | None = None,
    ) -> Prediction:
        """Segment one case, given as one volume a channel on one grid.

        within: [X, Y, Z] on that grid; where it is 0, nothing is labelled, maps are 0, and what lies there counts
        neither for the agreement nor as a part when parts are chosen. Raises DataError for the wrong number of
        channels or size of ``within``, Cancelled when asked to stop, ResourceError where memory does not suffice even
        for small windows, ModelFileError where the network's output is not finite.
        """
        begin = time.perf_counter()
        way = NetworkGrid.of(volumes[0].grid, self.spec.geometry)
        if within is not None and within.shape != way.source.size:
            raise DataError("The region differs in size from the image; give it on the image's own grid.")
        image = self._prepared(volumes, way)
        prepared = time.perf_counter()
        compared = uncertainty and (self.spec.second_opinion or "a" in self.use)
        models = ("v", "a") if compared or len(self.use) == 2 else self.use
        if uncertainty and len(models) < 2:
            self.listener("warning", {"message": _NO_TRAINED_A if self.spec.labeled_only else _NO_SECOND_OPINION})
        self.listener("stage", {"name": "predict"})
        counted = None  # where agreement counts
        if within is not None and len(models) == 2:
            counted = way.labels_to_network((within != 0).astype(np.uint8), 2)
        assembly = partial(
            Assembly,
            way,
            segments=self.spec.segments,
            models=models,
            use=self.use,
            uncertainty=uncertainty,
            probability=probability,
            within=counted,
        )
        result, windows = self._segment(image, way.size, models, assembly)
        segmented = time.perf_counter()
        grid, segments = volumes[0].grid, self.spec.segments
        if within is not None:
            for filled in (result.labels, result.disagreement, result.probability):
                if filled is not None:
                    filled[within == 0] = 0
        removed = clean(result.labels, grid.voxel_ml, segments, self.cleaning) if self.cleaning else {}
        found = volumes_ml(result.labels, grid.voxel_ml, segments)
        end = time.perf_counter()
        return Prediction(
            labels=result.labels,
            grid=grid,
            disagreement=result.disagreement,
            probability=result.probability,
            agreement=result.agreement,
            volumes_ml=found,
            removed_ml=removed,
            windows=windows,
            timing={"prepare": prepared - begin, "network": segmented - prepared, "total": end - begin},
        )

    def windows(self, size: Triple, models: Sequence[str] = ("v",)) -> Windows:
        """Return the windows for a volume of ``size`` network voxels, as large as is useful and memory allows.

        The network's own room and the sums count (``sums_bytes``). The smallest windows are returned where not even
        they fit: whether they do is seen when they are tried, but for the sums (``_check_sums``).
        """
        patch, divisor = self.spec.geometry.patch, self.spec.network.divisor
        if self.protocol is not None:
            return strided_windows(size, patch, self.protocol.stride)
        # Sub-model a's attention knows about as many tokens as the training patch has.
        stretches = _WHOLE if self.quality == "fast" and tuple(models) == ("v",) else _STRETCHES
        per_voxel = memory_per_voxel(self.spec.network, self.numeric.dtype)
        maps, limit = len(models) * len(self.spec.segments), _MEMORY_SHARE * free_memory(self.device)
        usual: Windows | None = None
        for stretch in stretches:
            windows = fitted_windows(size, patch, divisor, OVERLAPS[self.quality], stretch)
            voxels = math.prod(windows.window)
            if voxels > _LARGEST_WINDOW:
                continue
            usual = usual or windows
            if voxels * per_voxel + sums_bytes(windows, maps) <= limit:
                break
        self._tell_of_small(windows, usual or windows)
        return windows

    def _tell_of_small(self, windows: Windows, usual: Windows) -> None:
        """Say once where labels may differ from those of a computer with more memory; "fast" is as memory has it."""
        if windows.window == usual.window or self.quality == "fast" or self._told:
            return
        self._told = True
        small, large = ("x".join(map(str, w.window)) for w in (windows, usual))
        message = f"Free memory allows windows of {small} instead of {large}; labels may differ a little by that."
        self.listener("warning", {"message": message})

    def _prepared(self, volumes: Sequence[Volume], way: NetworkGrid) -> Tensor:
        """Bring the channels to the network's grid and range, exactly as in training; float32 [C, x, y, z]."""
        channels = self.spec.channels
        if len(volumes) != len(channels):
            raise DataError(f"The model needs {len(channels)} image(s) a case, got {len(volumes)}.")
        if any(volume.array.shape != way.source.size for volume in volumes):
            raise DataError("The images of the case differ in size; resample the channels onto one grid first.")
        _check_room(way, len(channels))
        image = np.empty((len(channels), *way.size), np.float32)
        for index, (volume, channel) in enumerate(zip(volumes, channels)):
            image[index] = way.image_to_network(volume.array)  # of another type or order where nothing is resampled
            normalize(image[index], channel, out=image[index])
        return torch.from_numpy(image)

    def _segment(
        self, image: Tensor, size: Triple, models: Sequence[str], assembly: Callable[[int], Assembly]
    ) -> tuple[Assembly, Windows]:
        """Fill the assembly along the windows' axis; one that was begun in vain is left for another."""
        windows, shrunk = self.windows(size, models), self.protocol is not None
        while True:
            try:
                return self._run(image, windows, models, assembly(windows.axis)), windows
            except _NotFinite:
                self._use_full_precision()
                windows = windows if shrunk else self.windows(size, models)  # numbers of twice the bytes
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if shrunk:
                    raise ResourceError(
                        f"There is not enough memory on {self.device} for this case, even with small windows; close "
                        "other programs, or choose another device."
                    ) from error
                windows, shrunk = self._smaller(windows), True
            if self.device.startswith("cuda"):
                torch.cuda.empty_cache()

    def _run(self, image: Tensor, windows: Windows, models: Sequence[str], assembly: Assembly) -> Assembly:
        maps = len(models) * len(self.spec.segments)
        self._check_sums(windows, maps)
        weighting = self.protocol.weighting if self.protocol else "gaussian"
        done = itertools.count(1)

        def forward(window: Tensor) -> Tensor:
            if self._stop():
                raise Cancelled("The prediction was stopped; nothing was written for the case at work.")
            result = torch.cat([self._foreground(name, window) for name in models])
            self.listener("progress", {"done": next(done), "total": windows.count, "unit": "windows"})
            return result

        with torch.inference_mode():
            for _, rows in sweep(image, windows, forward, maps, weighting=weighting, device=self.device):
                if not bool(torch.isfinite(rows).all()):
                    raise _NotFinite
                assembly.add(rows)
        return assembly

    def _check_sums(self, windows: Windows, maps: int) -> None:
        """Raise MemoryError where there is no room for the sums and their last rows, which are as many.

        Systems promise a processor's program more memory than there is, and end it when it is used.
        """
        free = available_ram()
        if self.device == "cpu" and free and 2 * sums_bytes(windows, maps) // 3 > free:
            raise MemoryError("not enough memory for the sums of all segments")

    def _foreground(self, name: str, window: Tensor) -> Tensor:
        """Mean probability over the mirrors, float32 [classes - 1, *window]."""
        run = self._network.forward_v if name == "v" else self._network.forward_a
        total: Tensor | None = None
        for axes in self._mirrors:
            logits = run(cast(window.flip(axes), self.numeric, self.device)).float()
            foreground = torch.softmax(logits, dim=1)[0, 1:].flip([axis - 1 for axis in axes])
            total = foreground if total is None else total.add_(foreground)
        assert total is not None
        return total / len(self._mirrors) if len(self._mirrors) > 1 else total

    def _use_full_precision(self) -> None:
        if self.numeric.dtype == "fp32":
            raise ModelFileError(
                "The model computes values that are not finite on this image; check the image's intensities, "
                "or train the model again."
            )
        message = f"{self.numeric.dtype} was not precise enough for this image; going on in fp32."
        self.listener("warning", {"message": message})
        self.numeric = replace(self.numeric, dtype="fp32")
        self._network = prepared_network(self._original, self.numeric, self.device)

    def _smaller(self, windows: Windows) -> Windows:
        """Windows of half the sides, an eighth of the memory."""
        divisor = self.spec.network.divisor
        x, y, z = (max(d, side // 2 // d * d) for side, d in zip(windows.window, divisor))
        self.listener("warning", {"message": "Memory did not suffice; trying once more with smaller windows."})
        return fitted_windows(windows.size, (x, y, z), divisor, OVERLAPS[self.quality], 1.0)


def _check_room(way: NetworkGrid, channels: int) -> None:
    """Raise ResourceError where the case cannot be brought to the network's grid: no error is sure to come then."""
    needed = 4 * math.prod(way.size) * (channels + 2)  # one channel is resampled axis by axis
    free = available_ram()
    if free and needed > free:
        spacing = " x ".join(f"{value:g}" for value in way.source.spacing)
        raise ResourceError(
            f"The scan has {' x '.join(map(str, way.source.size))} voxels of {spacing} mm, which on the model's grid "
            f"take {needed / 1e6:.0f} MB of memory, and {free / 1e6:.0f} MB are free; check the spacing in the file, "
            "or close other programs."
        )


class _NotFinite(Exception):  # noqa: N818 (a signal between two functions here, no error that anyone sees)
    """The network gave NaN or infinite values."""


def _sub_models(spec: ModelSpec, quality: Quality, sub_model: SubModel) -> tuple[str, ...]:
    if quality not in OVERLAPS or sub_model not in ("auto", "v", "a", "mean"):
        raise UsageError(
            "Quality must be fast, balanced or best and the sub-model auto, v, a or mean; "
            f"got {quality!r} and {sub_model!r}."
        )
    if spec.labeled_only and sub_model in ("a", "mean"):
        raise UsageError("The model was trained on labels only: its sub-model a knows nothing; use auto or v.")
    if sub_model == "auto":
        sub_model = "mean" if spec.second_opinion and quality != "fast" else "v"
    return ("v", "a") if sub_model == "mean" else (sub_model,)


def _check_stride(stride: Triple, patch: Triple) -> None:
    if any(s > p for s, p in zip(stride, patch)):
        raise UsageError(
            f"The stride {'x'.join(map(str, stride))} is longer than the model's patch {'x'.join(map(str, patch))} and "
            "would leave voxels out; expected at most the patch along each axis."
        )


def _mirrors(axes: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """All combinations of mirrored axes as dimensions of [B, C, x, y, z], the unmirrored image first."""
    return tuple(_combinations([2 + axis for axis in sorted(set(axes))]))


def _combinations(axes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    for number in range(len(axes) + 1):
        yield from itertools.combinations(axes, number)
