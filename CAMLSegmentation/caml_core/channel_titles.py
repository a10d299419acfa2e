"""What the images of a case are called (T1, FLAIR, ...), and whether names agree on their order.

Titles match by whole words, whatever their capitals and separators: "T1-CE" is in "p01_t1ce.nii.gz", "T1" is not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

#: How the sentence on a cohort begins.
NAMES_SAY = "By the names of their files"
#: A star or a plus belongs to the name: T2*, T1+.
_WORD = re.compile(r"[^\W_]+[*+]?")
#: T1w is T1.
_WEIGHTED = re.compile(r"(t[12]|pd)w")


def title_key(title: str) -> str:
    """What two spellings of a channel's title share; empty where nothing is said. T1- is not T1+."""
    key = "".join(_words(title))
    return f"{key}-" if key and title.rstrip().endswith("-") else key


def disagreement(ours: Sequence[str], theirs: Sequence[str]) -> Literal["", "order", "names"]:
    """Return how the titles of one cohort or model contradict those of another one.

    "order": both have a title, at different places. "names": two titles of one place differ, and that is all that is
    known. Empty where they agree; an empty title agrees with any.
    """
    our_keys, their_keys = (list(map(title_key, titles)) for titles in (ours, theirs))
    pairs = list(zip(our_keys, their_keys))
    if any(key and key != other and key in their_keys for key, other in pairs):
        return "order"
    return "names" if any(key and other and key != other for key, other in pairs) else ""


def listed_titles(titles: Sequence[str]) -> str:
    """Return titles for a sentence, in their order."""
    return ", ".join(title or "(no name)" for title in titles)


def joined(
    ours: Sequence[str], new: Sequence[str], source: object
) -> tuple[tuple[str, ...], Literal["", "order", "names"], str]:
    """Return the titles of a project that a list, ``source``, is added to, how they contradict each other, and that.

    ours: the project's, empty where nothing is known. What one leaves open the other may say.
    """
    fault = disagreement(new, ours)
    sentence = f"The channels of {source} are {listed_titles(new)} and those of this project {listed_titles(ours)}"
    if len(ours) not in (0, len(new)):
        return tuple(ours), fault, sentence
    return tuple(own or theirs for own, theirs in zip(ours or new, new)), fault, sentence


def list_note(source: object, listed: Sequence[str], titles: Sequence[str]) -> str:
    """Return a sentence where a list of cases, ``source``, calls its channels otherwise than a model; else empty."""
    fault = disagreement(listed, titles)
    contrast = f"The model's channels are {listed_titles(titles)} and those of {source} are {listed_titles(listed)}"
    if fault == "order":
        return f"{contrast}; check which is which, and list each at its own channel."
    return f"{contrast}; check that they show the same." if fault else ""


def order_warning(names: Sequence[str], titles: Sequence[str]) -> str:
    """Return a sentence where the images' ``names``, one a channel, say another order than ``titles``; else empty."""
    wrong = _misplaced(names, titles)
    if not wrong:
        return ""
    given = " and ".join(f"{names[i]} was given as {titles[i] or f'channel {i + 1}'}" for i in wrong)
    return (
        f"By their names the volumes are in another order than the model's channels, {listed_titles(titles)}: {given}; "
        "check which is which, and choose each for its own channel."
    )


def cohort_warning(names: Mapping[str, Sequence[str]], titles: Sequence[str]) -> str:
    """Return a sentence where the names of cases' images say another order than ``titles``; else empty.

    names: case -> what its images are called, one a channel.
    """
    wrong = {case: places for case, images in names.items() if (places := _misplaced(images, titles))}
    if not wrong:
        return ""
    case, (place, *_) = next(iter(wrong.items()))
    subject = f"case {case}" if len(wrong) == 1 else f"{len(wrong)} cases (the first is {case})"
    return (
        f"{NAMES_SAY} the images of {subject} are in another order than the channels, {listed_titles(titles)}: "
        f"{names[case][place]} is listed as {titles[place] or f'channel {place + 1}'}; check which is which, and list "
        "each at its own channel."
    )


def _misplaced(names: Sequence[str], titles: Sequence[str]) -> list[int]:
    """The places of ``names`` that have the title of another channel and not that of their own.

    What all of them have, be it the name of a study, does not tell them apart. Where the other channel's own image has
    the title, too, it is a part of both names: "T1" and "T1 POST".
    """
    found = [_titles_in(name, titles) for name in names]
    everywhere = set[int]().union(*found).intersection(*found)

    def is_taken(place: int, name: str) -> bool:
        return place < len(names) and place in found[place] and names[place] != name

    return [
        i
        for i, name in enumerate(names)
        if i not in found[i] and any(not is_taken(j, name) for j in found[i] - everywhere)
    ]


def _words(text: str) -> list[str]:
    words = _WORD.findall(text.casefold())
    return [found[1] if (found := _WEIGHTED.fullmatch(word)) else word for word in words]


def _titles_in(name: str, titles: Sequence[str]) -> set[int]:
    """The places of the titles that a name has as whole words, other than within a longer one of them."""
    words, keys = _words(name), list(map(title_key, titles))
    spans = []
    for first in range(len(words)):
        for last in range(first + 1, len(words) + 1):
            text = "".join(words[first:last])
            spans += [(first, last, place) for place, key in enumerate(keys) if key == text]
            if not any(key.startswith(text) for key in keys):
                break
    return {
        place
        for first, last, place in spans
        if not any(a <= first and last <= b and (a, b) != (first, last) for a, b, _ in spans)
    }
