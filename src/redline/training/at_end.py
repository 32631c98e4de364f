"""A search's end, for its trackers: what waits is sent, and trials are linked to their curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from redline.search import AtEnd, EndedSearch
from redline.tracked_runs import RUN_KEY, all_runs

_TIMEOUT = 10.0  # seconds that a storage which does not answer is waited for
# Unless it is told otherwise the UI opens on its pages for language models in use.
_VIEW = "workflowType=machine_learning&compareRunsMode=CHART"

Pages = dict[tuple[str, str], str | None]  # a variant and a trial's number -> the address of its run


@dataclass(frozen=True)
class SendCurves(AtEnd):
    """``trackers``: of each variant, the group `tracker` of its configuration."""

    trackers: Sequence[Mapping[str, Any]]
    timeout: float | None = None  # each tracker's `send_timeout` bounds it
    name: ClassVar[str] = "send"
    command: ClassVar[str] = "redline send"

    def __call__(self, search: EndedSearch) -> Sequence[str]:
        from redline.search.store.record import link_trials
        from redline.search.store.storage import open_storage

        distinct = [its for i, its in enumerate(self.trackers) if its not in self.trackers[:i]]
        finished = [finish(tracker, search.name) for tracker in distinct]
        storage = open_storage(search.storage, _TIMEOUT)
        for _, pages in finished:
            link_trials(storage, search.name, pages)
        return [line for line, _ in finished if line is not None]


def finish(tracker: Mapping[str, Any], experiment: str) -> tuple[str | None, Pages]:
    """Send what waits, and have MLflow know that none of the search's runs runs any more. Imports MLflow.

    Gives a line for the user, where the curves are shown or what is wrong, and the runs' pages.
    """
    from redline.training.outbox import Outbox, drain

    outbox, line = Outbox.of(tracker), drain(tracker)
    if outbox is None or line is not None:
        return line, {}
    from redline.training.outbox.sender import in_one_line, open_store

    written = {run.key for run in outbox.runs()}
    try:
        client = open_store(outbox.tracking_uri)
        runs = all_runs(client, experiment)
        for run in runs:
            # Its machine is gone.
            if run.info.status == "RUNNING" and run.data.tags.get(RUN_KEY) not in written:
                client.set_terminated(run.info.run_id, "KILLED")
    # Drivers, proxies and servers raise what they like.
    except Exception as error:  # noqa: BLE001
        return f"{outbox.store}: runs that were lost may be shown as running ({in_one_line(error)})", {}
    if not runs or outbox.ui is None:
        return None, {}
    line = f"curves: redline ui, then {outbox.page(f'experiments/{runs[0].info.experiment_id}/runs?{_VIEW}')}"
    return line, {
        (its.data.tags.get("variant", ""), its.data.tags.get("trial", "")): outbox.page(
            f"runs/{its.info.run_id}"
        )
        for its in runs
    }
