"""The loop of one machine: free slot, next point; a message, a verdict. It keeps nothing of its own.

Any number of these, on any machines, work on one search through its studies.
"""

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import open_dict
from optuna.trial import TrialState

from redline.errors import UserError
from redline.search.bisection import Plan, plan, runs_left
from redline.search.display import Display, RunView, View
from redline.search.owner import Owner, Silence, owner_of
from redline.search.pool import Ended, Pool, Slot
from redline.search.result import variant_result
from redline.search.study import Claim, VariantStudy
from redline.search.variant import Variant
from redline.search.verdicts import Point, Vote, reasons, rung_verdicts
from redline.stability import Outcome, SearchRule


@dataclass(frozen=True)
class Settings:
    """What holds for the whole search."""

    name: str
    directory: Path
    ladder: list[float]
    seeds: int
    vote: Vote
    retries: int
    beat_every: float  # seconds
    patience: float  # seconds of silence after which another machine's trial is lost
    trial_job: str  # `module:function` that trains a point
    threads: int | None
    precision: Mapping[str, str]  # of each variant


@dataclass
class Running:
    """A trial of ours, with what it last said."""

    variant: Variant
    claim: Claim
    label: str
    log: Path
    started: float
    beats: int = 0
    step: int = 0
    loss: float = float("nan")
    run_id: str | None = None
    reported: float = 0.0


_REPORT_EVERY = 5.0  # seconds between two intermediate values of a trial
_LOOK_EVERY = 2.0  # seconds between two looks at what other machines did


