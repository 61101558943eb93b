"""What RecBole 1.2.0 and 1.2.1 need on today's torch, numpy, pandas and scipy: one function per defect.

Each function is named after the defect, says symptom and cause, and acts only where the defect is there.
"""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import sys
import types
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from importlib import metadata
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

SUPPORTED = ("1.2.0", "1.2.1")

after_load: list[Callable[[Any], Any]] = []
"""Each is applied to what RecBole has loaded with torch.load."""


def apply() -> None:
    """Mend RecBole, once; must come before ``recbole.quick_start`` is used.

    Raises:
        ImportError: RecBole is not installed, or in a version that this package does not know.
    """
    check_version()
    outdated_calls_warn()
    numpy_aliases()
    kmeans_is_not_installed()
    anomaly_detection_left_on()
    ray_does_not_import()
    torch_load_refuses_configs()
    pandas_agg_len()
    pandas_fillna_inplace()
    scipy_dok_update()
    collector_cpu_of_int()
    hyperopt_random_state()
    download_barrier()
    nccl_on_cpu()
    directories_race()
    float32_time_order()


def check_version() -> None:
    """Refuse a RecBole whose inside may have changed."""
    try:
        found = metadata.version("recbole")
    except metadata.PackageNotFoundError as error:
        raise ImportError("recbole is not installed: pip install 'recbole>=1.2.0,<1.3'") from error
    if found not in SUPPORTED:
        raise ImportError(
            f"recbole {found} is installed, but this package knows {' and '.join(SUPPORTED)}: "
            "pip install 'recbole>=1.2.0,<1.3'"
        )


def outdated_calls_warn() -> None:
    """Pages of warnings about RecBole's own lines, which its users can do nothing about."""
    warnings.filterwarnings("ignore", module=r"recbole\.")
    warnings.filterwarnings("ignore", message=r".*non-writable.*", category=UserWarning)


def numpy_aliases() -> None:
    """AttributeError for np.float_, np.bool, …: numpy 1.24 and 2 dropped the names RecBole uses."""
    aliases = {
        "float_": np.float64, "complex_": np.complex128, "unicode_": np.str_, "object_": np.object_,
        "bool": np.bool_, "int": np.int_, "float": np.float64, "complex": np.complex128,
        "object": np.object_, "str": np.str_, "unicode": np.str_, "long": np.int_,
    }  # fmt: skip
    for name, value in aliases.items():
        if name not in np.__dict__:  # hasattr would warn about each
            setattr(np, name, value)


def kmeans_is_not_installed() -> None:
    """No general model imports under RecBole 1.2.0: LDiffRec wants a kmeans_pytorch it does not name.

    LDiffRec alone then asks for it, when it is used.
    """
    if importlib.util.find_spec("kmeans_pytorch") is not None:
        return
    stand_in = types.ModuleType("kmeans_pytorch")
    stand_in.kmeans = _kmeans_is_missing  # type: ignore[attr-defined]
    sys.modules["kmeans_pytorch"] = stand_in
    try:
        importlib.import_module("recbole.model.general_recommender")
    finally:
        del sys.modules["kmeans_pytorch"]


def _kmeans_is_missing(*_: Any, **__: Any) -> None:
    raise ImportError("LDiffRec needs kmeans_pytorch: pip install kmeans-pytorch")


def ray_does_not_import() -> None:
    """``import recbole.quick_start`` raises: it wants ray's tune.report, and ray is old, broken or not there.

    Under a newer ray tune.report takes a dict, where RecBole gives keywords.
    """
    if "recbole.quick_start.quick_start" in sys.modules:
        quick_start = sys.modules["recbole.quick_start.quick_start"]
    else:
        stand_in = _ray_stand_in()
        before = {name: sys.modules.get(name) for name in stand_in}
        sys.modules.update(stand_in)
        try:
            quick_start = importlib.import_module("recbole.quick_start.quick_start")
        finally:
            for name, module in before.items():
                if module is None:
                    sys.modules.pop(name, None)
                else:
                    sys.modules[name] = module
    quick_start.tune = types.SimpleNamespace(report=_report_to_ray)  # type: ignore[attr-defined]
    quick_start.run_recboles = run_recboles  # type: ignore[attr-defined]


def _ray_stand_in() -> dict[str, types.ModuleType]:
    ray, tune = types.ModuleType("ray"), types.ModuleType("ray.tune")
    ray.tune = tune  # type: ignore[attr-defined]
    tune.report = _report_to_ray  # type: ignore[attr-defined]
    return {"ray": ray, "ray.tune": tune}


