"""What each model of a comparison is given: the common protocol, and of all other keys those it knows."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from recbole.config import Config
from recbole.utils import ModelType

from recbole_kuaiformer import checkpoint, defaults, plugin
from recbole_kuaiformer.benchmarks import searched_settings
from recbole_kuaiformer.benchmarks.run_identity import decisive, identity
from recbole_kuaiformer.benchmarks.setting_checks import check_files, check_settable, check_values
from recbole_kuaiformer.data.sequences import check_model
from recbole_kuaiformer.quick_start import check_model as check_model_name
from recbole_kuaiformer.settings import NOTHING, SettingsError, check_known_keys

# Of a run: kind, model, name, dataset, seed, settings, time_budget, per_user, identity, resolved, params.
Case = dict[str, Any]

# Keys that RecBole lists nowhere and reads in some models alone; those name them in their properties.
_OF_SOME_MODELS = {"loss_type", "reg_weight"}


@dataclass(frozen=True)
class Request:
    """What a comparison was asked for beside models and datasets.

    Attributes:
        common: keys for every model that knows them.
        own: keys for one model, by the name it has in the comparison.
        data_path: where the datasets lie, as in RecBole; empty for RecBole's own place.
        params: folder of searched settings, <dataset>/<Model>.yaml.
        max_epochs: bound on every training; None leaves it to each model's ``epochs``.
        time_budget: seconds of training after which a run stops; None for no bound.
        per_user: whether the ranks of every test user's target are saved.

    Raises:
        SettingsError: a bound leaves nothing to train.
    """

    common: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    data_path: str = ""
    params: Path | None = None
    max_epochs: int | None = None
    time_budget: float | None = None
    per_user: bool = True

    def __post_init__(self) -> None:
        """Refuse bounds under which nothing is trained."""
        if self.max_epochs is not None and self.max_epochs < 1:
            raise SettingsError(f"max_epochs: must be at least 1, got {self.max_epochs}")
        if self.time_budget is not None and not 0 < self.time_budget < math.inf:
            raise SettingsError(f"time_budget: must be seconds above 0, got {self.time_budget}")


def assignments(
    given: Iterable[str], *, models: Iterable[str], option: str = "--set"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keys for all models, and keys by model, out of ``key=value`` and ``Model.key=value``.

    >>> assignments(["topk=[5]", "SASRec.n_layers=3"], models=["SASRec"])
    ({'topk': '[5]'}, {'SASRec': {'n_layers': '3'}})

    Raises:
        SettingsError: a text without =, of a model that is not compared, or of a key that is there twice.
    """
    common: dict[str, Any] = {}
    own: dict[str, dict[str, Any]] = {}
    known, seen = list(models), set[str]()
    for text in given:
        name, is_there, value = text.partition("=")
        if not is_there or not name:
            raise SettingsError(f"{option}: {text!r} is no key=value")
        if name in seen:
            raise SettingsError(f"{option}: {name} is there twice, last as {text!r}; leave one of them")
        seen.add(name)
        check_settable([name.partition(".")[2] or name], where=option)
        parsed = None if value in NOTHING else value  # the rest RecBole reads as it reads its command line
        model, of_a_model, key = name.partition(".")
        if not of_a_model:
            common[name] = parsed
        elif model in known:
            own.setdefault(model, {})[key] = parsed
        else:
            raise SettingsError(f"{option}: {text!r} is for {model}, which is not among {', '.join(known)}")
    return common, own


def named(given: Iterable[str]) -> dict[str, str]:
    """Models by the names that they have in a comparison, out of ``Model`` and ``name=Model``.

    >>> named(["SASRec", "one=KuaiFormer", "four=KuaiFormer"])
    {'SASRec': 'SASRec', 'one': 'KuaiFormer', 'four': 'KuaiFormer'}

    Raises:
        SettingsError: a name is empty, holds a dot, or is there twice.
    """
    found: dict[str, str] = {}
    for text in given:
        name, is_named, model = text.partition("=")
        model = model if is_named else name
        if not name or not model or "." in name:
            raise SettingsError(f"--models: {text!r} is no Model or name=Model (a name without dots)")
        if name in found:
            raise SettingsError(f"--models: {name} is there twice; name=Model gives one of them another name")
        found[name] = model
    return found


@contextmanager
def no_arguments() -> Iterator[None]:
    """Within the block RecBole's Config finds no command line: ours is not its own."""
    before = sys.argv
    sys.argv = before[:1]
    try:
        yield
    finally:
        sys.argv = before


def configuration(model: str, dataset: str, *, given: Mapping[str, Any]) -> Any:
    """RecBole's Config of these settings alone.

    Raises:
        SettingsError: there is no such model, or a key is wrong.
    """
    check_model_name(model)
    with no_arguments():
        try:
            return Config(model, dataset, config_dict=dict(given))
        except SettingsError:
            raise
        except (ValueError, TypeError, NotImplementedError, RuntimeError) as error:  # RecBole's own checks
            raise SettingsError(f"{model}: {error}") from error


