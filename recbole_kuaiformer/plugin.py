"""The one place that writes into RecBole: models, trainer, dataset class, dataloader, properties.

Nothing is replaced that another model needs: each wrapper asks first whether the model is one of ours.
"""

from __future__ import annotations

import importlib
import sys
from functools import wraps
from pathlib import Path
from typing import Any

import recbole.config
import recbole.data.dataset
import recbole.data.utils
import recbole.quick_start
import recbole.trainer
from recbole.config import Config
from recbole.data.dataloader import NegSampleEvalDataLoader
from recbole.data.dataset import Dataset, SequentialDataset
from recbole.trainer import Trainer
from recbole.utils import ModelType
from recbole.utils.argument_list import dataset_arguments

from recbole_kuaiformer import compat, defaults, spawning
from recbole_kuaiformer.checkpoint import with_recbole_config
from recbole_kuaiformer.config import DataSettings
from recbole_kuaiformer.data.dataset import RetrievalDataset, SampledEvaluationDataLoader, WindowDataLoader
from recbole_kuaiformer.data.history import with_log
from recbole_kuaiformer.data.item_floats import noting_floats
from recbole_kuaiformer.data.sequences import check_model, choose_class
from recbole_kuaiformer.evaluation.ranking import IndexRanking
from recbole_kuaiformer.evaluation.settings import EvaluationSettings
from recbole_kuaiformer.evaluation.trainer import RetrievalTrainer
from recbole_kuaiformer.settings import check_known_keys
from recbole_kuaiformer.value_checks import check_valid_metric, check_values

MODELS = {
    "KuaiFormer": "recbole_kuaiformer.models.kuaiformer",
    "ComiRecSA": "recbole_kuaiformer.models.comirec_sa",
    "ComiRecDR": "recbole_kuaiformer.models.comirec_dr",
    "MIND": "recbole_kuaiformer.models.mind",
    "SASRecPlus": "recbole_kuaiformer.models.sasrec_plus",
    "HSTU": "recbole_kuaiformer.models.hstu",
    "PinnerFormer": "recbole_kuaiformer.models.pinnerformer",
}

# Keys of ours that decide what a dataset holds.
_KEPT_WITH_DATASET = ("sequences", "attributes", "use_times", "request_gap")

# Keys that RecBole reads but lists in none of its yaml files.
_UNLISTED_KEYS = (
    "model", "dataset", "config_file", "config_files", "local_rank", "nproc", "world_size", "ip", "port",
    "offset", "group_offset", "single_spec", "device", "verbose", "eval_type", "MODEL_TYPE",
    "MODEL_INPUT_TYPE",
    "neg_sampling", "training_neg_sample_num", "entity_kg_num_interval", "relation_kg_num_interval",
    "reg_weight", "wandb_project", "loss_type", "valid", "test", "benchmark_filename",
    "model_list", "valid_latex", "test_latex",  # flags of its run_recbole_group.py
)  # fmt: skip


def register() -> None:
    """Make the models of this package RecBole's own; idempotent.

    RecBole finds a model by ``find_spec`` on a module name, a trainer and a dataset class by name: entries
    under those names are all that is needed, and every imported copy of RecBole's functions sees them.
    """
    if getattr(Config, "_recbole_kuaiformer", False):
        return
    _mix_into_trainers()
    for name, module in MODELS.items():
        sys.modules[f"recbole.model.sequential_recommender.{name.lower()}"] = importlib.import_module(module)
        setattr(recbole.trainer, f"{name}Trainer", RetrievalTrainer)
        setattr(recbole.data.dataset, f"{name}Dataset", RetrievalDataset)
    Config._load_internal_config_dict = _with_our_properties(Config._load_internal_config_dict)
    Config.__init__ = _with_checks(Config.__init__)
    recbole.data.utils.get_dataloader = _with_our_dataloaders(recbole.data.utils.get_dataloader)
    recbole.quick_start.run = recbole.quick_start.quick_start.run = spawning.run
    Dataset._fill_nan = noting_floats(Dataset._fill_nan)
    SequentialDataset.data_augmentation = with_log(SequentialDataset.data_augmentation)
    SequentialDataset.__new__ = choose_class
    # A saved dataset is taken again only if it keeps the same things in the same way.
    dataset_arguments.extend(_KEPT_WITH_DATASET)
    compat.after_load += [with_recbole_config, _with_later_keys]
    Config._recbole_kuaiformer = True


