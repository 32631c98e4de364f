"""How much of its workers' time a finished search did not train or evaluate in: run `make run` first.

Reads the newest finished search of the storage. A worker's time runs from the first run's start to the last
one's end, whether it had something to do or not.
"""

import argparse
from statistics import fmean

import optuna
from optuna.trial import TrialState

from _harness import ROOT, at_most, finish, percent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", default=f"sqlite:///{ROOT / 'mlruns' / 'optuna.db'}")
    parser.add_argument("--workers", type=int, default=2, help="that the search had")
    arguments = parser.parse_args()
    summaries = optuna.get_all_study_summaries(arguments.storage)
    names = [its.user_attrs["search"] for its in summaries if its.user_attrs.get("finished")]
    if not names:
        raise SystemExit(f"{arguments.storage}: no finished search; make run makes one")
    trials = [
        trial
        for its in summaries
        if its.user_attrs.get("search") == names[-1]
        for trial in optuna.load_study(study_name=its.study_name, storage=arguments.storage).trials
    ]
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    useful = [trial.user_attrs["outcome"]["seconds"] for trial in finished]
    whole = [trial.duration.total_seconds() for trial in finished if trial.duration is not None]
    span = max(t.datetime_complete for t in finished) - min(t.datetime_start for t in trials)  # type: ignore[type-var, operator]
    lost_in_runs = 1 - sum(useful) / sum(whole)
    lost = 1 - sum(useful) / (arguments.workers * span.total_seconds())
    print(
        f"{names[-1]}: {len(finished)} runs of {fmean(whole):.1f} s, of which {fmean(useful):.1f} s trained "
        f"and evaluated; {percent(lost_in_runs)} of a run, {percent(lost)} of the workers' time did neither"
    )
    finish("worker_overhead", {"of_the_workers_time": at_most(0.1, lost)})


if __name__ == "__main__":
    main()
