"""One variant's Optuna study: the search's only state, shared by every worker on every machine."""

import warnings
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import optuna
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from redline.search.policy import ladder
from redline.search.policy.points import Point
from redline.search.result import VariantResult
from redline.search.store.notes import in_words, study_note, write_note, write_trial_note
from redline.search.store.owner import Owner
from redline.search.trainable import Facts
from redline.stability import Outcome, window_ends

# Where the dashboard looks for what a sampler's `constraints_func` gave: above 0 is infeasible.
CONSTRAINTS = "constraints"
# What a trial's value is, where `Study.set_metric_names` would put it (and warn that it is experimental).
_METRIC_NAMES = "study:metric_names"


@dataclass(frozen=True)
class State:
    """A study's trials, by point. An interrupted or lost trial did not crash, and is not here.

    ``curves``: the mean training loss of each window so far (see `stability.Windows`), of a point's latest
    trial that runs or has an outcome. Where the length of runs is not known, there are none.
    """

    outcomes: dict[Point, Outcome] = field(default_factory=dict)
    running: dict[Point, FrozenTrial] = field(default_factory=dict)
    crashes: Counter[Point] = field(default_factory=Counter)
    curves: dict[Point, tuple[float, ...]] = field(default_factory=dict)


def count_outcome(outcomes: dict[Point, Outcome], point: Point, outcome: Outcome) -> None:
    """Of a point's outcomes the first counts, but one of a run that was cut only where there is no other."""
    known = outcomes.get(point)
    if known is None or (known.cut is not None and outcome.cut is None):
        outcomes[point] = outcome