def known_keys(config: Any) -> set[str]:
    """Keys that have a meaning for the configuration's model."""
    listed = {key for keys in config.parameters.values() for key in keys}
    return {*config.final_config_dict} | listed | ({*plugin._UNLISTED_KEYS} - _OF_SOME_MODELS)


def keys_of_any(models: Iterable[str], dataset: str, *, data_path: str) -> set[str]:
    """Keys that have a meaning for at least one of the models on the dataset."""
    place = {"data_path": data_path} if data_path else {}
    return set().union(*(known_keys(configuration(model, dataset, given=place)) for model in models))


def protocol() -> dict[str, Any]:
    """properties/comparison.yaml."""
    text = (defaults.properties_folder() / "comparison.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def settings_for(model: str, dataset: str, *, request: Request, name: str = "") -> dict[str, Any]:
    """All settings given to a model, of this name in the comparison, on a dataset, beside its seed.

    Raises:
        SettingsError: a key for this model alone, or of its file in ``params``, is unknown to it, or a
            value is wrong.
    """
    place = {"data_path": request.data_path} if request.data_path else {}
    base = configuration(model, dataset, given=place)
    known = known_keys(base)
    own = request.own.get(name or model, {})
    check_settable([*request.common, *own], where=f"settings of {name or model} on {dataset}")
    if unknown := [key for key in own if key not in known]:
        check_known_keys(unknown, ours=known, known=known)
    searched = searched_settings.chosen(model, dataset, folder=request.params)
    check_settable(searched, where=f"--params: {request.params}/{dataset}/{model}.yaml")
    searched_settings.check_keys(searched, model, dataset, folder=request.params, known=known)
    settings = {
        **_known(protocol(), known),
        **place,
        **fitting(base),
        **searched,
        **_known(request.common, known, but_none=model not in plugin.MODELS),
        **own,
    }
    check_values(settings, base=base)
    if request.max_epochs is not None:
        settings["epochs"] = min(int(settings.get("epochs", base["epochs"])), request.max_epochs)
    if not _can_be_on_the_log(base):
        settings.pop("sequences", None)
    return {**settings, "show_progress": False, "checkpoint_dir": "saved"}


def _known(given: Mapping[str, Any], known: set[str], *, but_none: bool = False) -> dict[str, Any]:
    """Of these the known keys; None where a model of RecBole's has a number would end it."""
    return {key: value for key, value in given.items() if key in known and not (but_none and value is None)}


def fitting(base: Any) -> dict[str, Any]:
    """``load_col`` of all columns where the time is not among them, without which there is no order.

    RecBole's default columns leave the time out, and the items' file, which decides what the catalogue is
    and which interactions stay: models of this package read all of both where nothing else is said.

    Args:
        base: the configuration that would be without; empty where it loads the time already.
    """
    columns = (base["load_col"] or {}).get("inter")
    return {} if columns is None or base["TIME_FIELD"] in columns else {"load_col": None}


def _can_be_on_the_log(base: Any) -> bool:
    if base["MODEL_TYPE"] != ModelType.SEQUENTIAL or base["model"] in plugin.MODELS:
        return False
    try:
        check_model(base)
    except SettingsError:
        return False
    return True


def _whole_if_so(seconds: float | None) -> float | None:
    """600.0 as 600: one bound, and so one run, however it was written."""
    return int(seconds) if seconds is not None and float(seconds).is_integer() else seconds


def check_common(request: Request, *, models: Iterable[str], datasets: Iterable[str]) -> None:
    """Refuse a key for all models that none of them knows.

    Raises:
        SettingsError: names the key, and the nearest known one.
    """
    known = keys_of_any(models, next(iter(datasets)), data_path=request.data_path)
    check_known_keys(request.common, ours=known, known=known)


def check_datasets(cases: Iterable[Case]) -> None:
    """Refuse a dataset of the runs that has no files, unless RecBole can download it.

    Raises:
        SettingsError: names the dataset, and the nearest one there is.
    """
    for one in {case["dataset"]: case for case in cases}.values():
        check_files(configuration(one["model"], one["dataset"], given=one["settings"]))


def case(model: str, dataset: str, *, seed: int, request: Request, name: str = "") -> Case:
    """One run: what it is given, and the identity of all that decides its outcome.

    Args:
        model: of RecBole or of this package.
        dataset: its name.
        seed: of the training.
        request: what the comparison was asked for.
        name: the model's in the comparison, where several runs are of one model; its own by default.

    Raises:
        SettingsError: a setting is wrong.
    """
    settings = settings_for(model, dataset, request=request, name=name)
    config = configuration(model, dataset, given=settings)
    resolved = decisive(checkpoint.plain_config(config)["final"])
    bounds = {"time_budget": _whole_if_so(request.time_budget), "seed": seed}
    return {
        "kind": "run",
        "model": model,
        "name": name or model,
        "dataset": dataset,
        "seed": seed,
        "settings": {**settings, "seed": seed},
        "time_budget": request.time_budget,
        "per_user": request.per_user,
        "identity": identity(model, resolved, bounds=bounds, data=Path(config["data_path"])),
        "resolved": resolved,
        "params": searched_settings.chosen(model, dataset, folder=request.params),
    }
