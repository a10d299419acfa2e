"""Events as a person likes to see them in a terminal: one moving bar, and a line for what should stay readable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TextIO

from ..events import Listener


class ProgressBar:
    """A listener that draws a bar with rate, time left, losses and the last validation Dice; tqdm draws it.

    Where ``stream`` is no terminal (a log file), the bar is written twice a minute instead of ten times a second.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: Any = None
        self._kind: tuple[str, int | None] | None = None
        self._title = ""
        self._dice = ""

    def __call__(self, kind: str, fields: dict[str, Any]) -> None:
        if kind == "step":
            self._advance(int(fields["iteration"]), fields.get("total"), "it", _losses(fields) + self._dice)
        elif kind == "progress":
            self._advance(fields["done"], fields.get("total"), str(fields.get("unit") or "it"), "")
        elif kind == "stage":
            if "case" in fields:
                return  # of one case among those that the bar counts
            self._begin_stage(str(fields.get("name", "")), str(fields.get("detail") or ""))
        elif kind == "validation":
            self._dice = f" Dice {_mean_dice(fields.get('dice'))}"
            self._say(f"iteration {fields.get('iteration')}: validation Dice {', '.join(_numbers(fields.get('dice')))}")
        elif line := _line(kind, fields):
            self._say(line)
        if kind in ("finished", "error"):
            self.close()

    def close(self) -> None:
        """Leave the bar as it stands and end its line."""
        if self._bar is not None:
            self._bar.close()
        self._bar, self._kind = None, None

    def _begin_stage(self, name: str, detail: str) -> None:
        self.close()
        self._title = name
        self._say(f"{name}: {detail}" if detail else name)

    def _advance(self, done: float, total: int | None, unit: str, postfix: str) -> None:
        if self._kind != (unit, total) or done < self._bar.n:
            self.close()
            self._bar = self._new_bar(done, total, unit)
            self._kind = (unit, total)
        self._bar.set_postfix_str(postfix.strip(), refresh=False)
        self._bar.update(done - self._bar.n)
        if float(done).is_integer():  # parts of cases must not leave "2.0/2" behind
            self._bar.n = int(done)
        if total is not None and done >= total:
            self._bar.refresh()

    def _new_bar(self, done: float, total: int | None, unit: str) -> Any:
        from tqdm import tqdm

        # A resumed training begins in the middle: what was done before must not count for the rate.
        begin = done - 1 if done > 1 else 0
        return tqdm(
            total=total,
            initial=begin,
            desc=self._title or None,
            unit=unit if len(unit) < 3 else f" {unit}",
            file=self._stream,
            mininterval=0.1 if self._stream.isatty() else 30.0,
            dynamic_ncols=True,
            ascii=True,
        )

    def _say(self, line: str) -> None:
        if self._bar is None:
            self._stream.write(line + "\n")
            self._stream.flush()
        else:
            self._bar.write(line, file=self._stream)


def warnings_only(stream: TextIO) -> Listener:
    """Return a listener that writes warnings to ``stream`` and nothing else; the command line itself tells errors."""

    def tell(kind: str, fields: dict[str, Any]) -> None:
        if kind == "warning":
            stream.write(f"{_line(kind, fields)}\n")

    return tell


def _line(kind: str, fields: dict[str, Any]) -> str:
    if kind == "warning":
        return f"warning: {fields.get('message')}"
    if kind == "log":
        return str(fields.get("message"))
    if kind == "case":
        return _case(fields)
    return ""


def _case(fields: dict[str, Any]) -> str:
    parts = [f"{name} {value:.2f} mL" for name, value in (fields.get("volumes_ml") or {}).items()]
    parts += [f"{value:.2f} mL of {name} left out" for name, value in (fields.get("removed_ml") or {}).items()]
    agreement = fields.get("agreement") or {}
    parts += [f"agreement on {name} {value:.3f}" for name, value in agreement.items() if value is not None]
    if fields.get("output"):
        parts.append(f"-> {fields['output']}")
    return f"{fields.get('case')}: {', '.join(parts)}".rstrip(": ")


def _losses(fields: dict[str, Any]) -> str:
    losses = fields.get("losses") or {}
    return " ".join(f"{name} {value:.3g}" for name, value in losses.items() if isinstance(value, (int, float)))


def _mean_dice(dice: Any) -> str:
    return next(iter(_numbers(dice)), "?").split(" ")[-1]


def _numbers(value: Any, name: str = "") -> Iterator[str]:
    """All figures of nested objects in their order, each after the names that lead to it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name} {key}".strip())
    elif isinstance(value, (int, float)):
        yield f"{name} {value:.3f}".strip()
