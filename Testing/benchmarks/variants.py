"""What the accuracy benchmarks compare: runs by name, each a set of options and changes of ``caml train``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from common import REPOSITORY  # noqa: F401  finds the engine

from caml_core.config import LossConfig, NetworkConfig
from caml_core.serialization import to_json


@dataclass(frozen=True)
class Variant:
    """``words`` end the sentence "NAME: ..." below a table; ``changes`` are those of caml_changed.py."""

    words: str
    options: tuple[str, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)


def _papers_terms() -> dict[str, Any]:
    """Losses and networks of the paper; the ramp takes a share of the iterations, which are fewer than published."""
    losses, network = to_json(LossConfig()), to_json(NetworkConfig())
    del losses["pseudo_largest_component"]  # predictions are held to it as well, as those of all other runs are
    kept = ("in_channels", "classes", "base_filters", "strides")  # of the data and of the plan
    return {"losses": losses, "network": {name: value for name, value in network.items() if name not in kept}}


VARIANTS = {
    "caml": Variant("the default preset"),
    "labeled-only": Variant(
        "sub-model v on the labelled cases alone, with the same plan, augmentation, supervised losses and schedule",
        options=("--labeled-only",),
    ),
    "mean-teacher": Variant(
        "sub-model v alone; unlabelled cases take part by pseudo-labels of v's own average in the default preset's "
        "copy-paste; nothing of CAML",
        changes={"sub_model_a": False},
    ),
    "no-cma": Variant("the default preset without cross-sample attention", changes={"attention": False}),
    "no-occ": Variant("the default preset without omni-correlation and its anchor", changes={"losses": {"omni": 0.0}}),
    "no-cma-no-occ": Variant(
        "the default preset without both: two sub-models with mutual consistency and pseudo-labels",
        changes={"attention": False, "losses": {"omni": 0.0}},
    ),
    "paper-losses": Variant(
        "the paper's losses and networks (no pseudo-labels, both sub-models from the start) at the default preset's "
        "resolution, with its optimiser, augmentation and averaged weights; figures are those of sub-model v, as the "
        "paper has them",
        changes=_papers_terms(),
    ),
}
