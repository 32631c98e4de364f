"""The loop of one machine: it gives each free slot the next run and handles messages. It keeps no state.

Any number of these, on any machines, work on one search through its studies.
"""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from redline.errors import OutageError, UserError
from redline.search.console.display import Display, RunView
from redline.search.options import Options
from redline.search.policy.answer import useful_edge, variant_result
from redline.search.policy.cut import prospect_of, shows_stable_edge
from redline.search.policy.ratio import edge_ratio
from redline.search.policy.state import SearchState, search_state, wanted
from redline.search.result import VariantResult
from redline.search.store.owner import Owner, Silence
from redline.search.store.patient_storage import PatientStorage
from redline.search.store.study import State, VariantStudy
from redline.search.trainable import Trial
from redline.search.variant import Variant
from redline.search.workers.interrupt import Interrupt, handled
from redline.search.workers.pool import Ended, Pool, Slot
from redline.search.workers.tasks import run_trial
from redline.stability import Cut, Outcome, Progress


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
    may_be_cut: bool = False
    reported: float = 0.0


_REPORT_EVERY = 5.0  # seconds between two intermediate values of a trial whose length is not known
_READ_EVERY = 2.0  # seconds between two readings of what other machines did
# An interval's upper end over its lower one, from which on other edges say more than its own runs.
_WIDE = 3.0
_GRACE_PERIOD = 2.0  # seconds in which a trial that is no longer needed may end by itself


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
        self._seen: dict[str, State] = {}  # what was read last, by variant
        self._latest: dict[str, SearchState] = {}  # what followed from it
        # The last states, hinted or not, with what they follow from.
        self._known: dict[tuple[str, bool], tuple[Any, SearchState]] = {}
        self._questions = {
            variant.name: options.question(tuple(studies[variant.name].ladder), short=variant.is_short)
            for variant in variants
        }

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
            until = time.monotonic() + self.options.grace_period
            for slot in self.pool.slots:
                if slot.index in self.running:
                    self._abandon(slot, grace_period=max(0.0, until - time.monotonic()))
        return self._results()

    def _loop(self) -> None:
        while True:
            states = self._states()
            if self._fail_lost_trials(states):
                continue
            if self._cancel_unneeded(states):
                continue
            for slot in self.pool.slots:
                if slot.index not in self.running:
                    self._start_next(slot, states)
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

    def _states(self) -> dict[str, SearchState]:
        """Every variant's state now.

        The edges of other variants, and that of a variant's own short runs, say where to begin, as long as
        its own runs say little.
        """
        for name, study in self.studies.items():
            self._seen[name] = study.state()
        alone = {name: self._state(name) for name in self.variants}
        edges = {name: edge for name, state in alone.items() if (edge := _known_edge(state)) is not None}
        states = {}
        for name, variant in self.variants.items():
            state, short = alone[name], variant.short_runs
            if state.width > _WIDE:
                alike = [its for its in self.variants.values() if its.is_short == variant.is_short]
                named = [its.name for its in alike if its is not variant] + ([short] if short else [])
                state = self._state(name, [edges[its] for its in named if its in edges])
            waits = short is not None and not alone[short].answered
            states[name] = replace(state, next=()) if waits else state
        self._latest = dict(states)
        return states

    def _state(self, name: str, hints: Sequence[float] = ()) -> SearchState:
        """What was read last, with what follows from it; that takes a while, and is kept while it holds."""
        seen, retries = self._seen[name], self.options.retries
        given_up = {point for point, count in seen.crashes.items() if count > retries}
        # Of a point there is one outcome, and another one only where its run was cut.
        ended = frozenset((point, its.cut is None) for point, its in seen.outcomes.items())
        asked = (ended, frozenset(seen.running), frozenset(given_up), tuple(hints))
        known = self._known.get((name, bool(hints)))
        if known is None or known[0] != asked:
            state = search_state(
                self._questions[name],
                seen.outcomes,
                seen.running,
                given_up,
                hints=hints,
                max_steps=self.studies[name].facts.max_steps,
                wanted=len(self.pool.slots),
            )
            self._known[name, bool(hints)] = known = asked, state
        return replace(known[1], running=seen.running)

    def _start_next(self, slot: Slot, states: dict[str, SearchState]) -> None:
        """Give a free slot the point that is needed most, and take it from what the states name."""
        for name, point in wanted(states):
            state, claim = states[name], self.studies[name].claim(point, Owner.here())
            rest = tuple(its for its in state.next if its != point)
            states[name] = replace(state, next=rest, running={**state.running, point: claim})
            if claim is not None:
                self._start(slot, self.variants[name], claim)
                return

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
        # A run that was cut before and is asked for again is run to its end.
        before = self._seen[variant.name].outcomes.get(study.point_of(claim))
        run.may_be_cut = before is None and not variant.is_short and self.options.cut > 0
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
            return self._cut_if_lost(slot)
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
        if not study.finish(run.claim, outcome):
            return
        kind = "validation loss" if "perplexity" in outcome.numbers else "score"
        loss = "" if outcome.val_loss is None else f", {kind} {outcome.val_loss:.3f}"
        verdict = f"diverged by {outcome.reason} at step {outcome.step}" if outcome.diverged else "stable"
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
        """End our trials of variants that are answered; True where there were some."""
        found = False
        for slot in self.pool.slots:
            run = self.running.get(slot.index)
            if run is not None and states[run.variant.name].answered:
                self._abandon(slot, "cancelled")
                self.display.say(f"{run.shown.label}: cancelled, {run.variant.name} is answered")
                found = True
        return found

    def _cut_if_lost(self, slot: Slot) -> bool:
        """End a trial of ours early where it will hardly be useful; True where it was ended."""
        run = self.running[slot.index]
        progress, name, value = run.shown.progress, run.variant.name, run.claim.params[self.options.key]
        ends_now = any(its is slot and isinstance(message, Ended) for its, message in self._unheard)
        if not run.may_be_cut or ends_now or shows_stable_edge(value, self._latest[name]):
            return False
        study, seen = self.studies[name], self._seen[name]
        ours = [its for its in self.running.values() if its.variant.name == name]
        running = {study.point_of(its.claim): its.shown.progress.windows for its in ours}
        expected = prospect_of(
            study.point_of(run.claim),
            {**seen.curves, **running},
            seen.outcomes,
            lost_share=self.options.lost_share,
            windows=len(study.window_ends),
        )
        if expected is None or expected.chance_useful >= self.options.cut:
            return False
        del self.running[slot.index]
        self.pool.stop(slot, _GRACE_PERIOD)
        self._unheard = [(its, message) for its, message in self._unheard if its is not slot]
        outcome = Outcome(
            value=value,
            seed=run.claim.params["seed"],
            reason=None,
            step=max(0, progress.step - 1),
            optimizer_steps=progress.step,
            val_loss=None,
            initial_loss=math.nan,
            train_loss=progress.loss,
            page=run.page,
            seconds=time.monotonic() - run.started,
            cut=Cut(expected.loss, expected.spread),
        )
        if study.finish(run.claim, outcome):
            self.display.say(
                f"{run.shown.label}: cut at step {progress.step}, useful with {expected.chance_useful:.1%}, "
                f"it would end at about {expected.loss:.3f}"
            )
        return True

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

    def _results(self) -> dict[str, VariantResult]:
        states, results = self._states(), {}
        unit = self.variants.get(self.options.reference)
        for name, variant in self.variants.items():
            if variant.is_short:
                continue
            names = [name] if variant.short_runs is None else [name, variant.short_runs]
            result = variant_result(
                states[name],
                self.studies[name].facts,
                short_runs=[its for short in names[1:] for its in states[short].outcomes.values()],
                cancelled_steps=sum(self.studies[each].cancelled_steps() for each in names),
            )
            if unit is not None and unit is not variant:
                ratio = edge_ratio(
                    states[name],
                    states[unit.name],
                    to=unit.name,
                    claim=self.options.claim,
                    paired=variant.first_seed == unit.first_seed,
                )
                result = replace(result, ratio=ratio)
            results[name] = result
        return results


def _known_edge(state: SearchState) -> float | None:
    """Near which another variant's edge may lie; None while little is known."""
    log_S = useful_edge(state).log_S
    if log_S is None or not (state.answered or state.width < _WIDE):
        return None
    return float(np.exp(np.median(log_S)))
