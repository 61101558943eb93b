"""From the command line to a result: the same flags and precedence as RecBole's own script."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from recbole.quick_start import objective_function, run

from recbole_kuaiformer.config import SettingsError
from recbole_kuaiformer.data.dataset import DataError
from recbole_kuaiformer.evaluation.trainer import TrainingError

__all__ = ["main", "objective_function", "run"]

USER_ERRORS = (SettingsError, DataError, TrainingError, FileNotFoundError)


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
        run(
            args.model,
            args.dataset,
            config_file_list=args.config_files.split() if args.config_files else None,
            nproc=args.nproc,
            world_size=args.world_size,
            ip=args.ip,
            port=args.port,
            group_offset=args.group_offset,
        )
    except USER_ERRORS as error:
        return _fail(error)
    except ValueError as error:
        if _is_users_fault(error):
            return _fail(error)
        raise
    return 0


def _is_users_fault(error: ValueError) -> bool:
    """Whether RecBole itself raised it about a name or a path, rather than a bug somewhere below."""
    text = str(error)
    return "known dataset name" in text or "name of an existing model" in text


def _fail(error: Exception) -> int:
    sys.stdout.flush()
    print(f"error: {error}", file=sys.stderr)
    return 2
