"""From the command line to a result: the same flags and precedence as RecBole's own script."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from urllib.error import URLError

import recbole
import yaml
from recbole.quick_start import objective_function
from recbole.utils import get_model

from recbole_kuaiformer.checkpoint import CheckpointError
from recbole_kuaiformer.data.dataset import DataError
from recbole_kuaiformer.evaluation.trainer import TrainingError
from recbole_kuaiformer.plugin import MODELS
from recbole_kuaiformer.settings import SettingsError, nearest
from recbole_kuaiformer.spawning import ProcessError, run

__all__ = ["main", "objective_function", "run"]

USER_ERRORS = (SettingsError, DataError, TrainingError, CheckpointError, ProcessError, FileNotFoundError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and evaluate a model; returns the exit status.

    Any model of RecBole or of this package goes. ``--any_key=value`` sets a key of the configuration:
    command line > dict > files > defaults.
    """
    parser = argparse.ArgumentParser(
        prog="run_recbole.py",
        description="Train and evaluate a model of RecBole or of this package.",
        epilog="--any_key=value sets any key of the configuration, for example --epochs=20 --n_interests=2",
    )
    parser.add_argument("--model", "-m", default="KuaiFormer", help="name of the model")
    parser.add_argument("--dataset", "-d", default="ml-100k", help="name of the dataset")
    parser.add_argument("--config_files", default=None, help="yaml files, separated by spaces")
    parser.add_argument("--nproc", type=int, default=1, help="processes on this machine")
    parser.add_argument("--ip", default="localhost", help="address of the master node")
    parser.add_argument("--port", default="5678", help="port of the master node")
    parser.add_argument("--world_size", type=int, default=-1, help="processes on all machines")
    parser.add_argument("--group_offset", type=int, default=0, help="first rank of this machine")
    args, _ = parser.parse_known_args(arguments)  # the rest is RecBole's: its Config reads sys.argv
    try:
        check_model(args.model)
        files = args.config_files.split() if args.config_files else []
        for file in files:
            _check_config_file(Path(file))
        run(
            args.model,
            args.dataset,
            config_file_list=files or None,
            nproc=args.nproc,
            world_size=args.world_size,
            ip=args.ip,
            port=args.port,
            group_offset=args.group_offset,
        )
    except USER_ERRORS as error:
        return fail(str(error))
    except URLError as error:
        return fail(
            f"{args.dataset}: not under data_path, and RecBole could not download it ({error.reason}); "
            f"put its files into <data_path>/{args.dataset}/"
        )
    except (ValueError, NotImplementedError, TypeError, RuntimeError) as error:
        if not _is_a_check_of_recboles(error):
            raise
        where = f" Set --data_path to the folder that holds {args.dataset}/."
        said = " ".join(str(error).split())
        return fail(f"{said}{where if 'known dataset name' in said else ''}")
    return 0


def _is_a_check_of_recboles(error: Exception) -> bool:
    """Whether RecBole raised it on purpose while it read the configuration or made the dataset."""
    *_, last = traceback.extract_tb(error.__traceback__)
    place, recboles = Path(last.filename), Path(recbole.__file__).parent
    rooms = ("config", "data/dataset", "data/utils.py", "utils")
    return (last.line or "").startswith("raise ") and any(
        place.is_relative_to(recboles / room) for room in rooms
    )


def check_model(name: str) -> None:
    """Refuse a model that is nowhere to be found; RecBole looks last among those that need lightgbm.

    Raises:
        SettingsError: names it, and the nearest one there is; or the library that it needs.
    """
    try:
        get_model(name)
    except (ValueError, ModuleNotFoundError, AttributeError) as error:  # the last where its case is another
        if name.lower() in ("lightgbm", "xgboost") and isinstance(error, ModuleNotFoundError):
            raise SettingsError(f"model {name}: {error}; install it") from error
        theirs = Path(recbole.__file__).parent.joinpath("properties", "model").glob("*.yaml")
        near = nearest(name, [*(file.stem for file in theirs), *MODELS])
        raise SettingsError(f"RecBole and this package have no model {name!r}{near}") from error


def _check_config_file(file: Path) -> None:
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such configuration file (--config_files)")
    try:
        keys = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise SettingsError(f"{file}: not yaml: {' '.join(str(error).split())}") from error
    if not isinstance(keys, dict):
        raise SettingsError(f"{file}: must hold keys and their values, one `key: value` a line")


def fail(message: str) -> int:
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr)
    return 2
