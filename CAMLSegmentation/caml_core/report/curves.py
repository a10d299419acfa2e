"""Loss, learning rate and validation Dice of one training, or of several side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .run_facts import sub_models
from .style import COLORS, as_written, colors_of, legend, new_figure, nothing_to_show, plot_axes, save
from .table import Table, points, read_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Column of metrics.csv -> what the legend calls it.
LOSSES = {
    "loss_total": "total",
    "loss_supervised": "supervised, mean of the sub-models",
    "loss_pseudo": "pseudo-labels",
    "loss_consistency": "mutual consistency",
    "loss_omni": "omni-correlation",
}
#: Of the picture of :func:`draw_runs`.
RUNS_CAPTION = (
    "How the trainings went, over the time they took. The supervised loss is the mean of the sub-models in training. "
    "CAML's counts pseudo-labelled voxels, too, which a training on labels only does not have."
)
DICE = {
    "validation_dice": "the model",
    "validation_dice_v": "sub-model v",
    "validation_dice_a": "sub-model a",
}


def draw_curves(run_folder: Path) -> Path:
    """Draw RUN_DIR/metrics.csv as RUN_DIR/curves.png and return its path; columns may be missing.

    Raises DataError where there is no table, ResourceError where the disk fails.
    """
    table = _table(Path(run_folder))
    figure = new_figure(11.0, 3.4)
    losses, dice, rate = figure.subplots(1, 3, width_ratios=(1.3, 1.3, 0.8))
    _lines(losses, table, LOSSES)
    plot_axes(losses, "Training losses", "iteration", "loss")
    _logarithmic(losses)
    _lines(dice, table, DICE, marker="o")
    plot_axes(dice, "Validation", "iteration", "Dice")
    _dice_limits(dice)
    rate.plot(*points(table, "iteration", "learning_rate"), color=COLORS[0], linewidth=1.4)
    plot_axes(rate, "Learning rate", "iteration", "")
    for axes, text in ((losses, "no losses yet"), (dice, "no validation case, or none yet"), (rate, "")):
        _finish(axes, text)
    figure.tight_layout()
    return save(figure, Path(run_folder) / "curves.png")


def draw_runs(runs: Mapping[str, Path], path: Path) -> Path:
    """Draw validation Dice and supervised loss of several run folders over the time they took, as ``path``."""
    tables = {name: _table(folder) for name, folder in runs.items()}
    colors = colors_of(runs)
    figure = new_figure(9.6, 3.4)
    dice, losses = figure.subplots(1, 2)
    for name, table in tables.items():
        minutes = {**table, "minutes": [s / 60 for s in table.get("seconds", ())]}
        line = {"color": colors[name], "label": as_written(name)}
        dice.plot(*points(minutes, "minutes", "validation_dice"), "o-", markersize=4, **line)
        losses.plot(*points(minutes, "minutes", "loss_supervised"), linewidth=1.4, **line)
    plot_axes(dice, "Dice on the validation cases", "minutes of training", "Dice")
    plot_axes(losses, "Supervised loss (with pseudo-labels)", "minutes of training", "mean of the sub-models")
    _dice_limits(dice)
    _logarithmic(losses)
    _finish(dice, "no validation case")
    _finish(losses, "no losses yet")
    figure.tight_layout()
    return save(figure, path)


def _table(run: Path) -> Table:
    """The metrics of a run, with the supervised loss, which is a sum there, as the mean of the sub-models."""
    table, number = read_table(run / "metrics.csv"), sub_models(run)
    if "loss_supervised" in table:
        table["loss_supervised"] = [loss / number for loss in table["loss_supervised"]]
    return table


def _lines(axes: Axes, table: Table, columns: Mapping[str, str], marker: str = "") -> None:
    for (column, name), color in zip(columns.items(), COLORS):
        x, y = points(table, "iteration", column)
        if x and any(y):
            axes.plot(x, y, color=color, label=name, linewidth=1.4, marker=marker, markersize=3.5)


def _logarithmic(axes: Axes) -> None:
    values = _drawn(axes)
    if values and min(values) > 0:
        from matplotlib.ticker import LogLocator, StrMethodFormatter

        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.minorticks_off()


def _dice_limits(axes: Axes) -> None:
    axes.set_ylim(max(0.0, min(_drawn(axes), default=0.0) - 0.05), 1.0)


def _finish(axes: Axes, empty: str) -> None:
    if _drawn(axes):
        legend(axes)
    else:
        nothing_to_show(axes, empty)


def _drawn(axes: Axes) -> list[float]:
    """All values that the lines of a plot show."""
    return [float(v) for line in axes.get_lines() for v in np.asarray(line.get_ydata())]
