"""The loop of one machine: it gives each free slot the next run and handles messages. It keeps no state.

Any number of these, on any machines, work on one search through its studies.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from redline.errors import OutageError, UserError
from redline.search.console.display import Display, RunView
from redline.search.options import Options
from redline.search.policy.answer import variant_result
from redline.search.policy.state import SearchState, search_state, wanted
from redline.search.policy.verdicts import reasons
from redline.search.result import VariantResult
from redline.search.store.owner import Owner, Silence
from redline.search.store.patient_storage import PatientStorage
from redline.search.store.study import VariantStudy
from redline.search.trainable import Trial
from redline.search.variant import Variant
from redline.search.workers.interrupt import Interrupt, handled
from redline.search.workers.pool import Ended, Pool, Slot
from redline.search.workers.tasks import run_trial
from redline.stability import Outcome, Progress


@dataclass
class Running:
    """A trial of ours, with its last message."""

    variant: Variant
    claim: FrozenTrial
    shown: RunView
    log: Path
    started: float
    heartbeats: int = 0
    page: str | None = None
    windows: int = 0  # that are stored
    reported: float = 0.0


_REPORT_EVERY = 5.0  # seconds between two intermediate values of a trial whose length is not known
_READ_EVERY = 2.0  # seconds between two readings of what other machines did
_GRACE_PERIOD = 2.0  # seconds in which trials may end by themselves, all of them together


class Coordinator:
    """Runs the search until every variant is answered."""

    def __init__(
        self,
        name: str,
        directory: Path,
        options: Options,
        variants: Sequence[Variant],
        studies: Mapping[str, VariantStudy],
        storage: PatientStorage,
        pool: Pool,
        threads: int | None,
        display: Display,
    ) -> None:
        """``storage``: that the studies are in. ``threads``: CPU threads that a trial may use."""
        self.name, self.directory, self.options, self.threads = name, directory, options, threads
        self.variants = {variant.name: variant for variant in variants}
        self.studies = studies
        self.storage = storage
        self.pool = pool
        self.display = display
        self.interrupt = Interrupt()
        self.running: dict[int, Running] = {}  # by slot
        self.silence = Silence(options.heartbeat_timeout)
        self._unheard: list[tuple[Slot, Any]] = []
        self._step_rate: float | None = None  # steps a second of one slot

    def run(self) -> dict[str, VariantResult]:
        """Search; gives every variant's result.

        Raises UserError where a trial finds a user's mistake, OutageError where the storage did not answer
        for too long, KeyboardInterrupt for Ctrl-C.
        """
        self.storage.meanwhile = self._listen
        try:
            with handled(self.interrupt.note):
                self._loop()
        finally:
            self.storage.meanwhile = None
            self.pool.hurry()
            until = time.monotonic() + _GRACE_PERIOD
            for slot in self.pool.slots:
                if slot.index in self.running:
                    self._abandon(slot, grace_period=max(0.0, until - time.monotonic()))
        return {name: self._result(name) for name, variant in self.variants.items() if not variant.is_short}

    def _loop(self) -> None:
        while True:
            states = {name: self._state(name) for name in self.variants}
            if self._fail_lost_trials(states):
                continue
            if self._cancel_unneeded(states):
                continue
            for slot in self.pool.slots:
                if slot.index not in self.running:
                    name = self._start_next(slot, states)
                    if name is not None:
                        states[name] = self._state(name)
            # A run of another machine may still change a verdict: a rule may compare with it.
            if all(state.answered and not state.running for state in states.values()):
                return
            self._wait(states)

    def _wait(self, states: Mapping[str, SearchState]) -> None:
        """Listen to our trials until one ends, or until it is time to read what others did."""
        until = time.monotonic() + _READ_EVERY
        ended = False
        while not ended and time.monotonic() < until:
            self._listen(0.5)
            while self._unheard:
                ended |= self._hear(*self._unheard.pop(0))
            if not self.running:
                time.sleep(0.5)  # no trials here: other machines work on what is left
            self.interrupt.check()
            self._give_heartbeats()
            self._show(states)

    def _listen(self, seconds: float = 0.0) -> None:
        """Read our trials' messages: a trial would wait at a full pipe."""
        self.interrupt.check()
        while events := self.pool.poll(seconds):
            self._unheard += events
            seconds = 0.0

    def _state(self, name: str) -> SearchState:
        study, variant = self.studies[name], self.variants[name]
        seen = study.state()
        return search_state(
            self.options.question(tuple(study.ladder), short=variant.is_short),
            study.rules,
            seen.outcomes,
            seen.running,
            {point for point, count in seen.crashes.items() if count > self.options.retries},
            short_runs=None if variant.short_runs is None else self._state(variant.short_runs),
            speculative=sum(slot.free for slot in self.pool.slots),
        )

    def _start_next(self, slot: Slot, states: Mapping[str, SearchState]) -> str | None:
        """Give a free slot the point that is needed most.

        Gives that variant's name, or None where nothing is left for the slot to do.
        """
        for name, point in wanted(states):
            claim = self.studies[name].claim(point, Owner.here())
            if claim is not None:
                self._start(slot, self.variants[name], claim)
                return name
        return None

    def _start(self, slot: Slot, variant: Variant, claim: FrozenTrial) -> None:
        study = self.studies[variant.name]
        value, seed = claim.params[study.key], claim.params["seed"]
        place = self.directory / "trials" / variant.name / f"{study.key}={value:g}-seed={seed}"
        tags = {"search": self.name, "variant": variant.name, "trial": str(claim.number), **variant.tags}
        tags["searched"] = f"{study.key}={value:g}"
        if variant.is_short:
            tags["short_run"] = "true"
        trial = Trial(value, seed, place, study.facts, self.threads, self.name, tags)
        label = f"{variant.name} {study.key}={value:g}" + (f" seed={seed}" if self.options.seeds > 1 else "")
        shown = RunView(label, study.facts.max_steps)
        run = Running(variant, claim, shown, place / "trial.log", time.monotonic())
        self.running[slot.index] = run
        self.pool.start(slot, run_trial, (variant.trainable, trial, variant.rules), run.log)

    def _hear(self, slot: Slot, message: Progress | Ended) -> bool:
        """Handle a message; True where it may change the plan."""
        run = self.running[slot.index]
        study = self.studies[run.variant.name]
        if isinstance(message, Progress):
            run.shown.progress = message
            if message.page is not None and message.page != run.page:
                run.page = message.page
                study.link(run.claim, message.page)
            self._report(run, message)
            return False
        del self.running[slot.index]
        if message.user_error is not None:
            study.fail(run.claim._trial_id, "interrupted")
            raise UserError(message.user_error)
        if message.crash is not None:
            study.fail(run.claim._trial_id, "crash")
            tried = study.state().crashes[study.point_of(run.claim)]
            what = "tried again" if tried <= self.options.retries else "given up"
            self.display.say(f"{run.shown.label}: crashed ({message.crash}), {what}; its log is in {run.log}")
            return True
        self._finish(run, message.result)
        return True

    def _report(self, run: Running, progress: Progress) -> None:
        """Store the windows that are new; where there are none, a loss now and then."""
        study, now = self.studies[run.variant.name], time.monotonic()
        if study.window_ends:
            means = progress.windows[run.windows :]
            for step, mean in zip(study.window_ends[run.windows :], means, strict=False):
                study.report(run.claim, step, mean)
            run.windows += len(means)
        elif now - run.reported >= _REPORT_EVERY:
            run.reported = now
            study.report(run.claim, progress.step, progress.loss)

    def _finish(self, run: Running, outcome: Outcome) -> None:
        study = self.studies[run.variant.name]
        self._step_rate = max(1, outcome.optimizer_steps) / (time.monotonic() - run.started)
        point = study.point_of(run.claim)
        reason = reasons({**study.state().outcomes, point: outcome}, study.rules)[point]
        if not study.finish(run.claim, outcome, reason):
            return
        kind = "validation loss" if "perplexity" in outcome.numbers else "score"
        loss = "" if outcome.val_loss is None else f", {kind} {outcome.val_loss:.3f}"
        verdict = f"diverged by {reason} at step {outcome.step}" if reason else "stable"
        self.display.say(f"{run.shown.label}: {verdict}{loss}")

    def _abandon(self, slot: Slot, why: str = "interrupted", grace_period: float = _GRACE_PERIOD) -> None:
        run = self.running.pop(slot.index)
        self.pool.stop(slot, grace_period)
        self._unheard = [(its, message) for its, message in self._unheard if its is not slot]
        # If the storage is down, another coordinator times this trial out.
        with suppress(OutageError), self.storage.briefly():
            study = self.studies[run.variant.name]
            study.note(run.claim, "steps", run.shown.progress.step)
            study.fail(run.claim._trial_id, why)

    def _fail_lost_trials(self, states: Mapping[str, SearchState]) -> bool:
        """Fail the trials whose owners are gone; True where there were some."""
        ours = {run.claim._trial_id for run in self.running.values()}
        found = False
        for name, state in states.items():
            for trial in state.running.values():
                if trial._trial_id in ours:
                    continue
                owner = Owner(**trial.user_attrs["owner"])
                if owner.is_gone() or self.silence.too_long(owner.claim, trial.user_attrs["heartbeat"]):
                    self.studies[name].fail(trial._trial_id, "lost")
                    found = True
        return found

    def _cancel_unneeded(self, states: Mapping[str, SearchState]) -> bool:
        """End our trials that can no longer change a verdict; True where there were some."""
        found = False
        for slot in self.pool.slots:
            run = self.running.get(slot.index)
            if run is None:
                continue
            name = run.variant.name
            if states[name].unneeded(self.studies[name].point_of(run.claim)):
                self._abandon(slot, "cancelled")
                self.display.say(f"{run.shown.label}: cancelled, its answer can no longer change the verdict")
                found = True
        return found

    def _give_heartbeats(self) -> None:
        for run in self.running.values():
            due = int((time.monotonic() - run.started) / self.options.heartbeat_every)
            if due > run.heartbeats:
                run.heartbeats = due
                self.studies[run.variant.name].note(run.claim, "heartbeat", due)

    def _show(self, states: Mapping[str, SearchState]) -> None:
        lengths = {name: study.facts.max_steps for name, study in self.studies.items()}
        running = [self.running[slot].shown for slot in sorted(self.running)]
        seconds_left = None
        if self._step_rate is not None and None not in lengths.values():
            steps_left = sum(state.runs_left * (lengths[name] or 0) for name, state in states.items())
            steps_left -= sum(run.progress.step for run in running)
            seconds_left = max(0, steps_left) / (self._step_rate * len(self.pool.slots))
        self.display.show(running, sum(len(state.outcomes) for state in states.values()), seconds_left)

    def _result(self, name: str) -> VariantResult:
        short = self.variants[name].short_runs
        names = [name] if short is None else [name, short]
        return variant_result(
            self._state(name),
            self.studies[name].facts,
            short_runs=() if short is None else self._state(short).outcomes.values(),
            cancelled_steps=sum(self.studies[each].cancelled_steps() for each in names),
        )
