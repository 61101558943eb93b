"""The measured cases do the same work, and what would not fit is not begun."""

import pandas as pd
import pytest

from recbole_kuaiformer.benchmarks.dataset_cases import generated_log, ready_dataset
from tests import worlds

SIZE = {"n_rows": 3000, "n_users": 70, "n_items": 90}


@pytest.fixture
def case(tmp_path, monkeypatch):
    worlds.at_home(monkeypatch, tmp_path)
    return {"dataset": generated_log(tmp_path, **SIZE, seed=3), "data_path": str(tmp_path), "length": 9}


def test_every_source_makes_the_same_rows_ready(case):
    results = [ready_dataset({**case, "source": source})[0] for source in ("table", "log", "ours")]
    assert len({result["rows"] for result in results}) == 1
    for result in results:
        assert result["seconds"] == pytest.approx(result["read_seconds"] + result["build_seconds"])


def test_a_table_that_would_not_fit_is_not_begun(case):
    (result,) = ready_dataset({**case, "source": "table", "length": 10**9})
    assert "GiB" in result["stopped"]
    assert "seconds" not in result


def test_a_generated_log_is_in_order_of_time_and_its_first_items_are_far_more_popular(tmp_path):
    logs = []
    for folder, seed in (("a", 3), ("b", 3), ("c", 4)):
        name = generated_log(tmp_path / folder, **SIZE, seed=seed)
        logs.append(pd.read_csv(tmp_path / folder / name / f"{name}.inter", sep="\t"))
    assert logs[0].equals(logs[1])
    assert not logs[0].equals(logs[2])
    assert logs[0]["timestamp:float"].is_monotonic_increasing
    counts = logs[0]["item_id:token"].value_counts()
    assert len(logs[0]) == SIZE["n_rows"]
    assert len(counts) == SIZE["n_items"]
    assert counts.iloc[0] > 4 * counts.iloc[-1]
