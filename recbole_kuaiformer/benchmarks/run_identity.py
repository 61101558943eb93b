"""What decides the outcome of a run, and a name made of it: equal names are one run, made once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_kuaiformer import plugin

# Keys that say where and how loudly a run happens, not what comes out.
_NOT_OF_A_RUN = {
    "seed", "device", "gpu_id", "use_gpu", "data_path", "checkpoint_dir", "show_progress", "state", "verbose",
    "config_files", "config_file", "resume_from", "local_rank", "worker", "log_wandb", "nproc", "ip", "port",
    "index", "save_dataset", "save_dataloaders",
}  # fmt: skip
# What a time budget means: 1, no epoch begins after it; 2, the schedule falls over the epochs that fit it
# as well, and the last one is validated.
BUDGET_RULES = 2
# Keys that came when there were results already, and the values at which a run is what it was without them.
_LATER_KEYS = {
    "interest_separation": 0.0, "compression_end": "oldest", "query_initializer_range": None,
    "request_gap": None, "attribute_fusion": "mlp", "mask_history": False,
    "n_interests": None,
}  # fmt: skip
# Idle where there are no queries, or no attributes.
_OF_QUERIES = ("query_init", "query_initializer_range")
_OF_ATTRIBUTES = ("attribute_fusion", "target_attributes")
_DATA_FILES = (".inter", ".item", ".user", ".kg", ".link", ".net")


def decisive(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Of all settings of a configuration those that decide what comes out."""
    return {key: value for key, value in resolved.items() if key not in _NOT_OF_A_RUN}


def identity(model: str, settings: Mapping[str, Any], *, bounds: Mapping[str, Any], data: Path) -> str:
    """Twelve hexadecimal digits, the same for two runs that can differ in nothing.

    Args:
        model: of RecBole or of this package.
        settings: those that decide.
        bounds: ``seed``, and ``time_budget`` in seconds or None.
        data: folder of the dataset's files, whose contents count.
    """
    held = {**_telling(model, settings), **bounds, "files": _digest(data)}
    if bounds["time_budget"] is not None:
        held["rules"] = BUDGET_RULES
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()[:12]


def _telling(model: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide an outcome: not those that came later and say nothing, nor idle ones."""
    told = {key: value for key, value in settings.items() if (key, value) not in _LATER_KEYS.items()}
    # To RecBole's models attributes are idle, though a dataset's file has them.
    is_ours = model in plugin.MODELS
    idle = [*_OF_QUERIES] if settings.get("n_interests", 0) is None else []
    idle += [*_OF_ATTRIBUTES] if not is_ours or settings.get("attributes") == {} else []
    told = {key: value for key, value in told.items() if key not in idle}
    if is_ours and "target_attributes" in idle:
        told["target_attributes"] = False  # as it was when there were only such runs
    return told


def _digest(folder: Path) -> str:
    """SHA-256 of the dataset's files, in order of their names; of nothing where there are none yet."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*")):
        if file.suffix in _DATA_FILES:
            digest.update(file.name.encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()
