"""Every choice of a training or a prediction, as frozen values that travel as JSON. Standard library only."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from .errors import UsageError

Triple = tuple[int, int, int]
Spacing = tuple[float, float, float]
DTypeName = Literal["fp32", "bf16", "fp16"]

PRESETS = ("default", "paper")
#: Slicer's own coding of "Tissue", the terminology of a segment of which nothing better is known.
GENERIC_TERMINOLOGY = (
    "Segmentation category and type - DICOM master list"
    "~SCT^85756007^Tissue~SCT^85756007^Tissue~^^~Anatomic codes - DICOM master list~^^~^^"
)
#: Colours of classes that come without one (label 1, 2, ... in turn), chosen to stay apart beside each other.
PALETTE = (
    (0.85, 0.35, 0.30),
    (0.30, 0.60, 0.85),
    (0.45, 0.75, 0.35),
    (0.95, 0.75, 0.25),
    (0.65, 0.45, 0.80),
    (0.35, 0.75, 0.70),
    (0.90, 0.55, 0.70),
    (0.60, 0.50, 0.35),
)
#: R is along the axis of L, A along that of P, and I along that of S.
_ONE_LETTER_AN_AXIS = str.maketrans("RAI", "LPS")


#: Metadata of fields that are written only where they say something: versions that lack them then read the file, too.
LEFT_OUT_WHERE_DEFAULT = {"left_out_where_default": True}


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)


@dataclass(frozen=True)
class Segment:
    """One foreground class. ``label`` is its value in label maps (1, 2, ...; 0 is background)."""

    name: str
    label: int
    color: tuple[float, float, float] = (0.5, 0.68, 0.5)
    terminology: str = GENERIC_TERMINOLOGY

    def __post_init__(self) -> None:
        _require(bool(self.name.strip()), "A segment has no name; give every segment a name.")
        _require(1 <= self.label <= 255, f"Segment {self.name!r} has label {self.label}; expected 1 to 255.")


def palette_color(label: int) -> tuple[float, float, float]:
    """The colour of a class that comes without one."""
    return PALETTE[(label - 1) % len(PALETTE)]


def name_key(name: str) -> str:
    """What two spellings of a segment's name share."""
    return name.strip().casefold()


@dataclass(frozen=True)
class ChannelIntensity:
    """How one input channel is brought to the network's range.

    ``zscore``: clip to the ``lower``/``upper`` percentiles of ``region`` voxels of the image itself,
    subtract their mean, divide by their standard deviation. Percentiles 0 and 100 do not clip.
    ``window``: clip to ``lower``..``upper`` in the image's own units (HU), subtract ``mean``, divide by ``std``
    (statistics of the training cohort inside the window).
    """

    kind: Literal["zscore", "window"] = "zscore"
    lower: float = 0.5
    upper: float = 99.5
    mean: float = 0.0
    std: float = 1.0
    region: Literal["foreground", "image"] = "foreground"
    modality: str = "MR"
    #: What the images of this channel are called, such as FLAIR; empty where that is not known. It changes no voxel.
    title: str = field(default="", metadata=LEFT_OUT_WHERE_DEFAULT)

    @property
    def called(self) -> str:
        """Title and modality, as far as they are known."""
        return f"{self.title} {self.modality}".strip()

    def __post_init__(self) -> None:
        numbers = (self.lower, self.upper, self.mean, self.std)
        _require(all(map(math.isfinite, numbers)), f"Intensities {numbers} are not all finite.")
        _require(
            self.kind != "zscore" or (0 <= self.lower and self.upper <= 100),
            f"Percentiles must lie between 0 and 100, got {self.lower} and {self.upper}.",
        )
        _require(self.lower < self.upper, f"Intensity bounds {self.lower} .. {self.upper} are not in order.")
        _require(self.std > 0, f"Intensity standard deviation must be positive, got {self.std}.")


