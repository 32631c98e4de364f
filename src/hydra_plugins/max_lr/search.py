"""One `-m` command: compose the variants, prepare them, run the coordinator, show the table."""

import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console

from hydra_plugins.max_lr.overrides import split, varied
from redline.config import check_keys
from redline.errors import UserError
from redline.search.coordinator import Coordinator, Settings
from redline.search.display import Display
from redline.search.pool import Ended, Pool, make_slots
from redline.search.register import choose_name, open_studies
from redline.search.result import write_result
from redline.search.study import open_storage
from redline.search.table import result_table
from redline.search.variant import Variant, fingerprint
from redline.stability import SearchRule, build_rules

if TYPE_CHECKING:
    from hydra_plugins.max_lr.sweeper import MaxLRSweeperConf

_JOBS = "redline.training.jobs"
_VOTES = ("any", "majority", "all")
_WIDTH = 120  # columns, where the output is no terminal


def search(
    settings: "MaxLRSweeperConf", config: DictConfig, config_loader: Any, arguments: Sequence[str]
) -> dict[str, Any]:
    """Find every variant's edge; gives what `result.json` holds. Raises UserError, KeyboardInterrupt."""
    # A cluster's farewell is a Ctrl-C, and one sent to a background job counts.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    _check(settings)
    ladder, choices = split(arguments, config_loader, config.search.ladder, settings.tolerance)
    variants = _compose(config, config_loader, choices, ladder, varied(arguments, config_loader))
    slots, threads = make_slots(settings.workers, config.trainer.accelerator)
    pool = Pool(slots, preload=["redline.training.warm"])

    Path("mlruns").mkdir(exist_ok=True)
    storage = open_storage(settings.storage)
    asked = fingerprint(variants, ladder, {"seeds": settings.seeds, "vote": settings.vote})
    given = None if OmegaConf.is_missing(config.search, "name") else config.search.name
    name = choose_name(storage, given, asked, [variant.name for variant in variants])
    with open_dict(config):
        config.search.name = name
    directory = Path(config.hydra.sweep.dir).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    asked_for = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    OmegaConf.save(asked_for, directory / "multirun.yaml")

    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    with Display(console) as display:
        try:
            started = time.monotonic()
            display.say(
                f"search {name}: {', '.join(variant.name for variant in variants)} on {len(ladder)} rungs "
                f"from {ladder[0]:g} to {ladder[-1]:g}, {settings.seeds} seed(s), {len(slots)} worker(s)"
            )
            jobs = _Housekeeping(pool, directory, display)
            precision = jobs.prepare(variants, name)
            studies = open_studies(storage, name, asked, variants, ladder, settings.seeds, precision)
            pinned = {key: study.study.user_attrs["precision"] for key, study in studies.items()}
            coordinator = Coordinator(
                Settings(
                    name=name,
                    directory=directory,
                    ladder=ladder,
                    seeds=settings.seeds,
                    vote=settings.vote,  # type: ignore[arg-type]
                    retries=settings.retries,
                    beat_every=settings.beat_every,
                    patience=settings.patience,
                    trial_job=f"{_JOBS}:trial",
                    threads=threads,
                    precision=pinned,
                ),
                variants,
                studies,
                {variant.name: build_rules(variant.cfg.divergence, SearchRule) for variant in variants},
                pool,
                display,
            )
            entries = coordinator.run()
            jobs.tidy(coordinator, variants[0].cfg.tracker.get("tracking_uri"))
        except KeyboardInterrupt:
            display.say(f"stopped; the same command, or search.name={name}, goes on")
            raise
        display.say(f"done in {time.monotonic() - started:.0f} s")
    result = {"search": name, "ladder": ladder, "seeds": settings.seeds, "variants": entries}
    write_result(directory / "result.json", result)
    for study in studies.values():
        study.study.set_user_attr("finished", True)
    console.print(result_table(result, settings.reference))
    console.print(f"result: {directory / 'result.json'}", soft_wrap=True)
    console.print("curves: make ui (MLflow), trials: make dashboard (Optuna)", soft_wrap=True)
    if any(entry["open"] for entry in entries.values()):
        raise SystemExit(1)  # the search has ended, but not with every answer
    return result


def _check(settings: "MaxLRSweeperConf") -> None:
    if settings.seeds < 1:
        raise UserError(f"hydra.sweeper.seeds={settings.seeds}: allowed: 1 or more")
    if settings.vote not in _VOTES:
        raise UserError(f"hydra.sweeper.vote={settings.vote}: allowed: {', '.join(_VOTES)}")
    if settings.retries < 0:
        raise UserError(f"hydra.sweeper.retries={settings.retries}: allowed: 0 or more")


def _compose(
    config: DictConfig,
    config_loader: Any,
    choices: Sequence[Sequence[str]],
    ladder: Sequence[float],
    keys: Sequence[str],
) -> list[Variant]:
    variants = []
    for chosen in choices:
        cfg = config_loader.load_sweep_config(config, [*chosen, f"lr={ladder[0]}"])
        HydraConfig.instance().set_config(cfg)
        norm = cfg.hydra.runtime.choices["norm"]
        values = dict(override.split("=", 1) for override in chosen)
        with open_dict(cfg):
            del cfg["hydra"]
        check_keys(cfg)
        variants.append(Variant(norm, tuple((key, values[key]) for key in keys), cfg))
    return variants


@dataclass(frozen=True)
class _Housekeeping:
    """Jobs beside the trials, each run on the first slot and waited for."""

    pool: Pool
    directory: Path
    display: Display

    def prepare(self, variants: Sequence[Variant], experiment: str) -> dict[str, str]:
        """Find what is wrong with the variants, make tokens and stores; gives each one's precision."""
        payload = {"cfgs": {variant.name: variant.cfg for variant in variants}, "experiment": experiment}
        return self._run("prepare", payload)["precision"]

    def tidy(self, coordinator: Coordinator, tracking_uri: str | None) -> None:
        """Make the tracker agree with the search's verdicts."""
        if tracking_uri is not None:
            payload = {
                "tracking_uri": tracking_uri,
                "experiment": coordinator.settings.name,
                "verdicts": coordinator.late_verdicts(),
                "alive": coordinator.alive(),
            }
            self._run("tidy", payload)

    def _run(self, job: str, payload: dict[str, Any]) -> dict[str, Any]:
        slot, log = self.pool.slots[0], self.directory / f"{job}.log"
        self.pool.start(slot, f"{_JOBS}:{job}", payload, log)
        try:
            while True:
                for _, message in self.pool.poll(0.5):
                    if not isinstance(message, Ended):
                        self.display.say(message["doing"])
                    elif message.user_error is not None:
                        raise UserError(message.user_error)
                    elif message.crash is not None:
                        raise RuntimeError(f"{job} failed ({message.crash}); its log is in {log}")
                    else:
                        assert message.result is not None
                        return message.result
        finally:
            self.pool.stop(slot)