def _report_to_ray(**metrics: Any) -> None:
    """Report to Ray Tune where it is running the trial; elsewhere there is nobody to tell."""
    tune = sys.modules.get("ray.tune")
    if tune is None or not hasattr(tune, "report"):
        return
    try:
        tune.report(metrics)
    except TypeError:  # ray < 2.7
        tune.report(**metrics)


def run_recboles(rank: int, *args: Any) -> None:
    """RecBole's spawn target, in this package: a spawned process unpickles it and so imports the plugin."""
    *positional, kwargs = args
    config_dict = {**(kwargs.get("config_dict") or {}), "local_rank": rank}
    quick_start = importlib.import_module("recbole.quick_start.quick_start")
    quick_start.run_recbole(*positional[:3], **{**kwargs, "config_dict": config_dict})


def torch_load_refuses_configs() -> None:
    """UnpicklingError from RecBole's own torch.load: since torch 2.6 it loads tensors and plain types alone.

    RecBole's checkpoints hold its pickled Config. Calls out of RecBole's modules try the safe loader and,
    where that refuses, unpickle: the file is one the user named, or that RecBole wrote in this run.
    Calls out of any other code are left as they are. What a GPU wrote loads on a machine without one.
    """
    if hasattr(torch.load, "_for_recbole"):
        return
    original = torch.load

    @wraps(original)
    def load(f: Any, *args: Any, **kwargs: Any) -> Any:
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if not caller.startswith("recbole.") or "weights_only" in kwargs:
            return original(f, *args, **kwargs)
        on_cpu = not args and not torch.cuda.is_available()
        kwargs |= {"map_location": "cpu"} if on_cpu else {}
        loaded = _load_for_recbole(original, f, *args, **kwargs)
        if on_cpu and isinstance(loaded, dict) and hasattr(loaded.get("config"), "final_config_dict"):
            loaded["config"]["device"] = torch.device("cpu")
        for change in after_load:
            loaded = change(loaded)
        return loaded

    load._for_recbole = True  # type: ignore[attr-defined]
    torch.load = load


