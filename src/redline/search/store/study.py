"""One variant's Optuna study: the search's only state, shared by every worker on every machine."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from redline.search.mlflow_pages import run_page
from redline.search.policy.verdicts import Point
from redline.search.store.notes import in_words, study_note, trial_note, write_note
from redline.search.store.owner import Owner
from redline.stability import Outcome

# Where the dashboard looks for what a sampler's `constraints_func` gave: above 0 is infeasible.
CONSTRAINTS = "constraints"
# What a trial's value is, where `Study.set_metric_names` would put it (and warn that it is experimental).
_METRIC_NAMES = "study:metric_names"
_VALUE = "stable learning rate"


@dataclass(frozen=True)
class Claim:
    """A trial of ours that is running."""

    number: int
    trial_id: int
    point: Point


@dataclass(frozen=True)
class State:
    """A study's trials, by point. An interrupted or lost trial did not crash, and is not here."""

    outcomes: dict[Point, Outcome]
    running: dict[Point, FrozenTrial]
    crashes: Counter[Point]


class VariantStudy:
    """The trials of one variant. A point is claimed by creating a running trial for it."""

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        ladder: Sequence[float],
        facts: Mapping[str, Any],
        first_seed: int = 0,
    ) -> None:
        """Open the study ``name``, or begin it with ``facts`` as its user attributes."""
        self.storage = storage
        self.name = name
        self.first_seed = first_seed
        self.ladder = list(ladder)
        self.study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize", load_if_exists=True
        )
        if _METRIC_NAMES not in storage.get_study_system_attrs(self.study._study_id):
            storage.set_study_system_attr(self.study._study_id, _METRIC_NAMES, [_VALUE])
        known = self.study.user_attrs
        for key, value in facts.items():
            if key not in known:
                self.study.set_user_attr(key, value)
        self.facts = {**facts, **known}
        self._space = {
            "lr": FloatDistribution(ladder[0], ladder[-1], log=True),
            "seed": IntDistribution(first_seed, first_seed + 1000),
        }

    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def state(self) -> "State":
        """What the storage holds at this moment; of a point that was finished twice, the first counts."""
        state = State({}, {}, Counter())
        for trial in self.trials():
            point = self.point_of(trial)
            if trial.state == TrialState.COMPLETE:
                state.outcomes.setdefault(point, Outcome(**trial.user_attrs["outcome"]))
            elif trial.state == TrialState.RUNNING:
                state.running[point] = trial
            elif trial.user_attrs.get("failure") == "crash":
                state.crashes[point] += 1
        return state

    def cancelled_steps(self) -> int:
        """What runs cost that were ended because their answer no longer mattered."""
        ended = [
            trial.user_attrs for trial in self.trials() if trial.user_attrs.get("failure") == "cancelled"
        ]
        return sum(its.get("steps", 0) for its in ended)

    def claim(self, point: Point, owner: Owner) -> Claim | None:
        """Take a point, or None where somebody else was quicker.

        The running trial is created in one transaction with its owner; of two for the same point
        the lower number keeps it, which both see the same way. A creation that was tried again because its
        answer was lost may have left twins, which lose too.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study.add_trial(
                create_trial(
                    state=TrialState.RUNNING,
                    params={"lr": self.ladder[point.rung], "seed": self.first_seed + point.seed},
                    distributions=self._space,
                    user_attrs={"owner": owner.to_dict(), "beat": 0},
                )
            )
        rivals = [
            trial
            for trial in self.trials()
            if self.point_of(trial) == point and trial.state in (TrialState.RUNNING, TrialState.COMPLETE)
        ]
        mine, *twins = [trial for trial in rivals if trial.user_attrs["owner"] == owner.to_dict()]
        for twin in twins:
            self.fail(twin.number, "rival")
        claim = Claim(mine.number, mine._trial_id, point)
        if rivals[0].number == mine.number:
            return claim
        self.fail(claim.number, "rival")
        return None

    def beat(self, claim: Claim, beats: int) -> None:
        """Show that a claim's owner is alive."""
        self.note(claim, "beat", beats)

    def report(self, claim: Claim, step: int, loss: float) -> None:
        """An intermediate training loss, in nats."""
        with suppress(UpdateFinishedTrialError):
            self.storage.set_trial_intermediate_value(claim.trial_id, step, loss)

    def note(self, claim: Claim, key: str, value: Any) -> None:
        """A user attribute; nothing where the trial was taken from us meanwhile, which `finish` tells."""
        with suppress(UpdateFinishedTrialError):
            self.storage.set_trial_user_attr(claim.trial_id, key, value)

    def track(self, claim: Claim, run_id: str) -> None:
        """Name the tracker's run of a trial, with a link to it."""
        self.note(claim, "run_id", run_id)
        self._describe(claim.trial_id, claim.point, run_id)

    def finish(self, claim: Claim, outcome: Outcome, reason: str | None) -> bool:
        """Store an outcome. False where the trial was taken from us meanwhile (we were thought dead).

        A stable run's value is its LR; a diverged one's is 0, and it breaks a constraint, so that the
        dashboard's best trial, history and feasibility marks agree.
        """
        try:
            for key, value in (
                ("outcome", outcome.to_dict()),
                ("verdict", "diverged" if reason else "stable"),
                ("reason", reason),
                ("step", outcome.step),
            ):
                self.storage.set_trial_user_attr(claim.trial_id, key, value)
            self.storage.set_trial_system_attr(claim.trial_id, CONSTRAINTS, [1.0 if reason else -1.0])
            self._describe(claim.trial_id, claim.point, outcome.run_id, in_words(reason, outcome.step))
            self.study.tell(claim.number, 0.0 if reason else outcome.lr)
        except UpdateFinishedTrialError:
            return False
        except ValueError:
            if self.trials()[claim.number].state.is_finished():
                return False
            raise
        return True

    def fail(self, number: int, failure: str) -> None:
        """End a running trial without an outcome.

        ``failure``: ``crash``, ``interrupted``, ``cancelled``, ``lost`` or ``rival``.
        """
        trial = self.trials()[number]
        with suppress(UpdateFinishedTrialError):  # somebody else ended it: all we wanted
            self.storage.set_trial_user_attr(trial._trial_id, "failure", failure)
            self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def set_late_verdicts(self, verdicts: Mapping[int, str]) -> None:
        """Verdicts that rule 5 changed after their trial had finished; Optuna closes finished trials."""
        text = {str(number): reason for number, reason in verdicts.items()}
        known = self.study.user_attrs.get("late_verdicts", {})
        if known == text:
            return
        trials = self.trials()
        for number in verdicts.keys() - {int(number) for number in known}:
            trial, outcome = trials[number], Outcome(**trials[number].user_attrs["outcome"])
            verdict = in_words(verdicts[number], outcome.step, late=True)
            self._describe(trial._trial_id, self.point_of(trial), outcome.run_id, verdict)
        self.study.set_user_attr("late_verdicts", text)

    def link(self, run_ids: Mapping[str, str]) -> None:
        """Link the trials whose run MLflow did not have by their end.

        ``run_ids``: run's key -> MLflow's id.
        """
        late = self.study.user_attrs.get("late_verdicts", {})
        for trial in self.trials():
            if trial.state != TrialState.COMPLETE:
                continue
            outcome, turned = Outcome(**trial.user_attrs["outcome"]), late.get(str(trial.number))
            run_id = None if outcome.run_key is None else run_ids.get(outcome.run_key)
            if outcome.run_id is None and run_id is not None:
                reason = turned or trial.user_attrs["reason"]
                verdict = in_words(reason, outcome.step, late=turned is not None)
                self._describe(trial._trial_id, self.point_of(trial), run_id, verdict)

    def answer(self, entry: Mapping[str, Any]) -> None:
        """Store the variant's entry of `result.json`, and say it in the study's note."""
        self.study.set_user_attr("result", entry)
        trials, late = self.trials(), self.study.user_attrs.get("late_verdicts", {})
        turned = {int(number): (trials[int(number)].params["lr"], rule) for number, rule in late.items()}
        write_note(self.storage, self.study._study_id, None, study_note(entry, turned))

    def _describe(self, trial_id: int, point: Point, run_id: str | None, verdict: str | None = None) -> None:
        ui = self.facts.get("mlflow_ui")
        note = trial_note(
            self.facts.get("variant", self.name),
            self.ladder[point.rung],
            self.first_seed + point.seed,
            run_page(ui, run_id) if ui and run_id else None,
            verdict,
        )
        write_note(self.storage, self.study._study_id, trial_id, note)

    def point_of(self, trial: FrozenTrial) -> Point:
        return Point(self.ladder.index(trial.params["lr"]), trial.params["seed"] - self.first_seed)
