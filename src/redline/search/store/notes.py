"""Notes in Markdown for Optuna's dashboard: what a trial was and where its curves are, what a study found.

They are kept where the dashboard looks for them, among the study's system attributes: those stay open when a
trial is finished, so that a verdict which changes later changes the note too.
"""

from collections.abc import Iterator, Mapping
from itertools import count, takewhile
from typing import Any

from optuna.storages import BaseStorage

_PART = 2045  # characters of one attribute, as the dashboard cuts them
_YOURS = "\n\n---\n"  # what somebody wrote below this line is kept


def trial_note(
    variant: str,
    lr: float,
    seed: int,
    run_url: str | None,
    verdict: str | None = None,
) -> str:
    """``run_url``: the trial's run in MLflow's UI; ``verdict``: in words, None while the trial runs."""
    lines = [f"**{variant}**, lr {lr:g}, seed {seed}"]
    if verdict is not None:
        lines.append(verdict)
    if run_url is not None:
        lines.append(f"[The run's curves in MLflow]({run_url})")
    return "\n\n".join(lines)


def in_words(reason: str | None, step: int, *, late: bool = False) -> str:
    """A trial's verdict; ``late``: it ended stable, and a smaller learning rate turned it afterwards."""
    if reason is None:
        return "**stable**"
    if late:
        return f"**diverged** by `{reason}`: it ended stable, and a smaller learning rate did better"
    return f"**diverged** by `{reason}` at step {step}"


def study_note(entry: Mapping[str, Any], late: Mapping[int, tuple[float, str]]) -> str:
    """What a variant's entry of `result.json` says, and the trials (number -> LR, rule) turned late."""
    lines = [" ".join(_answer(entry))]
    if late:
        turned = ", ".join(f"trial {number} (lr {lr:g}, `{rule}`)" for number, (lr, rule) in late.items())
        lines.append(
            f"Ended stable, and turned by a smaller learning rate that did better: {turned}. "
            "Optuna closes a trial when it ends: `make dashboard` shows these as diverged, others as stable."
        )
    return "\n\n".join(lines)


def _answer(entry: Mapping[str, Any]) -> Iterator[str]:
    if entry["max_stable_lr"] is not None:
        yield f"Largest stable learning rate: **{entry['max_stable_lr']:g}**."
    elif entry["censored"] == "above":
        yield "Every rung of the ladder is stable: it ends too low for an answer."
    elif entry["censored"] == "below":
        yield "The lowest rung diverged: the ladder begins too high for an answer."
    else:
        yield f"No answer: runs at {', '.join(f'{lr:g}' for lr in entry['open'])} crashed too often."
    if entry["first_diverged_lr"] is not None:
        by = f", by `{entry['first_diverged_reason']}`" if entry["first_diverged_reason"] else ""
        yield f"First diverged: {entry['first_diverged_lr']:g}{by}."
    if entry["stable_above"]:
        yield f"Stable again above it: {', '.join(f'{lr:g}' for lr in entry['stable_above'])}."


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