def _mix_into_trainers() -> None:
    """RecBole looks trainers up by name in recbole.trainer: each of them, ranking by an index where asked."""
    for name, trainer in [*vars(recbole.trainer).items()]:
        if isinstance(trainer, type) and issubclass(trainer, Trainer):
            setattr(recbole.trainer, name, type(name, (IndexRanking, trainer), {"__doc__": trainer.__doc__}))


def _with_later_keys(state: Any) -> Any:
    """Checkpoints written without this package, or by an earlier version, lack keys: defaults stand in."""
    config = state.get("config") if isinstance(state, dict) else None
    if isinstance(config, Config):
        config.final_config_dict.update(defaults.completed(config.final_config_dict))
    return state


def _with_our_properties(load: Any) -> Any:
    @wraps(load)
    def load_internal_config_dict(self: Config, model: str, model_class: Any, dataset: str) -> None:
        load(self, model, model_class, dataset)
        check_values(self.external_config_dict, defaults=self.internal_config_dict)
        self._recbole_keys = set(self.internal_config_dict)
        dataset_keys = defaults.read("dataset", dataset)
        self.internal_config_dict.update(defaults.of_every_model())
        if model in MODELS:
            ours = defaults.of_model(model) | dataset_keys
            self.internal_config_dict.update(ours)
            _check_valid_metric(self)
            self.parameters["Our"] = [key for key in ours if key not in _listed(self)]
            return
        if not _has_properties_of_its_own(dataset):
            # RecBole's own models get from our dataset files what RecBole itself calls a dataset argument.
            legal = {*self.parameters["Dataset"]} - {*_KEPT_WITH_DATASET}
            self.internal_config_dict.update({k: v for k, v in dataset_keys.items() if k in legal})
        _drop_negatives_that_ce_forbids(self)

    return load_internal_config_dict


def _check_valid_metric(config: Config) -> None:
    """That of this package's models, before anything is read; RecBole's are checked where they train."""
    given = {**config.internal_config_dict, **config.external_config_dict}
    check_valid_metric(given["valid_metric"], metrics=given["metrics"])


def _listed(config: Config) -> set[str]:
    return {key for keys in config.parameters.values() for key in keys}


def _has_properties_of_its_own(dataset: str) -> bool:
    return (
        Path(recbole.config.__file__).parent.parent / "properties" / "dataset" / f"{dataset}.yaml"
    ).is_file()


def _drop_negatives_that_ce_forbids(config: Config) -> None:
    """A sequential model with loss_type CE takes no sampled negatives; RecBole's default asks for them."""
    given = {**config.internal_config_dict, **config.external_config_dict}
    is_sequential = config.internal_config_dict["MODEL_TYPE"] == ModelType.SEQUENTIAL
    if is_sequential and given.get("loss_type") == "CE":
        config.internal_config_dict["train_neg_sample_args"] = None


def _with_checks(init: Any) -> Any:
    @wraps(init)
    def checked_init(self: Config, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        EvaluationSettings.read(self)
        on_log = DataSettings.read(self).sequences == "log"
        if self.model not in MODELS:
            if on_log:
                check_model(self)
            return
        recbole_keys = self._recbole_keys | _listed(self) | {*_UNLISTED_KEYS}
        ours = set(self.internal_config_dict) - recbole_keys | set(self.parameters["Our"])
        given = set(self.external_config_dict) - set(self["extra_keys"] or ())
        check_known_keys(sorted(given), ours=ours, known=recbole_keys)
        self.model_class.check(self)

    return checked_init


def _with_our_dataloaders(get_dataloader: Any) -> Any:
    @wraps(get_dataloader)
    def get_dataloader_of_model(config: Config, phase: str) -> Any:
        if phase == "train" and config["model"] in MODELS:
            return WindowDataLoader
        loader = get_dataloader(config, phase)
        is_sampled = loader is NegSampleEvalDataLoader and config["model"] in MODELS
        return SampledEvaluationDataLoader if is_sampled else loader

    return get_dataloader_of_model
