"""The search of one model on one dataset: an Optuna study whose trials are trainings of a comparison."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from recbole_kuaiformer.benchmarks import running
from recbole_kuaiformer.benchmarks.comparison_run import Run
from recbole_kuaiformer.benchmarks.comparison_settings import Request, case, no_arguments
from recbole_kuaiformer.benchmarks.epoch_clock import EpochClock
from recbole_kuaiformer.benchmarks.search_space import Dimension, space
from recbole_kuaiformer.settings import SettingsError

STARTUP_TRIALS = 5  # drawn at random before the sampler learns and the pruner prunes
WARMUP_EPOCHS = 3  # in which no trial is pruned


@dataclass(frozen=True)
class Search:
    """One model on one dataset.

    Attributes:
        request: settings that are not searched, whatever the space says, and the bounds of each trial.
        n_trials: finished, pruned and failed ones together; the first is of the model's own settings.
        seed: of every trial's training, and of the sampler.
        folder: <out>/<dataset>.
        tries: what the trials after the first have in place of the model's own settings, within the space;
            keys that are given for all trials stay away.
    """

    model: str
    dataset: str
    request: Request
    n_trials: int
    seed: int
    folder: Path
    tries: Sequence[Mapping[str, Any]] = ()

    def run(self) -> Any:
        """Run the trials that are still to be run; returns Optuna's study."""
        optuna = optuna_library()
        given = {**self.request.common, **self.request.own.get(self.model, {})}
        dimensions = {key: one for key, one in space(self.model).items() if key not in given}
        base = case(self.model, self.dataset, seed=self.seed, request=self.request)
        study = self._study(base, dimensions)
        done = _tidied(study)
        own = {key: base["resolved"].get(key) for key in dimensions}
        for one in ({}, *self.tries):
            study.enqueue_trial(_within({**own, **one}, dimensions), skip_if_exists=True)
        waiting = sum(one.state == optuna.trial.TrialState.WAITING for one in study.trials)
        if waiting > max(0, self.n_trials - done):
            raise SettingsError(
                f"--trials {self.n_trials}: {done} are done and {waiting} more are to be tried (--try, or "
                f"interrupted); give at least {done + waiting}"
            )
        study.optimize(
            lambda trial: self._value_or_reason(trial, dimensions),
            n_trials=max(0, self.n_trials - done),
            catch=(Exception,),
            callbacks=[self._say],
        )
        best = [one for one in study.trials if one.state == optuna.trial.TrialState.COMPLETE]
        if best:
            self._write(study)
        return study

    def _study(self, base: dict[str, Any], dimensions: dict[str, Dimension]) -> Any:
        """The study of this space and these settings; of other ones it is another study."""
        optuna = optuna_library()
        self.folder.mkdir(parents=True, exist_ok=True)
        backend = optuna.storages.journal.JournalFileBackend(str(self.folder / f"{self.model}.journal"))
        storage = optuna.storages.JournalStorage(backend)
        name = running.key(
            {"identity": base["identity"], "space": {k: vars(d) for k, d in dimensions.items()}}
        )
        study = optuna.create_study(
            study_name=name,
            storage=storage,
            direction="maximize" if _bigger_is_better(base) else "minimize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=WARMUP_EPOCHS),
        )
        # Of the number of trials so far: a sampler begun anew with one seed would draw the first ones again.
        study.sampler = optuna.samplers.TPESampler(
            seed=self.seed + 1000 * len(study.trials), n_startup_trials=STARTUP_TRIALS
        )
        return study

    def _value(self, trial: Any, dimensions: dict[str, Dimension]) -> float:
        """The trial's best validation score."""
        optuna = optuna_library()
        chosen = {key: dimension.suggested(trial, key) for key, dimension in dimensions.items()}
        own = {**self.request.own, self.model: {**self.request.own.get(self.model, {}), **chosen}}
        run_case = case(
            self.model, self.dataset, seed=self.seed, request=replace(self.request, own=own, per_user=False)
        )
        run_case["settings"] |= {"state": "ERROR"}
        folder = self.folder / "trials" / f"{self.model}-{trial.number}"
        with _inside(folder), no_arguments():
            clock = EpochClock(Path("epochs.json"), budget=self.request.time_budget)
            run = Run(run_case, clock=clock)

            def validated(epoch: int, score: float) -> None:
                clock.validated(epoch, score)
                trial.report(score, epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned

            try:
                run.train(validated=validated)
            finally:
                trial.set_user_attr("epochs", clock.epochs)
                trial.set_user_attr("train_seconds", clock.seconds)
            return float(run.trainer.best_valid_score)

    def _value_or_reason(self, trial: Any, dimensions: dict[str, Dimension]) -> float:
        """As ``_value``; a trial that fails keeps the reason."""
        try:
            return self._value(trial, dimensions)
        except optuna_library().TrialPruned:
            raise
        except Exception as error:
            trial.set_user_attr("failed", f"{type(error).__name__}: {error}")
            raise

    def _say(self, study: Any, trial: Any) -> None:
        value = "" if trial.value is None else f" {trial.value:.4f}"
        finished = f"{self.dataset} {self.model} {trial.number + 1}/{self.n_trials}"
        print(f"{finished} {trial.state.name.lower()}{value} {trial.params}", flush=True)
        del study

    def _write(self, study: Any) -> None:
        best = study.best_trial
        trials = [
            {
                "number": one.number,
                "state": one.state.name.lower(),
                "value": one.value,
                "settings": one.params,
                **one.user_attrs,
            }
            for one in study.trials
            if one.state.is_finished()
        ]
        found = {"seed": self.seed, "time_budget": self.request.time_budget, "best": best.number}
        found |= {"max_epochs": self.request.max_epochs, "trials": trials}
        (self.folder / f"{self.model}.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
        head = (
            f"# Best of {len(trials)} trials of {self.model} on {self.dataset}, seed {self.seed}: trial "
            f"{best.number}, {best.value:.6f} on the validation split.\n"
        )
        text = head + yaml.safe_dump(best.params, sort_keys=True)
        (self.folder / f"{self.model}.yaml").write_text(text, encoding="utf-8")


def optuna_library() -> Any:
    """Optuna, or a message how to install it.

    Raises:
        SettingsError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise SettingsError("optuna is not installed: pip install 'recbole-kuaiformer[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _within(given: Mapping[str, Any], dimensions: Mapping[str, Dimension]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key in dimensions and dimensions[key].holds(value)}


def _tidied(study: Any) -> int:
    """Trials that count; one that was interrupted is failed, and its settings are tried again."""
    states = optuna_library().trial.TrialState
    interrupted = [one for one in study.trials if one.state == states.RUNNING]
    for one in interrupted:
        study.tell(one.number, state=states.FAIL)
        study.enqueue_trial(one.params)
    ended = [one for one in study.trials if one.state in (states.COMPLETE, states.PRUNED)]
    return len(ended) + sum("failed" in one.user_attrs for one in study.trials)


def _bigger_is_better(base: dict[str, Any]) -> bool:
    return bool(base["resolved"]["valid_metric_bigger"])


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in a folder; of what is left there the epochs alone stay."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        for place in ("saved", "log", "log_tensorboard"):
            shutil.rmtree(folder / place, ignore_errors=True)