class Coordinator:
    """Runs the search until every variant is answered."""

    def __init__(
        self,
        settings: Settings,
        variants: Sequence[Variant],
        studies: Mapping[str, VariantStudy],
        rules: Mapping[str, Mapping[str, SearchRule]],
        pool: Pool,
        display: Display,
    ) -> None:
        self.settings = settings
        self.variants = {variant.name: variant for variant in variants}
        self.studies = studies
        self.rules = rules
        self.pool = pool
        self.display = display
        self.running: dict[int, Running] = {}  # by slot
        self.silence = Silence(settings.patience)
        self.killed_runs: list[str] = []
        self._step_rate: float | None = None  # steps a second of one slot

    def run(self) -> dict[str, Any]:
        """Search; gives every variant's entry of `result.json`.

        Raises UserError where a trial meets a mistake of the user's.
        """
        try:
            self._loop()
        finally:
            for slot in self.pool.slots:
                if not slot.free and slot.index in self.running:
                    self._abandon(slot)
        return {name: self._result(name) for name in self.variants}

    def late_verdicts(self) -> dict[str, str]:
        """Tracker run -> rule, for runs that ended stable and that the search found diverged."""
        late = {}
        for name in self.variants:
            outcomes, verdicts = self._outcomes(name)
            for point, reason in verdicts.items():
                run_id = outcomes[point].run_id
                if reason and not outcomes[point].diverged and run_id:
                    late[run_id] = reason
        return late

    def _loop(self) -> None:
        while True:
            self._fail_lost_trials()
            plans = {name: self._plan(name) for name in self.variants}
            for slot in self.pool.slots:
                if slot.free and self._start_next(slot, plans):
                    plans = {name: self._plan(name) for name in self.variants}
            if all(its.done for its in plans.values()) and not self.running:
                return
            looked = time.monotonic()
            changed = False
            while not changed and time.monotonic() - looked < _LOOK_EVERY:
                if not self.running:
                    time.sleep(_LOOK_EVERY)  # Others are at work on what is left.
                for slot, message in self.pool.poll(0.5):
                    changed |= self._hear(slot, message)
                self._beat()
                self.display.show(self._view())

    def _plan(self, name: str) -> Plan:
        _, verdicts = self._outcomes(name)
        settings = self.settings
        return plan(
            verdicts,
            self.studies[name].running(),
            rungs=len(settings.ladder),
            seeds=settings.seeds,
            vote=settings.vote,
            given_up=self._given_up(name),
        )

    def _outcomes(self, name: str) -> tuple[dict[Point, Outcome], dict[Point, str | None]]:
        outcomes = self.studies[name].outcomes()
        return outcomes, reasons(outcomes, self.rules[name])

    def _given_up(self, name: str) -> set[Point]:
        crashes = self.studies[name].crashes()
        return {point for point, count in crashes.items() if count > self.settings.retries}

    def _start_next(self, slot: Slot, plans: Mapping[str, Plan]) -> bool:
        """Give a free slot the point that is needed most: first of the variant fewest work on."""
        wanted: list[tuple[int, int, str, Point]] = []
        for name, its in plans.items():
            at_work = self.studies[name].running()
            for point in its.needed:
                if point not in at_work:
                    wanted.append((0, len(at_work), name, point))
            if its.spare is not None and its.spare not in at_work:
                wanted.append((1, len(at_work), name, its.spare))
        for _, _, name, point in sorted(wanted, key=lambda entry: entry[:2]):
            claim = self.studies[name].claim(point, Owner.here())
            if claim is not None:
                self._start(slot, self.variants[name], claim)
                return True
        return False

    def _start(self, slot: Slot, variant: Variant, claim: Claim) -> None:
        settings = self.settings
        cfg = copy.deepcopy(variant.cfg)
        with open_dict(cfg):
            cfg.lr = settings.ladder[claim.point.rung]
            cfg.seed = variant.cfg.seed + claim.point.seed
            cfg.trainer.precision = settings.precision[variant.name]
            cfg.trainer.keep_checkpoint = False
            if cfg.trainer.threads is None:
                cfg.trainer.threads = settings.threads
        place = settings.directory / "trials" / variant.name / f"lr={cfg.lr:g}-seed={cfg.seed}"
        payload = {
            "cfg": cfg,
            "directory": str(place),
            "experiment": settings.name,
            "tags": {
                "search": settings.name,
                "norm": variant.norm,
                "variant": variant.name,
                "trial": str(claim.number),
            },
        }
        label = f"{variant.name} lr={cfg.lr:g}" + (f" seed={cfg.seed}" if settings.seeds > 1 else "")
        run = Running(variant, claim, label, place / "trial.log", time.monotonic())
        self.running[slot.index] = run
        self.pool.start(slot, settings.trial_job, payload, run.log)

    def _hear(self, slot: Slot, message: dict[str, Any] | Ended) -> bool:
        """Take in a message; True where it may change the plan."""
        run = self.running[slot.index]
        study = self.studies[run.variant.name]
        if isinstance(message, dict):
            run.step, run.loss = message["step"], message["loss"]
            if run.run_id is None and message["run_id"] is not None:
                run.run_id = message["run_id"]
                study.note(run.claim, "run_id", run.run_id)
            now = time.monotonic()
            if now - run.reported >= _REPORT_EVERY:
                run.reported = now
                study.report(run.claim, run.step, run.loss)
            return False
        del self.running[slot.index]
        if message.user_error is not None:
            study.fail(run.claim.number, "interrupted")
            raise UserError(message.user_error)
        if message.crash is not None:
            study.fail(run.claim.number, "crash")
            if run.run_id is not None:
                self.killed_runs.append(run.run_id)
            tried = study.crashes()[run.claim.point]
            what = "tried again" if tried <= self.settings.retries else "given up"
            self.display.say(f"{run.label}: crashed ({message.crash}), {what}; its log is in {run.log}")
            return True
        assert message.result is not None
        self._finish(run, Outcome(**message.result))
        return True

    def _finish(self, run: Running, outcome: Outcome) -> None:
        name = run.variant.name
        study = self.studies[name]
        self._step_rate = max(1, outcome.optimizer_steps) / (time.monotonic() - run.started)
        before, _ = self._outcomes(name)
        verdicts = reasons({**before, run.claim.point: outcome}, self.rules[name])
        reason = verdicts[run.claim.point]
        if not study.finish(run.claim, outcome, reason):
            return
        numbers = {
            study.point_of(trial): trial.number
            for trial in study.trials()
            if trial.state == TrialState.COMPLETE and trial.user_attrs["verdict"] == "stable"
        }
        late = {numbers[point]: why for point, why in verdicts.items() if why and point in numbers}
        study.set_late_verdicts(late)
        loss = "" if outcome.val_loss is None else f", validation loss {outcome.val_loss:.3f}"
        verdict = f"diverged by {reason} at step {outcome.step}" if reason else "stable"
        self.display.say(f"{run.label}: {verdict}{loss}")

    def _abandon(self, slot: Slot) -> None:
        run = self.running.pop(slot.index)
        self.pool.stop(slot)
        self.studies[run.variant.name].fail(run.claim.number, "interrupted")
        if run.run_id is not None:
            self.killed_runs.append(run.run_id)

    def _fail_lost_trials(self) -> None:
        ours = {(run.variant.name, run.claim.number) for run in self.running.values()}
        for name, study in self.studies.items():
            for trial in study.running().values():
                if (name, trial.number) in ours:
                    continue
                owner = owner_of(trial.user_attrs)
                if owner.is_gone() or self.silence.too_long(owner.claim, trial.user_attrs["beat"]):
                    study.fail(trial.number, "lost")
                    if trial.user_attrs.get("run_id"):
                        self.killed_runs.append(trial.user_attrs["run_id"])

    def _beat(self) -> None:
        for run in self.running.values():
            due = int((time.monotonic() - run.started) / self.settings.beat_every)
            if due > run.beats:
                run.beats = due
                self.studies[run.variant.name].beat(run.claim, due)

    def _view(self) -> View:
        settings = self.settings
        running = [
            RunView(run.label, run.step, run.variant.cfg.trainer.max_steps, run.loss)
            for _, run in sorted(self.running.items())
        ]
        finished, steps_left = 0, -sum(run.step for run in running)
        for name, variant in self.variants.items():
            outcomes, verdicts = self._outcomes(name)
            finished += len(outcomes)
            known = rung_verdicts(verdicts, len(settings.ladder), settings.seeds, settings.vote)
            trials = runs_left(known, settings.seeds, settings.vote)
            steps_left += trials * variant.cfg.trainer.max_steps
        seconds_left = None
        if self._step_rate is not None:
            seconds_left = max(0, steps_left) / (self._step_rate * len(self.pool.slots))
        return View(running, finished, seconds_left)

    def _result(self, name: str) -> dict[str, Any]:
        outcomes, verdicts = self._outcomes(name)
        return variant_result(
            outcomes,
            verdicts,
            self.settings.ladder,
            seeds=self.settings.seeds,
            vote=self.settings.vote,
            max_steps=self.variants[name].cfg.trainer.max_steps,
            given_up=self._given_up(name),
        )