class VariantStudy:
    """The trials of one variant. A point is claimed by creating a running trial for it."""

    def __init__(
        self, storage: BaseStorage, name: str, attributes: Mapping[str, Any], first_seed: int = 0
    ) -> None:
        """Open the study ``name``; one that is new or incomplete gets these user attributes.

        They are those of `searches.open_studies`, which keeps others out meanwhile.
        """
        self.storage = storage
        self.name = name
        self.first_seed = first_seed
        self.study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize", load_if_exists=True
        )
        if _METRIC_NAMES not in storage.get_study_system_attrs(self.study._study_id):
            named = [f"stable {attributes['label']}"]
            storage.set_study_system_attr(self.study._study_id, _METRIC_NAMES, named)
        known = self.study.user_attrs
        for name, value in attributes.items():
            if name not in known:
                self.study.set_user_attr(name, value)
        self.attributes = {**attributes, **known}
        self.ladder: list[float] = list(self.attributes["ladder"])
        # How far a search may extend it, each may decide for itself.
        self.values = ladder.extended(self.ladder)
        self.key: str = self.attributes["key"]
        self.facts = Facts(**self.attributes["facts"])
        self.window_ends = window_ends(self.facts.max_steps)
        self._space = {
            self.key: FloatDistribution(min(self.values.values()), max(self.values.values()), log=True),
            "seed": IntDistribution(first_seed, first_seed + 1000),
        }

    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def state(self) -> State:
        """What the storage holds at this moment. A point that runs again after a cut is in both mappings."""
        state = State()
        for trial in self.trials():
            point = self.point_of(trial)
            if trial.state == TrialState.COMPLETE:
                count_outcome(state.outcomes, point, Outcome.from_dict(trial.user_attrs["outcome"]))
            elif trial.state == TrialState.RUNNING:
                state.running[point] = trial
            elif trial.user_attrs.get("failure") == "crash":
                state.crashes[point] += 1
            means = dict(sorted(trial.intermediate_values.items()))
            are_windows = self.window_ends and tuple(means) == self.window_ends[: len(means)]
            if trial.state != TrialState.FAIL and are_windows:
                state.curves[point] = tuple(means.values())
        return state

    def cancelled_steps(self) -> int:
        """The steps of runs that were cancelled."""
        attributes = [trial.user_attrs for trial in self.trials()]
        return sum(its.get("steps", 0) for its in attributes if its.get("failure") == "cancelled")

    def claim(self, point: Point, owner: Owner) -> FrozenTrial | None:
        """Take a point, and give its running trial; None where another coordinator has taken it.

        A point whose run was cut can be taken again, to run to its end.

        The running trial is created in one transaction with its owner; of two for the same point
        the lower number keeps it, which both see the same way. A creation that was tried again because its
        answer was lost may have left copies, which lose too.
        """
        ours = asdict(owner)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study.add_trial(
                create_trial(
                    state=TrialState.RUNNING,
                    params={self.key: self.values[point.rung], "seed": self.first_seed + point.seed},
                    distributions=self._space,
                    user_attrs={"owner": ours, "heartbeat": 0},
                )
            )
        same = [trial for trial in self.trials() if self.point_of(trial) == point and _holds_point(trial)]
        mine, *copies = [trial for trial in same if trial.user_attrs["owner"] == ours]
        for copy in copies:
            self.fail(copy._trial_id, "duplicate")
        if same[0].number == mine.number:
            return mine
        self.fail(mine._trial_id, "duplicate")
        return None

    def report(self, claim: FrozenTrial, step: int, loss: float) -> None:
        """An intermediate training loss, in nats."""
        with suppress(UpdateFinishedTrialError):
            self.storage.set_trial_intermediate_value(claim._trial_id, step, loss)

    def note(self, claim: FrozenTrial, key: str, value: Any) -> None:
        """A user attribute; nothing where the trial was taken from us meanwhile, which `finish` tells."""
        with suppress(UpdateFinishedTrialError):
            self.storage.set_trial_user_attr(claim._trial_id, key, value)

    def link(self, claim: FrozenTrial, page: str) -> None:
        """Link a running trial to the page with its curves."""
        self.note(claim, "page", page)
        write_trial_note(self.storage, self.study._study_id, claim, self.attributes, page)

    def finish(self, claim: FrozenTrial, outcome: Outcome) -> bool:
        """Store an outcome. False where the trial was taken from us meanwhile (we were thought dead).

        A stable run's value is what was searched. That of a diverged or a cut one is 0, and it breaks a
        constraint, so that the dashboard's best trial, history and feasibility marks agree.
        """
        reason, cut = outcome.reason, outcome.cut is not None
        stable = reason is None and not cut
        try:
            for key, value in (
                ("outcome", asdict(outcome)),
                ("verdict", "stable" if stable else "cut" if cut else "diverged"),
                ("reason", reason),
                ("step", outcome.step),
                ("page", outcome.page),
            ):
                self.storage.set_trial_user_attr(claim._trial_id, key, value)
            self.storage.set_trial_system_attr(claim._trial_id, CONSTRAINTS, [-1.0 if stable else 1.0])
            verdict = in_words(reason, outcome.step, cut=cut)
            write_trial_note(
                self.storage, self.study._study_id, claim, self.attributes, outcome.page, verdict
            )
            searched = outcome.value if stable else 0.0
            self.storage.set_trial_state_values(claim._trial_id, TrialState.COMPLETE, [searched])
        except UpdateFinishedTrialError:
            return False
        return True

    def fail(self, trial_id: int, failure: str) -> None:
        """End a running trial without an outcome.

        ``failure``: ``crash``, ``interrupted``, ``cancelled``, ``lost`` or ``duplicate``.
        """
        with suppress(UpdateFinishedTrialError):  # another coordinator ended it
            self.storage.set_trial_user_attr(trial_id, "failure", failure)
            self.storage.set_trial_state_values(trial_id, TrialState.FAIL)

    def answer(self, result: VariantResult) -> None:
        """Store the variant's result, and say it in the study's note."""
        self.study.set_user_attr("result", asdict(result))
        write_note(self.storage, self.study._study_id, None, study_note(result, self.attributes["label"]))

    def point_of(self, trial: FrozenTrial) -> Point:
        rung = ladder.rung_of(trial.params[self.key], self.values)
        return Point(rung, trial.params["seed"] - self.first_seed)


def _holds_point(trial: FrozenTrial) -> bool:
    """True where no other trial of the same point may begin."""
    ended = trial.state == TrialState.COMPLETE and trial.user_attrs.get("verdict") != "cut"
    return ended or trial.state == TrialState.RUNNING
