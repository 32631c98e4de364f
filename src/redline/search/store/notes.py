"""Notes in Markdown for Optuna's dashboard: what a trial was and where its curves are, what a study found.

They are kept where the dashboard looks for them, among the study's system attributes. Its own `save_note`
takes a whole study, loads it again for each note, and drops what people wrote.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import count, takewhile
from typing import Any

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from redline.search.result import VERSION, Interval, VariantResult, span

_PART = 2045  # characters of one attribute, as the dashboard cuts them
_YOURS = "\n\n---\n"  # what somebody wrote below this line is kept


def write_trial_note(
    storage: BaseStorage,
    study_id: int,
    trial: FrozenTrial,
    of: Mapping[str, Any],
    page: str | None,
    verdict: str | None = None,
) -> None:
    """``of``: the study's user attributes; ``page``: of the curves; ``verdict``: None while it runs."""
    key, variant = of["key"], _escaped(of["variant"])
    lines = [f"**{variant}**, {_escaped(key)} {trial.params[key]:g}, seed {trial.params['seed']}"]
    if verdict is not None:
        lines.append(verdict)
    if page is not None:
        lines.append(f"[The run's curves]({page})")
    write_note(storage, study_id, trial._trial_id, "\n\n".join(lines))


def in_words(reason: str | None, step: int, *, cut: bool = False) -> str:
    """A trial's verdict at its end. Whether it is lost is the curve's, and not said of a trial."""
    if cut:
        return f"**cut** at step {step}: it would have been lost"
    return "**stable** by itself" if reason is None else f"**diverged** by `{reason}` at step {step}"


def study_note(result: VariantResult, label: str) -> str:
    """What a variant's result says."""
    return " ".join(_answer(result, _escaped(label)))


def _answer(its: VariantResult, label: str) -> Iterator[str]:
    if its.version < VERSION:
        yield f"An old answer (version {its.version}), without points on a curve."
    yield from _edge(
        "useful", its.max_useful_lr, its.max_useful_lr_90, its.max_useful_rung, its.censored, label
    )
    yield from _edge(
        "stable", its.max_stable_lr, its.max_stable_lr_90, its.max_stable_rung, its.stable_censored, label
    )
    if its.open:
        yield f"Runs at {', '.join(f'{value:g}' for value in its.open)} crashed too often and were left open."
    if its.first_diverged_lr is not None:
        by = f", by `{its.first_diverged_reason}`" if its.first_diverged_reason else ""
        yield f"First diverged: {its.first_diverged_lr:g}{by}."
    if its.ratio is not None and its.ratio.useful is not None:
        interval = "" if its.ratio.useful_90 is None else f" ({span(its.ratio.useful_90)} with 90%)"
        yield f"Useful to {its.ratio.useful:.2f} times the {label} of {_escaped(its.ratio.to)}{interval}."
    if its.stopped is not None:
        yield f"The search ended by: {its.stopped}."


def _edge(
    kind: str,
    point: float | None,
    interval: Interval | None,
    rung: float | None,
    censored: str | None,
    label: str,
) -> Iterator[str]:
    if censored is not None:
        yield f"The largest {kind} {label} lies {censored} all that was tried."
        return
    words = [
        "" if point is None else f"**{point:.3g}**",
        "" if interval is None else f"{span(interval)} with 90%",
        "" if rung is None else f"on the ladder {rung:g}",
    ]
    if any(words):
        yield f"Largest {kind} {label}: {', '.join(filter(None, words))}."


def _escaped(name: str) -> str:
    """As text: a name may hold what Markdown takes for a link, a picture or a tag."""
    return re.sub(r"([\\`*_{}\[\]()<>#|~!$&])", r"\\\1", " ".join(name.split()))


def write_note(storage: BaseStorage, study_id: int, trial_id: int | None, ours: str) -> None:
    """Put ``ours`` on a trial, or on the study where ``trial_id`` is None, above what people wrote there."""
    prefix = "dashboard:" if trial_id is None else f"dashboard:{trial_id}:"
    attributes = storage.get_study_system_attrs(study_id)
    names = (f"{prefix}note_str:{index}" for index in count())
    before = [attributes[name] for name in takewhile(attributes.__contains__, names)]
    text = f"{ours}{_YOURS}{''.join(before).partition(_YOURS)[2]}"
    if text == "".join(before):
        return
    parts = [text[start : start + _PART] for start in range(0, len(text), _PART)]
    parts += [""] * (len(before) - len(parts))
    for index, part in enumerate(parts):
        storage.set_study_system_attr(study_id, f"{prefix}note_str:{index}", part)
    version = attributes.get(f"{prefix}note_ver", 0) + 1
    storage.set_study_system_attr(study_id, f"{prefix}note_ver", version)