@dataclass(frozen=True)
class NetworkConfig:
    """The two V-Nets. ``classes`` counts the background. ``strides``: downsampling of the four stages, per axis."""

    in_channels: int = 1
    classes: int = 2
    base_filters: int = 16
    strides: tuple[Triple, Triple, Triple, Triple] = ((2, 2, 2),) * 4
    dropout: float = 0.5
    head_features: int = 32
    attention_heads: int = 4
    attention_dropout: float = 0.5
    #: "conv3" is the paper's trilinear upsampling followed by 3x3x3; "conv1" mixes channels before upsampling.
    upsampling_a: Literal["conv3", "conv1"] = "conv3"
    #: Evaluation: "skip" leaves CMA out (paper); "alone" keeps it, each sample being its own group.
    attention_evaluation: Literal["skip", "alone"] = "skip"
    #: Share of training steps in which each sample attends to itself alone, as it does in evaluation.
    attention_alone: float = 0.0
    #: Slope of the activations for negative input; 0 is the paper's ReLU.
    negative_slope: float = 0.0

    def __post_init__(self) -> None:
        _require(1 <= self.in_channels <= 256, f"A network takes 1 to 256 channels, got {self.in_channels}.")
        _require(2 <= self.classes <= 256, f"A network needs 2 to 256 classes, got {self.classes}.")
        _require(
            1 <= self.base_filters <= 64
            and self.attention_heads >= 1
            and (self.base_filters * 8) % self.attention_heads == 0,
            f"base_filters must be 1 to 64 and fit {self.attention_heads} attention heads, got {self.base_filters}.",
        )
        _require(self.head_features >= 1, f"head_features must be at least 1, got {self.head_features}.")
        for name, share in (("dropout", self.dropout), ("attention_dropout", self.attention_dropout)):
            _require(0 <= share <= 1, f"{name} must lie between 0 and 1, got {share}.")
        _require(
            len(self.strides) == 4 and all(s in (1, 2) for stage in self.strides for s in stage),
            "strides must be four triples of 1 or 2.",
        )
        _require(0 <= self.attention_alone <= 1, "attention_alone must lie between 0 and 1.")
        _require(0 <= self.negative_slope < 1, "negative_slope must be at least 0 and below 1.")

    @property
    def divisor(self) -> Triple:
        """By what each side of a patch must be divisible."""
        x, y, z = (math.prod(stage[axis] for stage in self.strides) for axis in range(3))
        return x, y, z


@dataclass(frozen=True)
class NumericMode:
    """Arithmetic chosen by measurement on the machine at hand."""

    dtype: DTypeName = "fp32"
    channels_last: bool = False
    threads: int = 0  # 0: leave torch's own number
    #: Shallow stages whose features are computed again in the backward pass, where memory is short (0 to 3).
    recompute: int = 0


@dataclass(frozen=True)
class AugmentationConfig:
    """``flip_axes``: axes that may be mirrored; ``rotate90``: quarter turns in the first two axes (paper)."""

    flip_axes: tuple[int, ...] = ()
    #: The published pipeline mirrors every sample; otherwise each axis is mirrored in half of them.
    always_flip: bool = False
    rotate90: bool = False
    rotation_degrees: float = 0.0
    scale: float = 0.0  # 0.15: factors 0.85 .. 1.15, times 0.95 .. 1.05 of each axis
    affine_probability: float = 0.0
    #: Share of the labelled patches whose grey values go through a random curve, while each learns alone.
    remap: float = 0.0
    gamma: float = 0.0  # 0.3: exponents exp(-0.3) .. exp(0.3)
    brightness: float = 0.0  # shift in standard deviations
    contrast: float = 0.0  # 0.2: factors 0.8 .. 1.2
    noise: float = 0.0  # largest standard deviation, in standard deviations of the image
    blur: float = 0.0  # largest sigma in voxels
    intensity_probability: float = 0.0


