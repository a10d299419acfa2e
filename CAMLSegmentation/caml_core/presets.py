"""The two presets as functions of what the data is like; the planner fills in sizes and arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from .config import AugmentationConfig, LossConfig, NetworkConfig, OptimizerConfig, Triple

#: Published protocol on the Left Atrium set.
PAPER_PATCH: Triple = (112, 112, 80)
PAPER_ITERATIONS = 15_000
PAPER_RAMP_UNITS = {4: 40, 8: 20, 16: 15}
#: Correlation matrices have a row for each query and a column for each entry of memory, of all classes together: with
#: many classes fewer of each, so that time and memory of a step do not grow with the square of their number.
PAPER_QUERIES, QUERIES, COLUMNS, REMEMBERED = 25_600, 4096, 1024, 2048
#: Share of the patches that go through random curves where few cases are labelled.
REMAPPED = 0.15


@dataclass(frozen=True)
class Preset:
    """Everything of a plan that does not depend on sizes."""

    network: NetworkConfig
    losses: LossConfig
    optimizer: OptimizerConfig
    augmentation: AugmentationConfig
    batch_labeled: int = 2
    batch_unlabeled: int = 2
    foreground_share: float = 0.0


def paper_preset(in_channels: int, classes: int, labeled_cases: int) -> Preset:
    """Return the published network, losses and optimiser (docs/method.md lists what differs).

    labeled_cases chooses the length of the ramp: the published one at 4, 8 and 16, the nearest otherwise.
    """
    nearest = min(PAPER_RAMP_UNITS, key=lambda count: abs(count - labeled_cases))
    return Preset(
        network=NetworkConfig(in_channels=in_channels, classes=classes),
        losses=LossConfig(
            ramp_units=PAPER_RAMP_UNITS[nearest],
            queries_per_class=_each(12_800, PAPER_QUERIES, classes),
            memory_per_class=_each(256, COLUMNS, classes),
        ),
        optimizer=OptimizerConfig(kind="sgd", learning_rate=0.01, schedule="constant"),
        augmentation=AugmentationConfig(flip_axes=(0, 1), always_flip=True, rotate90=True),
    )


def default_preset(
    in_channels: int, classes: int, *, thin: bool = False, one_component: bool = False, few_labels: bool = False
) -> Preset:
    """Return the preset that leaves the published code's warts behind (docs/method.md, one by one).

    thin: the foreground is so small or thin that patches are centred on it more often.
    one_component: every labelled segment is one compact component, so pseudo-labels and predictions are held to that.
    few_labels: so few labelled cases, not in CT, that the cohort has scans of a contrast which none of them has.
    """
    return Preset(
        network=NetworkConfig(
            in_channels=in_channels,
            classes=classes,
            dropout=0.2,
            attention_dropout=0.0,
            upsampling_a="conv1",
            attention_evaluation="alone",
            attention_alone=0.5,
            negative_slope=0.1,
        ),
        losses=LossConfig(
            cross_entropy=1.0,
            consistency=1.0,
            omni=0.05,
            cosine=True,
            correlation_temperature=0.1,
            detach_targets=True,
            symmetric=True,
            anchor=1.0,
            ramp_share=0.4,
            queries_per_class=_each(1024, QUERIES, classes),
            memory_per_class=_each(256, COLUMNS, classes),
            memory_per_case=_each(256, REMEMBERED, classes),
            query_confidence=0.6,
            query_selection="random",
            boundary_share=0.5,
            separate_banks=True,
            mixing="copy-paste",
            pseudo_label=0.5,
            solo_share=0.4,
            pseudo_largest_component=one_component,
        ),
        optimizer=OptimizerConfig(
            kind="adamw",
            learning_rate=3e-3,
            scale_rate=5.0,
            attention_rate=0.1,
            weight_decay=1e-2,
            schedule="cosine",
            warmup=20,
            ema=0.99,
        ),
        augmentation=AugmentationConfig(
            rotation_degrees=15.0,
            scale=0.15,
            affine_probability=0.8,
            remap=REMAPPED if few_labels else 0.0,
            gamma=0.3,
            brightness=0.2,
            contrast=0.2,
            noise=0.15,
            blur=1.0,
            intensity_probability=0.3,
        ),
        foreground_share=0.67 if thin else 0.33,
    )


def _each(most: int, altogether: int, classes: int) -> int:
    """How many each class may have: at most ``most``, and all classes together ``altogether``."""
    return max(min(most, altogether // classes), 1)
