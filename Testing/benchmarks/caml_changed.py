"""``caml`` with changes that the product has no switch for: for benchmarks, and for models without held-out cases.

    python caml_changed.py '{"losses": {"omni": 0.0}}' train COHORT -o RUN --iterations 100

The changes are made in this process alone, before the command runs: the default preset is replaced by one with other
values, and parts that no value takes away are left out. A training must be resumed with the changes it began with.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "CAMLSegmentation"))

from caml_core.model import CamlNetwork
from caml_core.presets import Preset
from caml_core.serialization import from_json

#: Parts of the preset whose fields may be changed.
PARTS = ("network", "losses", "optimizer", "augmentation")


@dataclass(frozen=True)
class Changes:
    """What is other than in the product. The first four: fields of the default preset's parts, by name.

    attention: False leaves cross-sample attention out, in training and in evaluation. sub_model_a: False leaves
    sub-model a out; v learns from the labels and from the pseudo-labels of its own average.
    """

    network: dict[str, Any] = field(default_factory=dict)
    losses: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    augmentation: dict[str, Any] = field(default_factory=dict)
    attention: bool = True
    sub_model_a: bool = True


def apply(changes: Changes) -> None:
    """Change the engine of this process; what is not there to be changed is an AttributeError."""
    from caml_core.training import planner

    _replace(planner, "default_preset", lambda preset: functools.partial(changed_preset, preset, changes))
    if not changes.attention:
        _leave_out_attention()
    if not changes.sub_model_a:
        _leave_out_sub_model_a()


def changed_preset(original: Callable[..., Preset], changes: Changes, *arguments: Any, **named: Any) -> Preset:
    """The preset with the changes; a field that its part does not have is a TypeError."""
    preset = original(*arguments, **named)
    values = {part: dict(getattr(changes, part)) for part in PARTS}
    if not changes.attention:
        values["network"]["attention_evaluation"] = "skip"
    return dataclasses.replace(
        preset, **{part: dataclasses.replace(getattr(preset, part), **fields) for part, fields in values.items()}
    )


def _leave_out_attention() -> None:
    """In training here, in evaluation by the network's configuration, which the model file keeps.

    Sub-model a is a second opinion all the same: it lacks nothing there that it was trained with.
    """
    from caml_core.config import ModelSpec
    from caml_core.model import caml

    _replace(caml, "cross_sample_attention", lambda _: lambda feature, *_, **__: feature)
    _replace(ModelSpec, "second_opinion", lambda _: property(lambda spec: not spec.labeled_only))


def _leave_out_sub_model_a() -> None:
    """A mean teacher: v and its average, with the composites, weights and schedule of the default preset."""
    from caml_core.training import engine, trainer

    def losses(network: Any, composite: Any, other: Any, config: Any, **_: Any) -> Any:
        return engine.labeled_losses(network, composite, config)

    def taught_by_v(original: Callable[..., Any]) -> Callable[..., Any]:
        return lambda teacher, *arguments, **named: original(_TeacherV(teacher), *arguments, **named)

    _replace(engine, "solo_losses", lambda _: losses)
    _replace(engine, "caml_losses", lambda _: losses)
    _replace(engine, "pseudo_labels", taught_by_v)

    # What is validated, scored and saved is v.
    def of_v(plan: Any) -> Any:
        return dataclasses.replace(plan, labeled_only=True)

    def validating(original: Callable[..., Any]) -> Callable[..., Any]:
        return lambda network, plan, *arguments, **named: original(network, of_v(plan), *arguments, **named)

    def running(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(self: Any) -> Any:
            outcome = original(self)
            self.plan = of_v(self.plan)
            return outcome

        return run

    _replace(trainer, "validate", validating)
    _replace(trainer.Trainer, "run", running)


class _TeacherV:
    """Sub-model v in the place of both."""

    def __init__(self, network: CamlNetwork) -> None:
        self.probabilities = network.forward_v


def _replace(home: ModuleType | type, name: str, make: Callable[[Any], Any]) -> None:
    setattr(home, name, make(getattr(home, name)))


def main(arguments: list[str]) -> int:
    """Apply the changes of the first argument and run ``caml`` with the others."""
    apply(from_json(Changes, json.loads(arguments[0]), "changes"))
    from caml_core.cli import main as command

    return command(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
