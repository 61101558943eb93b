"""properties/: every key of a Settings class is given, commented, and read by somebody."""

import re

import pytest
import yaml
from recbole.utils import get_model

from recbole_kuaiformer import config, defaults
from recbole_kuaiformer.defaults import properties_folder
from recbole_kuaiformer.evaluation.settings import EvaluationSettings
from recbole_kuaiformer.plugin import MODELS

RECBOLE_KEYS = {
    "load_col", "train_neg_sample_args", "eval_batch_size", "topk", "metrics", "valid_metric",
    "stopping_step", "eval_step",
    "MAX_ITEM_LIST_LENGTH", "train_batch_size", "normalize_all", "learning_rate", "epochs", "weight_decay",
    "eval_args", "metric_decimal_place",
}  # fmt: skip
COMMON = (
    config.WindowSettings, config.AttributeSettings, config.ObjectiveSettings, config.TrainingSettings,
    EvaluationSettings, config.DataSettings,
)  # fmt: skip
SHAPES = {model: get_model(model).settings for model in MODELS}
OURS = {key for group in (*COMMON, *SHAPES.values()) for key in group.keys()} | {"extra_keys"}  # noqa: SIM118
# Spaces to search and experiments hold other things: tests/benchmarks/test_search.py, test_experiments.py.
# What a search has found is below.
FILES = sorted(
    file
    for file in properties_folder().rglob("*.yaml")
    if not {"search", "experiments", "tuned"} & {*file.relative_to(properties_folder()).parts}
)
TUNED = sorted(properties_folder().joinpath("tuned").glob("*/*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_key_is_known_and_commented(file):
    text = file.read_text()
    for key in yaml.safe_load(text):
        assert key in OURS | RECBOLE_KEYS, key
        assert re.search(rf"^{key}:.*#", text, re.MULTILINE), f"{key} has no comment"


@pytest.mark.parametrize("file", TUNED, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_searched_settings_are_of_the_models_space_and_say_where_they_come_from(file):
    text = file.read_text()
    assert re.match(
        rf"# Best of \d+ trials of {file.stem} on {file.parent.name}, seed \d+: trial \d+, [\d.]+ on the "
        r"validation split\.",
        text,
    )
    space = yaml.safe_load((properties_folder() / "search" / f"{file.stem}.yaml").read_text())
    assert set(yaml.safe_load(text)) <= set(space)


@pytest.mark.parametrize("model", sorted(MODELS))
def test_overall_and_model_together_give_every_key(model):
    folder = properties_folder()
    given = set()
    for file in (
        folder / "data.yaml",
        folder / "evaluation.yaml",
        folder / "overall.yaml",
        folder / "model" / f"{model}.yaml",
    ):
        given |= set(yaml.safe_load(file.read_text()))
    needed = {key for group in (*COMMON, SHAPES[model]) for key in group.keys()}  # noqa: SIM118
    assert given >= needed | {"extra_keys"}
    assert given <= needed | {"extra_keys"} | RECBOLE_KEYS  # no key that the model does not read


def test_saved_keys_are_completed_as_they_were_before_there_was_a_choice():
    saved = {"model": "KuaiFormer", "compression_groups": [80, 16], "n_layers": 7}
    keys = defaults.completed(saved)
    assert (keys["n_layers"], keys["compression_block"], keys["precision"]) == (7, 80, "float32")
    assert keys["initializer_range"] is None
    assert defaults.completed({**saved, "initializer_range": 0.5})["initializer_range"] == 0.5
    assert defaults.completed({**saved, "compression_block": 8})["compression_block"] == 8
    assert defaults.completed({"model": "SASRec"}).keys() == defaults.of_every_model().keys() | {"model"}