@dataclass(frozen=True)
class LossConfig:
    """Weights and temperatures of CAML's terms; see docs/method.md for the equations."""

    dice: float = 1.0
    cross_entropy: float = 0.0
    consistency: float = 1.0
    omni: float = 0.05
    sharpening_temperature: float = 0.1
    correlation_temperature: float = 0.1
    #: Plain dot products (paper) or cosine similarity.
    cosine: bool = False
    detach_targets: bool = False
    #: Take each sub-model's matrix as the other's target, not only a's as v's.
    symmetric: bool = False
    #: Weight of the class anchor: labelled voxels must correlate with memory of their own class.
    anchor: float = 0.0
    #: The ramp exp(-5 (1 - t/T)^2): T as a share of all iterations, or (paper) in units of 150 iterations.
    ramp_share: float = 0.4
    ramp_units: int = 0
    queries_per_class: int = 12800
    query_confidence: float = 0.0  # 0 with "confident" selection (paper): the most confident ones
    query_selection: Literal["confident", "random"] = "confident"
    boundary_share: float = 0.0
    memory_per_class: int = 256
    memory_per_case: int = 256  # projections kept of each class of a labelled case
    separate_banks: bool = False
    #: Pseudo-labels of the averaged (EMA) networks on the unlabelled voxels, in bidirectional copy-paste.
    mixing: Literal["none", "copy-paste"] = "none"
    pseudo_label: float = 0.0
    #: Who makes them: the average as it moves on, or as it was when the sub-models began to learn from each other.
    teacher: Literal["moving", "fixed"] = "moving"
    #: Share of all iterations in which the sub-models learn from the labels alone, before they learn from each other.
    solo_share: float = 0.0
    #: Keep only the largest component of each class of a pseudo-label (set where the labels are like that; predictions
    #: of the model are then held to it, too).
    pseudo_largest_component: bool = False
    dice_batch: bool = True  # Dice over the whole labelled half at once (paper)


@dataclass(frozen=True)
class OptimizerConfig:
    """``schedule`` runs from ``learning_rate`` to zero over all iterations, or stays constant (paper).

    "plateau": constant until the validated Dice no longer rises, then to zero, which ends the training.
    """

    kind: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: Literal["cosine", "polynomial", "constant", "plateau"] = "cosine"
    warmup: int = 0
    ema: float = 0.0  # decay of the averaged weights; 0: none
    #: Multiple of the learning rate for norms and output layers: what sets scales, while all else is free of scale.
    scale_rate: float = 1.0
    #: Multiple of the learning rate for cross-sample attention: at that of convolutions its tokens become all the same.
    attention_rate: float = 1.0
    gradient_clip: float = 0.0


@dataclass(frozen=True)
class Geometry:
    """The grid that the network sees: patient axes, millimetres, voxels."""

    spacing: Spacing
    patch: Triple
    orientation: str = "LPS"

    def __post_init__(self) -> None:
        _require(all(0 < s < 1000 for s in self.spacing), f"Spacing {self.spacing} mm is not usable.")
        _require(all(p >= 1 for p in self.patch), f"Patch {self.patch} must have positive sides.")
        _require(
            sorted(self.orientation.translate(_ONE_LETTER_AN_AXIS)) == ["L", "P", "S"],
            f"The orientation must name three patient axes such as LPS, got {self.orientation!r}.",
        )


def _check_network(
    network: NetworkConfig,
    geometry: Geometry,
    channels: tuple[ChannelIntensity, ...],
    segments: tuple[Segment, ...],
) -> None:
    """Raise UsageError where a network does not suit what goes into it and what comes out of it."""
    _require(
        len(channels) == network.in_channels,
        f"{len(channels)} channel descriptions for {network.in_channels} input channels.",
    )
    _require(
        len(segments) == network.classes - 1,
        f"{len(segments)} segments for {network.classes} classes (background included).",
    )
    _require(
        all(p % d == 0 for p, d in zip(geometry.patch, network.divisor)),
        f"Patch {geometry.patch} must be divisible by {network.divisor}.",
    )


