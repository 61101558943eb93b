"""A run of several processes on this machine: process 0's result, or the first error of any of them."""

from __future__ import annotations

import importlib
import pickle
import socket
from contextlib import suppress
from typing import Any

import torch.multiprocessing as mp
from torch.multiprocessing.spawn import ProcessException, ProcessExitedException, spawn

from recbole_kuaiformer.compat import run_recboles

_LARGEST_ERROR = 4096  # bytes: a pipe takes 64 KiB before it blocks the writer


class ProcessError(RuntimeError):
    """Processes could not be started, or one ended without a word; the message says which and how."""


def run(  # noqa: PLR0913 (RecBole's signature)
    model: str,
    dataset: str,
    config_file_list: list[str] | None = None,
    config_dict: dict[str, Any] | None = None,
    saved: bool = True,
    nproc: int = 1,
    world_size: int = -1,
    ip: str = "localhost",
    port: str = "5678",
    group_offset: int = 0,
) -> Any:
    """RecBole's ``run``; an error of one of several processes is raised here, as it was raised there.

    RecBole's own ends in the traceback of whichever process died first, which may be one that lost its
    connection because another had failed.

    Raises:
        ProcessError: a process was killed; or nproc or port cannot be used.
    """
    if nproc < 1:
        raise ProcessError(f"nproc: must be at least 1, got {nproc}")
    if nproc == 1 and world_size <= 0:
        quick_start: Any = importlib.import_module("recbole.quick_start.quick_start")
        return quick_start.run_recbole(model, dataset, config_file_list, config_dict, saved)
    if world_size in (-1, nproc) and not _is_free(port):
        raise ProcessError(
            f"port: {port} is taken on this machine, by another training perhaps; give another"
        )
    place = {
        "world_size": nproc if world_size == -1 else world_size,
        "nproc": nproc,
        "ip": ip,
        "port": port,
        "offset": group_offset,
    }
    options = {"config_dict": {**(config_dict or {}), **place}, "saved": saved}
    return _spawn(nproc, arguments=(model, dataset, config_file_list), options=options)


def _is_free(port: str) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", int(port)))
        except OSError:
            return False
    return True


def _spawn(n: int, *, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    context = mp.get_context("spawn")
    results, errors = context.SimpleQueue(), context.SimpleQueue()
    try:
        spawn(_process, args=(errors, *arguments, {**options, "queue": results}), nprocs=n)
    except ProcessException as error:
        if not errors.empty():
            raise errors.get() from error
        if isinstance(error, ProcessExitedException):
            raise ProcessError(f"several processes (nproc): {error}; memory may have run out") from error
        raise
    return None if results.empty() else results.get()


def _process(rank: int, errors: Any, *arguments: Any) -> None:
    try:
        run_recboles(rank, *arguments)
    except Exception as error:
        # The first to arrive is the cause; the others have lost their connection to it.
        with suppress(Exception):
            pickled = pickle.dumps(error)
            pickle.loads(pickled)
            if len(pickled) <= _LARGEST_ERROR:
                errors.put(error)
        raise
