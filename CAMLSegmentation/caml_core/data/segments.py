"""Classes across cases: matched by name, numbered 1, 2, ..."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..config import Segment, name_key
from ..errors import DataError


def plain_name(value: int) -> str:
    """The name of a class of which only the value in a label map is known."""
    return f"segment_{value}"


_PLAIN_NAMES = {plain_name(value): value for value in range(1, 256)}


def plain_value(name: str) -> int | None:
    """The value after which a class is called by ``plain_name``; None where it has a name of its own."""
    return _PLAIN_NAMES.get(name)


def match_segments(found: Mapping[str, Sequence[Segment]], declared: Sequence[Segment] = ()) -> tuple[Segment, ...]:
    """Return the classes that all labelled cases share, numbered 1, 2, ...; ``found`` goes by case id.

    Names are compared without case and outer spaces. A case may lack classes, but some case must have all of them:
    otherwise the same structure probably has two names, and DataError lists the cases. ``declared`` classes
    settle the question: then every name must be one of theirs.
    """
    lists = {case: tuple(segments) for case, segments in found.items()}
    if declared:
        _check_declared(lists, declared)
        return tuple(replace(s, label=i) for i, s in enumerate(declared, 1))
    if not any(lists.values()):
        raise DataError("No labelled case has a segment; label at least one structure.")
    unnamed = {case: s for case, s in lists.items() if all(x.name == plain_name(x.label) for x in s)}
    named = {case: s for case, s in lists.items() if case not in unnamed}
    if not named:
        values = {s.label: s for segments in unnamed.values() for s in segments}
        return tuple(replace(values[v], label=i) for i, v in enumerate(sorted(values), 1))
    common = max(named.values(), key=len)
    _check_names(named, common)
    common = tuple(replace(s, label=i) for i, s in enumerate(sorted(common, key=lambda s: s.label), 1))
    _check_unnamed(unnamed, named, common)
    return common


def conform(array: np.ndarray, found: Sequence[Segment], segments: Sequence[Segment], who: str) -> np.ndarray:
    """Return ``array``, labelled as its file's segments ``found``, with the labels of the same classes in ``segments``.

    A segment that the file does not name ("segment_3") falls back to its value, but never to a class that is called
    after another one. Raises DataError for a class that is none of ``segments``.
    """
    table = np.zeros(256, dtype=np.uint8)
    by_name = {name_key(s.name): s.label for s in segments}
    values = {s.label for s in segments if plain_value(s.name) is None}
    for segment in found:
        label = by_name.get(name_key(segment.name))
        if label is None and segment.name == plain_name(segment.label) and segment.label in values:
            label = segment.label
        if label is None:
            names = ", ".join(repr(s.name) for s in segments)
            raise DataError(f"{who} has the class {segment.name!r}, which is none of {names}; rename or remove it.")
        table[segment.label] = label
    identical = all(table[s.label] == s.label for s in found)
    return array if identical else table[array]


def named_as_references(
    found: Sequence[Segment], classes: Mapping[int, Segment], who: str, values: Collection[int] = ()
) -> tuple[Segment, ...]:
    """Return the segments of a plain prediction with the names of the references' declared ``classes``.

    ``classes``: value in the references -> class, in the order in which a model numbers them. A plain prediction has
    the references' values, or 1, 2, ... as ``caml predict`` writes them; ``values`` are those of all predictions that
    were made together, which may tell where one case does not. Raises DataError where it stays open.
    """
    by_model = dict(enumerate(classes.values(), 1))
    own = [s.label for s in found]
    ways: list[Mapping[int, Segment]] = []
    for known in (values, own):  # a folder of mixed origin is judged case by case
        ways = ways or [way for way in (classes, by_model) if all(v in way for v in {*known, *own})]
    if not ways:
        raise DataError(
            f"{who} has the label values {own}; expected those of the references ({_listed(classes)}) or of caml "
            f"predict ({_listed(by_model)})."
        )
    names = [[way[v].name for v in own] for way in ways]
    if names[0] != names[-1]:
        raise DataError(
            f"{who} has the label values {own}, which may be those of the references ({_listed(classes)}) or of caml "
            f"predict ({_listed(by_model)}); save the prediction as .seg.nrrd, which holds the names."
        )
    return tuple(replace(s, name=name) for s, name in zip(found, names[0]))


def taken_note(taken: Mapping[int, int]) -> tuple[str, ...]:
    """Say which values of predictions were taken for others of the references; nothing where all are the same."""
    if all(ours == theirs for ours, theirs in taken.items()):
        return ()
    ours, theirs = (", ".join(map(str, values)) for values in zip(*sorted(taken.items())))
    one = len(taken) == 1
    return (
        f"The value{'' if one else 's'} {ours} of the predictions {'was' if one else 'were'} taken for {theirs} of the "
        "references.",
    )


def _check_declared(lists: Mapping[str, tuple[Segment, ...]], declared: Sequence[Segment]) -> None:
    known = {name_key(s.name) for s in declared}
    values = {s.label for s in declared}
    for case, segments in lists.items():
        for segment in segments:
            by_value = segment.name == plain_name(segment.label) and segment.label in values
            if name_key(segment.name) not in known and not by_value:
                names = ", ".join(repr(s.name) for s in declared)
                raise DataError(
                    f"Case {case} has the class {segment.name!r}, which is none of the cohort's ({names}); "
                    "rename the segment or declare the class.",
                    case,
                )


def _check_names(named: Mapping[str, tuple[Segment, ...]], common: tuple[Segment, ...]) -> None:
    known = {name_key(s.name) for s in common}
    if all(name_key(s.name) in known for segments in named.values() for s in segments):
        return
    groups: dict[tuple[str, ...], list[str]] = {}
    for case, segments in named.items():
        groups.setdefault(tuple(sorted(s.name.strip() for s in segments)), []).append(case)
    listed = "; ".join(
        f"{', '.join(repr(n) for n in names) or 'none'} in {_some(cases)}" for names, cases in groups.items()
    )
    raise DataError(
        f"The segments' names differ between the cases: {listed}; give each structure one name in all cases, or list "
        'the classes under "segments" in a JSON cohort.',
        min(groups.values(), key=len)[0],
    )


def _check_unnamed(
    unnamed: Mapping[str, tuple[Segment, ...]],
    named: Mapping[str, tuple[Segment, ...]],
    common: tuple[Segment, ...],
) -> None:
    """A plain map among named ones is matched by value; that needs the named ones to agree on values."""
    if not unnamed:
        return
    label = {name_key(s.name): s.label for s in common}
    agree = all(label[name_key(s.name)] == s.label for segments in named.values() for s in segments)
    for case, segments in unnamed.items():
        if all(name_key(s.name) in label for s in segments):  # what was called after its value is so in all cases
            continue
        if any(s.label > len(common) for s in segments) or not agree:
            raise DataError(
                f"Case {case} has a label map without names, whose values {[s.label for s in segments]} cannot be "
                f"matched to the segments of other cases ({', '.join(repr(s.name) for s in common)}); "
                'save it as .seg.nrrd, or list the classes under "segments" in a JSON cohort.',
                case,
            )


def _listed(classes: Mapping[int, Segment]) -> str:
    return ", ".join(f"{value} {segment.name}" for value, segment in classes.items())


def _some(cases: list[str]) -> str:
    shown = ", ".join(cases[:5])
    return shown if len(cases) <= 5 else f"{shown} and {len(cases) - 5} more"