@dataclass(frozen=True)
class Plan:
    """All that training does, fixed before it starts and kept with the run and the model."""

    preset: str
    geometry: Geometry
    network: NetworkConfig
    channels: tuple[ChannelIntensity, ...]
    segments: tuple[Segment, ...]
    iterations: int
    batch_labeled: int = 2
    batch_unlabeled: int = 2
    losses: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    numeric: NumericMode = field(default_factory=NumericMode)
    labeled_only: bool = False
    #: It begins with a trained model: averages do not forget it at once, and a goes on from its own weights, not v's.
    from_model: bool = False
    #: Share of the labelled patches that are centred on a random foreground voxel.
    foreground_share: float = 0.0
    seed: int = 0
    validate_every: int = 200
    device: str = "cpu"
    #: Iterations that the losses' shares (ramp, warm-up) refer to; 0: all of them.
    horizon: int = 0
    #: What the short measurement found; 0 where nothing was measured.
    seconds_per_iteration: float = 0.0
    seconds_per_window: float = 0.0
    peak_memory_mb: float = 0.0
    budget_seconds: float = 0.0
    #: Medians of the cohort's volumes along L, P, S, in mm: a later volume that is quite different deserves a warning.
    volume_size: Spacing | None = None
    volume_spacing: Spacing | None = None
    #: What the planner wants the user to read.
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(self.preset in PRESETS, f"Unknown preset {self.preset!r}; expected one of {', '.join(PRESETS)}.")
        _require(self.iterations >= 1, f"A training needs at least one iteration, got {self.iterations}.")
        _require(self.batch_labeled >= 1, f"batch_labeled must be at least 1, got {self.batch_labeled}.")
        _check_network(self.network, self.geometry, self.channels, self.segments)

    @property
    def span(self) -> int:
        """Iterations that the losses' shares refer to."""
        return self.horizon or self.iterations

    @property
    def solo_iterations(self) -> int:
        """Iterations at the beginning in which each sub-model learns alone, from labelled patches of its own."""
        return 0 if self.labeled_only else self._first_phase

    @property
    def remapped_iterations(self) -> int:
        """Iterations at the beginning in which grey values go through random curves: as long as each learns alone, or
        as long as it would where nothing but labels is learnt from.
        """
        return self._first_phase if self.augmentation.remap > 0 else 0

    @property
    def _first_phase(self) -> int:
        share = self.losses.solo_share
        return self.iterations if share >= 1.0 else math.ceil(share * self.span)  # all along, whenever that ends

    def patches_of_a_step(self, unlabeled_cases: int) -> str:
        """How many patches of which kind a step takes, in words."""
        if not self.labeled_only and unlabeled_cases:
            return f"{self.batch_labeled} labelled + {self.batch_unlabeled} unlabelled"
        apart = not self.labeled_only and self.losses.solo_share >= 1.0
        return f"{self.batch_labeled} labelled{' for each sub-model' if apart else ''}"

    @property
    def model_spec(self) -> ModelSpec:
        """The part of the plan that prediction needs."""
        return ModelSpec(
            geometry=self.geometry,
            network=self.network,
            channels=self.channels,
            segments=self.segments,
            flip_axes=self.augmentation.flip_axes,
            labeled_only=self.labeled_only,
            one_component=self.losses.pseudo_largest_component,
        )


@dataclass(frozen=True)
class ModelSpec:
    """What prediction has to know of a model. ``flip_axes``: mirrors that it was trained with."""

    geometry: Geometry
    network: NetworkConfig
    channels: tuple[ChannelIntensity, ...]
    segments: tuple[Segment, ...]
    flip_axes: tuple[int, ...] = ()
    #: Only sub-model v was trained.
    labeled_only: bool = False
    #: Every segment is one compact piece in all labelled cases: predictions keep the largest unless told otherwise.
    one_component: bool = False

    @property
    def second_opinion(self) -> bool:
        """Whether predictions may ask sub-model a: it was trained, and sees in evaluation what it saw in training.

        Where evaluation skips the attention (paper), its other layers get features that they were never trained on.
        """
        return not self.labeled_only and self.network.attention_evaluation != "skip"

    def __post_init__(self) -> None:
        labels = [s.label for s in self.segments]
        _require(
            labels == list(range(1, len(labels) + 1)),
            f"Segment labels must be 1, 2, ... in order, got {labels}.",
        )
        _check_network(self.network, self.geometry, self.channels, self.segments)
        _require(set(self.flip_axes) <= {0, 1, 2}, f"Mirrored axes must be 0, 1 or 2, got {self.flip_axes}.")