def _load_for_recbole(original: Callable[..., Any], f: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        try:
            with warnings.catch_warnings():  # of pickle protocol 4, which RecBole writes
                warnings.simplefilter("ignore")
                return original(f, *args, weights_only=True, **kwargs)
        except pickle.UnpicklingError:
            return original(f, *args, weights_only=False, **kwargs)
    except OSError:
        raise
    except Exception as error:  # a text taken for a pickle raises anything: KeyError, struct.error …
        reason = str(error).partition("\n")[0][:200]
        raise ValueError(
            f"{f}: not a readable checkpoint (cut off, corrupt, or no checkpoint at all); "
            f"train again or name another file ({type(error).__name__}: {reason})"
        ) from error


def pandas_agg_len() -> None:
    """Error "Length of values (1) does not match": in pandas 3 Series.agg(len) is the length of the series.

    RecBole's modules get a ``len`` of their own, which maps over a series of lists.
    """
    if not isinstance(pd.Series([[1], [2]]).agg(len), pd.Series):
        for name in ("dataset", "kg_dataset", "sequential_dataset"):
            module = importlib.import_module(f"recbole.data.dataset.{name}")
            module.len = _len  # type: ignore[attr-defined]


def _len(value: Any) -> Any:
    if isinstance(value, pd.Series) and value.dtype == object:
        return value.map(len)
    return len(value)


class _Overlay(types.ModuleType):
    """A module with some names replaced, for one module that imports it under its own name."""

    def __init__(self, module: Any, **replaced: Any) -> None:
        super().__init__(module.__name__)
        self.__dict__.update(replaced)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def pandas_fillna_inplace() -> None:
    """NaN kept in silence, or "'float' has no 'split'": copy-on-write undoes frame[column].fillna(inplace).

    Missing values are filled by assignment before RecBole's own lines see them. Files are read by pandas'
    C parser where they hold no quote: the Python parser RecBole asks for is 12 times slower.
    """
    module: Any = importlib.import_module("recbole.data.dataset.dataset")
    if isinstance(module.pd, _Overlay):
        return
    module.pd = _Overlay(pd, read_csv=read_csv)
    original = module.Dataset._fill_nan

    @wraps(original)
    def fill_nan(self: Any) -> None:
        for feat_name in self.feat_name_list:
            feat = getattr(self, feat_name)
            for field in feat:
                kind = self.field2type[field].value
                if kind == "token":
                    feat[field] = feat[field].fillna(0)
                elif kind == "float":
                    feat[field] = feat[field].fillna(feat[field].mean())
        original(self)

    module.Dataset._fill_nan = fill_nan


def read_csv(filepath: Any, *, delimiter: str, engine: Any, **kwargs: Any) -> Any:
    """Read a table as RecBole asks pandas to: a file with stray quotes is refused and not misread."""
    kwargs.update(delimiter=delimiter, index_col=False)  # a separator at the end of each line makes no index
    frame = None
    if not _parsers_disagree(Path(filepath)):
        # Raises for longer separators, and where the Python parser reads a few things more (1_000) or
        # refuses in its own words. float_precision: to the last bit, as the Python parser of pandas 3. In
        # one go (low_memory) each token is one object, however often it stands there: less memory, not more.
        with suppress(ValueError):
            frame = pd.read_csv(
                filepath, engine="c", float_precision="round_trip", low_memory=False, **kwargs
            )
    if frame is None:
        frame = pd.read_csv(filepath, engine=engine, **kwargs)
    for column in frame:
        if str(column).endswith("_seq"):
            frame[column] = frame[column].fillna("")
        elif frame[column].dtype != object and str(column).endswith(":token"):
            frame[column] = frame[column].astype(object)  # pandas 3 reads str as its own string type
    return frame


def _parsers_disagree(file: Path) -> bool:
    """Whether the file holds a quote or a bare carriage return.

    After a stray quote the C parser swallows rows in silence, where the Python parser refuses.
    """
    with file.open("rb") as blocks:
        while block := blocks.read(2**20):
            if block.endswith(b"\r"):
                block += blocks.read(1)
            if b'"' in block or block.count(b"\r") != block.count(b"\r\n"):
                return True
    return False


def scipy_dok_update() -> None:
    """AttributeError in LightGCN, NGCF, NCL, GCMC: scipy's dok_matrix lost ``_update``."""
    from scipy.sparse import dok_matrix

    if not hasattr(dok_matrix, "_update"):
        dok_matrix._update = lambda self, data: self._dict.update(data)


def collector_cpu_of_int() -> None:
    """Error "'int' has no attribute 'cpu'" with ItemCoverage, GiniIndex …: only tensors have one."""
    module = importlib.import_module("recbole.evaluator.collector")
    original = module.Collector.get_data_struct
    if hasattr(original, "__wrapped__"):
        return

    @wraps(original)
    def get_data_struct(self: Any) -> Any:
        values = self.data_struct._data_dict
        apart = {name: values.pop(name) for name in [*values] if not isinstance(values[name], torch.Tensor)}
        struct = original(self)
        values.update(apart)
        struct._data_dict.update(apart)
        return struct

    module.Collector.get_data_struct = get_data_struct


def hyperopt_random_state() -> None:
    """Error "'RandomState' has no attribute 'integers'": hyperopt ≥ 0.2.7 wants numpy's Generator."""
    module: Any = importlib.import_module("recbole.trainer.hyper_tuning")
    if not isinstance(module.np, _Overlay):
        module.np = _Overlay(np, random=_Overlay(np.random, RandomState=np.random.default_rng))


def anomaly_detection_left_on() -> None:
    """Everything is slow after importing the sequential models: sine.py turns on anomaly detection."""
    before = torch.is_anomaly_enabled()
    importlib.import_module("recbole.model.sequential_recommender")
    torch.autograd.set_detect_anomaly(before)


def download_barrier() -> None:
    """A download that succeeded ends in an error: RecBole waits for other processes where there are none."""
    module = importlib.import_module("recbole.data.dataset.dataset")
    original = module.Dataset._download
    if hasattr(original, "__wrapped__"):
        return

    @wraps(original)
    def download(self: Any) -> None:
        try:
            original(self)
        except ValueError as error:
            downloaded = Path(self.dataset_path, f"{self.dataset_name}.inter").is_file()
            if not downloaded or torch.distributed.is_initialized():
                raise
            getLogger().debug(f"no process group to wait for: {error}")

    module.Dataset._download = download


def nccl_on_cpu() -> None:
    """Several processes need CUDA: RecBole hard-codes nccl. Without CUDA gloo does it."""
    configurator = importlib.import_module("recbole.config.configurator")
    trainer = importlib.import_module("recbole.trainer.trainer")
    original = configurator.Config._init_device
    if hasattr(original, "__wrapped__"):
        return

    @wraps(original)
    def init_device(self: Any) -> None:
        final = self.final_config_dict
        if "local_rank" not in final or (torch.cuda.is_available() and final["use_gpu"]):
            original(self)
            return
        torch.distributed.init_process_group(
            backend="gloo",
            rank=final["local_rank"] + final["offset"],
            world_size=final["world_size"],
            init_method=f"tcp://{final['ip']}:{final['port']}",
        )
        final.update(gpu_id="", device=torch.device("cpu"), single_spec=False)
        if final["local_rank"] != 0:
            final.update(state="error", show_progress=False, verbose=False)

    def data_parallel(module: torch.nn.Module, device_ids: Any = None) -> Any:
        on_cpu = all(parameter.device.type == "cpu" for parameter in module.parameters())
        return torch.nn.parallel.DistributedDataParallel(module, device_ids=None if on_cpu else device_ids)

    configurator.Config._init_device = init_device
    trainer.DistributedDataParallel = data_parallel  # type: ignore[attr-defined]
    _wait_for_rank_0(trainer.Trainer)


def _wait_for_rank_0(trainer: Any) -> None:
    """Ranks load the best checkpoint while rank 0 still writes it: wait, and use rank 0's file name."""
    original = trainer.evaluate

    @wraps(original)
    def evaluate(
        self: Any,
        eval_data: Any,
        load_best_model: bool = True,
        model_file: Any = None,
        show_progress: bool = False,
    ) -> Any:
        if not self.config["single_spec"] and load_best_model:
            name = [model_file or self.saved_model_file]
            torch.distributed.broadcast_object_list(name, src=0)
            (model_file,) = name
        return original(
            self,
            eval_data,
            load_best_model=load_best_model,
            model_file=model_file,
            show_progress=show_progress,
        )

    trainer.evaluate = evaluate


def directories_race() -> None:
    """FileExistsError with several processes: each looks for ./log before any of them makes it."""
    for name, module in [*sys.modules.items()]:
        if name.startswith("recbole.") and callable(getattr(module, "ensure_dir", None)):
            module.ensure_dir = _ensure_dir  # type: ignore[attr-defined]


def _ensure_dir(dir_path: str) -> None:
    Path(dir_path).mkdir(parents=True, exist_ok=True)


def float32_time_order() -> None:
    """Interactions out of order: timestamps become float32 (64 s apart at today's times) before the sort.

    They are sorted stably by (user, time) in 64 bits beforehand; RecBole's own sorts are stable and leave
    that order as it is.
    """
    module = importlib.import_module("recbole.data.dataset.sequential_dataset")
    original = module.SequentialDataset._change_feat_format
    if hasattr(original, "__wrapped__"):
        return

    @wraps(original)
    def change_feat_format(self: Any) -> None:
        feat = self.inter_feat
        in_order = isinstance(feat, pd.DataFrame) and self.config["benchmark_filename"] is None
        if in_order and self.time_field in feat and self.uid_field in feat:
            users, times = feat[self.uid_field].to_numpy(), feat[self.time_field].to_numpy(np.float64)
            order = np.lexsort((times, users))
            notice_other_order(self, users=users, times=times, order=order)
            self.inter_feat = feat.iloc[order].reset_index(drop=True)
        original(self)

    module.SequentialDataset._change_feat_format = change_feat_format


def notice_other_order(dataset: Any, *, users: Any, times: Any, order: Any) -> None:
    """Log once, in one line, how many users' last interaction is another one in RecBole's own order."""
    users, rounded = users[order], times[order].astype(np.float32)
    goes_on = users[1:] == users[:-1]
    tied = np.r_[False, goes_on & (rounded[1:] == rounded[:-1])]  # with the row before
    stretch = np.cumsum(~tied)  # of rows that float32 cannot tell apart: there they stay as in the file
    is_moved = np.zeros(stretch[-1] + 1 if len(stretch) else 1, dtype=bool)
    is_moved[stretch[1:][tied[1:] & (order[1:] < order[:-1])]] = True
    places = np.flatnonzero(is_moved[stretch])
    theirs = order[places][np.lexsort((order[places], stretch[places]))]
    differs = theirs != order[places]
    moved = int(differs.sum())
    if not moved:
        return
    is_last = np.r_[~goes_on, True]
    n_users = int(is_last.sum())
    changed = int(is_last[places][differs].sum())
    dataset.logger.info(
        f"{dataset.dataset_name}: sorted by time in 64 bits; RecBole's float32 order would move {moved} of "
        f"{len(order)} interactions and give {changed} of {n_users} users another last item"
    )
