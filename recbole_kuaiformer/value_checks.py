"""Values of RecBole's keys that would end a run, or make it another than asked for: one error before it."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from recbole.evaluator import metric_information, metrics_dict

from recbole_kuaiformer.config import READINGS
from recbole_kuaiformer.settings import SettingsError, nearest

# Whole numbers that RecBole takes as they come, and the least that a run can have. None of the epochs loads a
# checkpoint to judge it.
AT_LEAST = {
    "epochs": 0, "train_batch_size": 1, "eval_batch_size": 1, "MAX_ITEM_LIST_LENGTH": 1,
    "metric_decimal_place": 0, "seed": 0,
}  # fmt: skip
_NEVER_NOTHING = ("epochs", "train_batch_size", "eval_batch_size", "learning_rate", "seed")
_OF_THE_MACHINE = ("gpu_id", "local_rank", "nproc", "worker")  # read in forms of their own
_LISTS = ("rec.items", "rec.topk")  # what metrics with a cut-off are computed from


def check_values(
    held: Mapping[str, Any], *, defaults: Mapping[str, Any], at_least: Mapping[str, float] = AT_LEAST
) -> None:
    """Refuse values that a model cannot be trained or judged by.

    Args:
        held: settings, by key, read out of what text they were.
        defaults: what stands where they say nothing; a number or a bool there asks for one here.
        at_least: bounds of whole numbers.

    Raises:
        SettingsError: names key and value, and the nearest right one.
    """
    for key, value in held.items():
        if key not in _OF_THE_MACHINE and (value is not None or key in _NEVER_NOTHING):
            _check_number(key, value, default=defaults.get(key), least=at_least.get(key))
    for key in ("metrics", "topk"):
        if key in held and not _listed(held[key]):
            raise SettingsError(f"{key}: must name at least one, got {held[key]!r}")
    for name in _listed(held.get("metrics", [])):
        _check_metric(name, key="metrics")
    cuts = held.get("topk", 1)
    are_whole = all(is_whole(k) and k >= 1 for k in _listed(cuts))
    if isinstance(cuts, tuple) or not are_whole:  # RecBole takes no tuple
        raise SettingsError(f"topk: must be a list of whole numbers from 1, got {cuts!r}")


def check_valid_metric(value: Any, *, metrics: Any) -> None:
    """Refuse what no epoch can be chosen by: an unknown metric, one without its cut-off or with one too many.

    Args:
        value: of ``valid_metric``; it may end in a reading, as Recall@10_masked.
        metrics: the name, or names, of what is measured.

    Raises:
        SettingsError: names the value, and the nearest right one.
    """
    name, is_cut, k = _parts(value)
    _check_metric(name, key="valid_metric")
    has_cut = any(need in _LISTS for need in metric_information[name.lower()])
    if has_cut and not (k.isdecimal() and int(k) >= 1):
        raise SettingsError(f"valid_metric: {value!r} needs a cut-off from 1, as {name}@10")
    if not has_cut and is_cut:
        raise SettingsError(f"valid_metric: {name} has no cut-off, got {value!r}; write {name}")
    measured = [str(one).lower() for one in _listed(metrics)]
    if not has_cut and name.lower() not in measured:
        raise SettingsError(f"valid_metric: {name} must be among metrics, which are {', '.join(measured)}")


def _check_number(key: str, value: Any, *, default: Any, least: float | None) -> None:
    """Where RecBole or the model's yaml have a number, or True or False, there must be one."""
    if least is not None and not (is_whole(value) and value >= least):
        raise SettingsError(f"{key}: must be a whole number from {least}, got {value!r}")
    if isinstance(default, bool):
        if not isinstance(value, bool) and value not in (0, 1):
            raise SettingsError(f"{key}: must be True or False, got {value!r}")
    elif isinstance(default, int | float) and isinstance(value, str | bool):
        raise SettingsError(f"{key}: must be a number, got {value!r}")
    if key == "learning_rate" and not (isinstance(value, Real) and float(value) >= 0):
        raise SettingsError(f"{key}: must be a number from 0, got {value!r}")


def _check_metric(name: Any, *, key: str) -> None:
    known = [kind.__name__ for kind in metrics_dict.values()]
    if not isinstance(name, str) or name.lower() not in metrics_dict:
        raise SettingsError(
            f"{key}: RecBole has no metric {name!r}{nearest(name, known)}; it has {', '.join(known)}"
        )


def _parts(value: Any) -> tuple[str, str, str]:
    """Name, @ and cut-off, without a reading.

    >>> _parts("Recall@10_masked"), _parts("GAUC")
    (('Recall', '@', '10'), ('GAUC', '', ''))
    """
    text = str(value)
    for reading in READINGS:
        text = text.removesuffix(f"_{reading}")
    return text.partition("@")


def check_measured(config: Any) -> None:
    """Refuse a valid_metric that RecBole's own training does not find among what it measures.

    Raises:
        SettingsError: its metric is RecBole's and not among ``metrics``, or its cut-off not in ``topk``.
    """
    name, is_cut, k = _parts(str(config["valid_metric"]).lower())
    known = metrics_dict.get(name)
    if known is None or not known.__module__.startswith("recbole."):
        return  # somebody's own, whose results may have any name
    check_valid_metric(config["valid_metric"], metrics=config["metrics"])
    names = [str(one).lower() for one in config["metrics"]]
    if name not in names or (is_cut and int(k) not in config["topk"]):
        measured = f"metrics {config['metrics']} at topk {config['topk']}"
        raise SettingsError(
            f"valid_metric: {config['valid_metric']} is not measured; measured are {measured}; add it, or "
            "choose the epoch by one of these"
        )


def _listed(value: Any) -> list[Any]:
    return [*value] if isinstance(value, list | tuple) else [value]


def is_whole(value: Any) -> bool:
    """Whether it is a whole number, numpy's included; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)
