"""The loop of one machine: free slot, next point; a message, a verdict. It keeps nothing of its own.

Any number of these, on any machines, work on one search through its studies.
"""

import copy
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import open_dict
from optuna.trial import TrialState

from redline.errors import OutageError, UserError
from redline.search.console.display import Display, RunView, View
from redline.search.policy.answer import variant_result
from redline.search.policy.state import Look, look, wanted
from redline.search.policy.verdicts import reasons
from redline.search.settings import Settings
from redline.search.store.owner import Owner, Silence, owner_of
from redline.search.store.patient_storage import PatientStorage
from redline.search.store.study import Claim, VariantStudy
from redline.search.variant import Variant
from redline.search.workers.interrupt import Interrupt
from redline.search.workers.pool import Ended, Pool, Slot
from redline.stability import Outcome, SearchRule


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
    forecast_step: int | None = None
    run_id: str | None = None
    reported: float = 0.0


_REPORT_EVERY = 5.0  # seconds between two intermediate values of a trial
_LOOK_EVERY = 2.0  # seconds between two looks at what other machines did
_FAREWELL = 2.0  # seconds that trials are given to end by themselves, all of them together


class Coordinator:
    """Runs the search until every variant is answered."""

    def __init__(
        self,
        settings: Settings,
        variants: Sequence[Variant],
        studies: Mapping[str, VariantStudy],
        storage: PatientStorage,
        rules: Mapping[str, Mapping[str, SearchRule]],
        pool: Pool,
        display: Display,
    ) -> None:
        self.settings = settings
        self.variants = {variant.name: variant for variant in variants}
        self.studies = studies
        self.storage = storage  # that the studies are in
        self.rules = rules
        self.pool = pool
        self.display = display
        self.interrupt = Interrupt()
        self.running: dict[int, Running] = {}  # by slot
        self.silence = Silence(settings.patience)
        self._unheard: list[tuple[Slot, dict[str, Any] | Ended]] = []
        self._step_rate: float | None = None  # steps a second of one slot

    def run(self) -> dict[str, Any]:
        """Search; gives every variant's entry of `result.json`.

        Raises UserError where a trial meets a mistake of the user's, OutageError where the storage has been
        gone for too long, KeyboardInterrupt for Ctrl-C.
        """
        self.storage.meanwhile = self._listen
        try:
            with self.interrupt:
                self._loop()
        finally:
            self.storage.meanwhile = None
            self.pool.hurry()
            until = time.monotonic() + _FAREWELL
            for slot in self.pool.slots:
                if slot.index in self.running:
                    self._abandon(slot, patience=max(0.0, until - time.monotonic()))
        return {name: self._result(name) for name, variant in self.variants.items() if not variant.is_scout}

    def late_verdicts(self) -> dict[str, str]:
        """Run's key -> rule, for tracked runs that ended stable and that the search found diverged."""
        late = {}
        for seen in self._look_at_all().values():
            for point, reason in seen.verdicts.items():
                outcome = seen.outcomes[point]
                if reason and not outcome.diverged and outcome.run_key:
                    late[outcome.run_key] = reason
        return late

    def link_runs(self, run_ids: Mapping[str, str]) -> None:
        """Run's key -> MLflow's id, which trials may have ended too soon to know."""
        for study in self.studies.values():
            study.link(run_ids)

    def _loop(self) -> None:
        while True:
            looks = self._look_at_all()
            if self._fail_lost_trials(looks):
                continue
            if self._cancel_moot(looks):
                continue
            for slot in self.pool.slots:
                if slot.index not in self.running:
                    name = self._start_next(slot, looks)
                    if name is not None:
                        looks[name] = self._look(name)
            # A run of somebody else's may still turn a verdict: rule 5 compares with it.
            if all(seen.answered and not seen.running for seen in looks.values()):
                return
            self._wait(looks)

    def _wait(self, looks: Mapping[str, Look]) -> None:
        """Listen to our trials until one ends, or until it is time to look at what others did."""
        until = time.monotonic() + _LOOK_EVERY
        ended = False
        while not ended and time.monotonic() < until:
            self._listen(0.5)
            while self._unheard:
                ended |= self._hear(*self._unheard.pop(0))
            if not self.running:
                time.sleep(0.5)  # nobody to listen to: others work on what is left
            self.interrupt.check()
            self._beat()
            self.display.show(self._view(looks))

    def _listen(self, seconds: float = 0.0) -> None:
        """Take what our trials say off their pipes: a full one would hold them up."""
        self.interrupt.check()
        while events := self.pool.poll(seconds):
            self._unheard += events
            seconds = 0.0

    def _look_at_all(self) -> dict[str, Look]:
        return {name: self._look(name) for name in self.variants}

    def _look(self, name: str) -> Look:
        state, variant = self.studies[name].state(), self.variants[name]
        scout = None if variant.scout is None else self._look(variant.scout)
        return look(
            self.settings.question(scouting=variant.is_scout),
            self.rules[name],
            state.outcomes,
            state.running,
            {point for point, count in state.crashes.items() if count > self.settings.retries},
            scout=scout,
            spares=sum(slot.free for slot in self.pool.slots),
        )

    def _start_next(self, slot: Slot, looks: Mapping[str, Look]) -> str | None:
        """Give a free slot the point that is needed most.

        Gives that variant's name, or None where nothing is left for the slot to do.
        """
        for name, point in wanted(looks):
            claim = self.studies[name].claim(point, Owner.here())
            if claim is not None:
                self._start(slot, self.variants[name], claim)
                return name
        return None

    def _start(self, slot: Slot, variant: Variant, claim: Claim) -> None:
        settings = self.settings
        cfg = copy.deepcopy(variant.cfg)
        with open_dict(cfg):
            cfg.lr = settings.ladder[claim.point.rung]
            cfg.seed = variant.cfg.seed + claim.point.seed
            cfg.trainer.precision = self.studies[variant.name].facts["precision"]
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
                **({"scout": "true"} if variant.is_scout else {}),
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
            run.forecast_step = message.get("forecast_step")
            self._note_run_id(run, message["run_id"])
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
            tried = study.state().crashes[run.claim.point]
            what = "tried again" if tried <= self.settings.retries else "given up"
            self.display.say(f"{run.label}: crashed ({message.crash}), {what}; its log is in {run.log}")
            return True
        assert message.result is not None
        outcome = Outcome(**message.result)
        self._note_run_id(run, outcome.run_id)
        self._finish(run, outcome)
        return True

    def _note_run_id(self, run: Running, run_id: str | None) -> None:
        """Known once the tracker's store has the run, which may be late or never."""
        if run.run_id is None and run_id is not None:
            run.run_id = run_id
            self.studies[run.variant.name].track(run.claim, run_id)

    def _finish(self, run: Running, outcome: Outcome) -> None:
        name = run.variant.name
        study = self.studies[name]
        self._step_rate = max(1, outcome.optimizer_steps) / (time.monotonic() - run.started)
        outcomes = {**study.state().outcomes, run.claim.point: outcome}
        verdicts = reasons(outcomes, self.rules[name])
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

    def _abandon(self, slot: Slot, why: str = "interrupted", patience: float = _FAREWELL) -> None:
        run = self.running.pop(slot.index)
        self.pool.stop(slot, patience)
        self._unheard = [(its, message) for its, message in self._unheard if its is not slot]
        # A storage that is gone learns it from others, as it would of a machine that is.
        with suppress(OutageError), self.storage.briefly():
            study = self.studies[run.variant.name]
            study.note(run.claim, "steps", run.step)
            study.fail(run.claim.number, why)

    def _fail_lost_trials(self, looks: Mapping[str, Look]) -> bool:
        """Fail the trials whose owners are gone; True where there were some."""
        ours = {(run.variant.name, run.claim.number) for run in self.running.values()}
        found = False
        for name, seen in looks.items():
            for trial in seen.running.values():
                if (name, trial.number) in ours:
                    continue
                owner = owner_of(trial.user_attrs)
                if owner.is_gone() or self.silence.too_long(owner.claim, trial.user_attrs["beat"]):
                    self.studies[name].fail(trial.number, "lost")
                    found = True
        return found

    def _cancel_moot(self, looks: Mapping[str, Look]) -> bool:
        """End our trials that can no longer change a verdict; True where there were some."""
        found = False
        for slot in self.pool.slots:
            run = self.running.get(slot.index)
            if run is not None and looks[run.variant.name].moot(run.claim.point):
                self._abandon(slot, "cancelled")
                self.display.say(f"{run.label}: cancelled, its answer can no longer change the verdict")
                found = True
        return found

    def _beat(self) -> None:
        for run in self.running.values():
            due = int((time.monotonic() - run.started) / self.settings.beat_every)
            if due > run.beats:
                run.beats = due
                self.studies[run.variant.name].beat(run.claim, due)

    def _view(self, looks: Mapping[str, Look]) -> View:
        running = [
            RunView(run.label, run.step, run.variant.cfg.trainer.max_steps, run.loss, run.forecast_step)
            for _, run in sorted(self.running.items())
        ]
        steps_left = -sum(run.step for run in running)
        for name, seen in looks.items():
            steps_left += seen.runs_left * self.variants[name].cfg.trainer.max_steps
        seconds_left = None
        if self._step_rate is not None:
            seconds_left = max(0, steps_left) / (self._step_rate * len(self.pool.slots))
        return View(running, sum(len(seen.outcomes) for seen in looks.values()), seconds_left)

    def _result(self, name: str) -> dict[str, Any]:
        variant, seen = self.variants[name], self._look(name)
        settings, names = self.settings, [name] if variant.scout is None else [name, variant.scout]
        scouts = {} if variant.scout is None else self._look(variant.scout).outcomes
        return variant_result(
            seen.outcomes,
            seen.verdicts,
            settings.ladder,
            seeds=settings.seeds,
            vote=settings.vote,
            max_steps=variant.cfg.trainer.max_steps,
            given_up=seen.given_up,
            scouts=scouts.values(),
            cancelled_steps=sum(self.studies[each].cancelled_steps() for each in names),
        )
