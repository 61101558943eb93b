"""Whether a checkpoint may be continued with a configuration, and what will differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recbole_kuaiformer import checkpoint, defaults

_MAY_DIFFER = {
    "resume_from", "epochs", "device", "gpu_id", "data_path", "checkpoint_dir", "stopping_step",
    "show_progress", "state", "config_files", "worker", "verbose", "nproc", "ip", "port", "local_rank",
    "offset", "group_offset", "evaluator", "index", "index_factory", "index_parameters", "index_spread",
    "rank_from",
}  # fmt: skip


def check_same_run(saved: dict[str, Any], mine: dict[str, Any], *, path: Path) -> Iterator[str]:
    """A line for each key whose value makes the run another than the checkpoint's.

    Args:
        saved: the checkpoint's configuration, of plain types.
        mine: that of this run.
        path: the checkpoint, for the messages.

    Raises:
        CheckpointError: it is of another model, another dataset or other files of it.
    """
    if saved["model"] != mine["model"] or saved["dataset"] != mine["dataset"]:
        raise checkpoint.CheckpointError(
            f"{path}: a checkpoint of {saved['model']} on {saved['dataset']}, "
            f"not of {mine['model']} on {mine['dataset']}"
        )
    print_of_files = checkpoint.FINGERPRINT
    if saved.get(print_of_files, mine.get(print_of_files)) != mine.get(print_of_files):
        raise checkpoint.CheckpointError(
            f"{path}: trained on other files of {mine['dataset']} (its items have other numbers); resume "
            "on the files it was trained on"
        )
    saved = defaults.completed(saved)
    for key in sorted((saved.keys() | mine.keys()) - _MAY_DIFFER - {print_of_files}):
        if saved.get(key) != mine.get(key):
            yield (
                f"{key} is {mine.get(key)!r} but was {saved.get(key)!r} in {path}: "
                "the run will not equal an uninterrupted one"
            )


@contextmanager
def fitting(path: Path, *, differing: Sequence[str]) -> Iterator[None]:
    """Within the block weights of a checkpoint are loaded; they must be of the model that there is.

    Args:
        path: the checkpoint.
        differing: lines of ``check_same_run``.

    Raises:
        CheckpointError: they are not; names what is set otherwise.
    """
    try:
        yield
    except (RuntimeError, ValueError, KeyError) as error:
        if isinstance(error, RuntimeError) and "loading state_dict" not in str(error):
            raise  # memory ran out, say
        what = "; ".join(differing) or "no setting differs"
        raise checkpoint.CheckpointError(
            f"{path}: its weights are not of this model ({what}); resume with its own settings"
        ) from error
