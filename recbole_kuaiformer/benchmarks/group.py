"""RecBole's run_recbole_group.py with this package's models among RecBole's.

python -m recbole_kuaiformer.benchmarks.group --model_list=KuaiFormer,SASRec --dataset=ml-100k

The same flags and the same two LaTeX files, written after each model. Unless told otherwise, ours beside
RecBole's models are measured as these are (metrics, topk, valid_metric); "-" is where a model
lacks one. For means over seeds and equal terms there is benchmarks.compare.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole.config import Config
from recbole.utils import ModelType, list_to_latex

from recbole_kuaiformer import plugin
from recbole_kuaiformer.benchmarks.comparison_settings import (
    Request,
    check_common,
    configuration,
    fitting,
    known_keys,
    no_arguments,
)
from recbole_kuaiformer.benchmarks.setting_checks import check_files, check_values
from recbole_kuaiformer.quick_start import USER_ERRORS, fail, run
from recbole_kuaiformer.settings import SettingsError
from recbole_kuaiformer.value_checks import check_measured

Results = list[dict[str, Any]]

NONE = "-"  # in the place of a metric that a model lacks
_MEASURES = ("metrics", "topk", "valid_metric")


@dataclass(frozen=True)
class Group:
    """What each model came to, a dict of ``Model`` and RecBole's metrics for each; and both as LaTeX."""

    valid: Results
    test: Results
    valid_latex: str
    test_latex: str


def run_group(
    models: Sequence[str],
    dataset: str,
    *,
    config_file_list: Sequence[str] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    done: Callable[[Group], None] | None = None,
    **place: Any,
) -> Group:
    """Run each model with RecBole's ``run``; a model gets of files and dict the keys that it knows.

    Args:
        models: names, RecBole's or ours.
        dataset: its name.
        config_file_list: yaml files, as in RecBole; the dict comes before them.
        config_dict: keys and values, as in RecBole.
        done: called after each model with what there is so far: a later one that fails loses it otherwise.
        place: further arguments of ``run``: saved, nproc, world_size, ip, port, group_offset.

    Raises:
        SettingsError: there is no such model or dataset, none of them knows a key, or a value is wrong.
        FileNotFoundError: there is no such yaml file.
    """
    given = {**_of_files(config_file_list or ()), **(config_dict or {})}
    bases = {model: configuration(model, dataset, given=_place(given)) for model in models}
    check_common(
        Request(common=given, data_path=given.get("data_path", "")), models=models, datasets=[dataset]
    )
    measures = _measures(models, dataset, given=given)
    settings_of, configs = {}, {}
    for model, base in bases.items():
        known = known_keys(base)
        own = {key: value for key, value in given.items() if key in known}
        check_values(own, base=base)
        settings_of[model] = {**measures[model], **own}
        configs[model] = config = configuration(model, dataset, given=settings_of[model])
        check_measured(config)
        check_files(config)
    columns = _columns(configs)
    group = Group([], [], "", "")
    for model, settings in settings_of.items():
        result = run(model, dataset, config_dict={**columns[model], **settings}, **place)
        valid = [*group.valid, {"Model": model, **result["best_valid_result"]}]
        test = [*group.test, {"Model": model, **result["test_result"]}]
        bigger = result["valid_score_bigger"]
        group = Group(valid, test, _latex(valid, bigger=bigger), _latex(test, bigger=bigger))
        if done is not None:
            done(group)
    return group


def _measures(models: Sequence[str], dataset: str, *, given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """For each model what it is measured by, of all that was not given; ours as RecBole's beside them."""
    if all(model in plugin.MODELS for model in models):
        return {model: {} for model in models}
    recboles = configuration("Pop", dataset, given=_place(given))
    theirs = {key: recboles[key] for key in _MEASURES if key not in given}
    return {model: theirs if model in plugin.MODELS else {} for model in models}


def _columns(configs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """``load_col`` of each model: where one needs the time, RecBole's default columns become all, for all.

    So they have the same catalogue. Models of contexts, to which every column is one, and RecBole's models
    among themselves where none needs the time, keep what they have.
    """
    ordered = {
        model
        for model, config in configs.items()
        if config["MODEL_TYPE"] == ModelType.SEQUENTIAL or config["eval_args"]["order"] == "TO"
    }
    takes_columns_for_contexts = (ModelType.CONTEXT, ModelType.DECISIONTREE)
    return {
        model: fitting(config)
        if model in ordered or (ordered and config["MODEL_TYPE"] not in takes_columns_for_contexts)
        else {}
        for model, config in configs.items()
    }


def _latex(results: Results, *, bigger: bool) -> str:
    """RecBole's table; in bold the best of each metric that all models have."""
    # Every row has every column: RecBole appends what it finds to a column, whichever row it is of.
    names = dict.fromkeys(name for one in results for name in one)
    whole = [{name: one.get(name, NONE) for name in names} for one in results]
    shared = [name for name in names if name != "Model" and all(name in one for one in results)]
    _, text = list_to_latex(convert_list=whole, bigger_flag=bigger, subset_columns=shared)
    return str(text)


def _of_files(files: Sequence[str]) -> dict[str, Any]:
    """The keys of yaml files, read as RecBole reads them; later files first."""
    if not files:
        return {}
    for file in files:
        if not Path(file).is_file():
            raise FileNotFoundError(f"{file}: no such configuration file")
    with no_arguments():
        return dict(Config("Pop", "any", config_file_list=list(files)).file_config_dict)


def _place(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"data_path": given["data_path"]} if "data_path" in given else {}


def main(arguments: Sequence[str] | None = None) -> int:
    """RecBole's command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m recbole_kuaiformer.benchmarks.group",
        epilog="--any_key=value sets any key of the configuration of the models that know it",
    )
    parser.add_argument("--model_list", "-m", default="KuaiFormer", help="names, separated by commas")
    parser.add_argument("--dataset", "-d", default="ml-100k")
    parser.add_argument("--config_files", default=None, help="yaml files, separated by spaces")
    parser.add_argument("--valid_latex", default="./latex/valid.tex", help="where the valid table goes")
    parser.add_argument("--test_latex", default="./latex/test.tex", help="where the test table goes")
    parser.add_argument("--nproc", type=int, default=1)
    args, more = parser.parse_known_args(sys.argv[1:] if arguments is None else arguments)

    def write(group: Group) -> None:
        for name, text in ((args.valid_latex, group.valid_latex), (args.test_latex, group.test_latex)):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text(text, encoding="utf-8")

    try:
        with no_arguments():
            run_group(
                args.model_list.split(","),
                args.dataset,
                config_file_list=args.config_files.split() if args.config_files else None,
                config_dict=_keys(more),
                done=write,
                nproc=args.nproc,
            )
    except USER_ERRORS as error:
        return fail(str(error))
    print(args.valid_latex, args.test_latex, sep="\n")
    return 0


def _keys(arguments: Sequence[str]) -> dict[str, str]:
    """``--key=value`` of the command line; RecBole reads the values."""
    keys = {}
    for text in arguments:
        name, is_there, value = text.removeprefix("--").partition("=")
        if not is_there or not text.startswith("--"):
            raise SettingsError(f"{text!r} is no --key=value")
        keys[name] = value
    return keys


if __name__ == "__main__":
    sys.exit(main())
