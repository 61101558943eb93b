"""Metrics by length of history: against plain loops, and from the files of a comparison."""

import json
import random

import numpy as np
import pytest

from recbole_kuaiformer.benchmarks import by_length
from recbole_kuaiformer.benchmarks.comparison_settings import Request, case
from recbole_kuaiformer.benchmarks.user_ranks import UserRanks
from recbole_kuaiformer.settings import SettingsError

N_USERS = 60


def ranks(seed):
    generator = random.Random(seed)
    users = [f"u{i}" for i in range(N_USERS)]
    generator.shuffle(users)
    drawn = {name: [generator.randint(1, 20) for _ in users] for name in ("kept", "masked")}
    return UserRanks(
        np.array(users),
        np.array([f"i{user}" for user in users]),
        {name: np.array(some, dtype=np.int64) for name, some in drawn.items()},
    )


def some_lengths(seed=9):
    generator = random.Random(seed)
    return {f"u{i}": generator.randint(0, 12) for i in range(N_USERS)}


@pytest.mark.parametrize("history", ["kept", "masked"])
def test_bins_are_means_over_their_users_and_the_seeds(history):
    runs, lengths = {"one": [ranks(1), ranks(2)], "two": [ranks(3)]}, some_lengths()
    found = by_length.bins(
        runs, lengths=lengths, edges=[0, 4, 9], metrics=["recall@5", "ndcg@10"], history=history
    )
    assert [(one.above, one.upto) for one in found] == [(-1, 0), (0, 4), (4, 9), (9, None)]
    assert sum(one.users for one in found) == N_USERS
    for one in found:
        inside = {
            user for user, n in lengths.items() if n > one.above and (one.upto is None or n <= one.upto)
        }
        assert one.users == len(inside) > 0
        for name, seeds in runs.items():
            hits, gains = [], []
            for run in seeds:
                for user, rank in zip(run.users.tolist(), run.ranks[history].tolist()):
                    if user in inside:
                        hits.append(rank <= 5)
                        gains.append(1 / np.log2(1 + rank) if rank <= 10 else 0)
            assert one.values[name]["recall@5"] == pytest.approx(np.mean(hits))
            assert one.values[name]["ndcg@10"] == pytest.approx(np.mean(gains))


def test_nobody_is_no_number_and_a_user_without_a_length_is_an_error():
    found = by_length.bins({"one": [ranks(1)]}, lengths=some_lengths(), edges=[100], metrics=["mrr@3"])
    assert (found[1].users, found[1].values) == (0, {"one": {"mrr@3": None}})
    assert "| n/a |" in by_length.as_markdown(found, command="x", history="masked")
    with pytest.raises(SettingsError, match="user 'u7' of the ranks is not among"):
        by_length.bins(
            {"one": [ranks(1)]}, lengths={u: 1 for u in some_lengths() if u != "u7"}, metrics=["mrr@3"]
        )


@pytest.fixture
def files(tmp_path):
    """A comparison's folder with two runs, one of which saved ranks, and its data."""
    resolved = {
        "USER_ID_FIELD": "who", "ITEM_ID_FIELD": "item", "TIME_FIELD": "time", "load_col": None,
        "val_interval": {"time": "(0,inf)"},
    }  # fmt: skip
    rows = [
        {"name": "one", "seed": 1, "dataset": "d", "folder": "runs/a", "resolved": resolved},
        {"name": "two", "seed": 1, "dataset": "d", "folder": "runs/b", "resolved": resolved},
        {"name": "one", "seed": 2, "dataset": "d", "failed": "it did", "folder": "runs/c"},
    ]
    (tmp_path / "out" / "runs" / "a").mkdir(parents=True)
    ranks(1).save(tmp_path / "out" / "runs" / "a" / "ranks.npz")
    (tmp_path / "out" / "d.json").write_text(json.dumps({"models": [], "runs": rows}))
    lines = [f"i{n}\t{user}\t{n + 1}" for user, length in some_lengths().items() for n in range(length + 1)]
    (tmp_path / "data" / "d").mkdir(parents=True)
    lines += ["i99\tu3\t0", "i99\tu4\t0"]  # which the run filters out
    text = "\n".join(["item:token\twho:token\ttime:float", *lines])
    (tmp_path / "data" / "d" / "d.inter").write_text(text + "\n")
    return tmp_path


def arguments(files, **more):
    given = {
        "results": files / "out" / "d.json",
        "runs": files / "out",
        "data_path": files / "data",
        "out": files / "of",
        **more,
    }
    return [text for key, value in given.items() for text in (f"--{key}", *str(value).split())]


def test_the_command_line_writes_the_table(files, capsys):
    assert by_length.main(arguments(files, edges="0 4 9", metrics="recall@5 ndcg@10")) == 0
    assert "without saved ranks, and left out: two" in capsys.readouterr().out
    want = by_length.bins(
        {"one": [ranks(1)]}, lengths=some_lengths(), edges=[0, 4, 9], metrics=["recall@5", "ndcg@10"]
    )
    held = json.loads((files / "of" / "by_length.json").read_text())
    assert [one["values"] for one in held] == [one.values for one in want]
    assert [one["users"] for one in held] == [one.users for one in want]
    text = (files / "of" / "by_length.md").read_text()
    assert f"| one | {' | '.join(format(one.values['one']['recall@5'], '.4f') for one in want)} |" in text
    assert f"10 and more ({want[-1].users} users)" in text


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"edges": "4 4"}, "--edges: must ascend from 0 or more, got [4, 4]"),
        ({"edges": "-1 4"}, "--edges: must ascend"),
        ({"metrics": "recall"}, "--metrics: 'recall' is none of"),
        ({"metrics": "hits@5"}, "--metrics: 'hits@5' is none of"),
        ({"metrics": "recall@0"}, "--metrics: 'recall@0'"),
        ({"results": "none.json"}, "none.json: no such file"),
        ({"runs": "nowhere"}, "--runs: nowhere has no ranks.npz of a run of"),
        ({"data_path": "nowhere"}, "dataset d: nowhere/d is not there"),
    ],
)
def test_mistakes(files, capsys, more, says):
    assert by_length.main(arguments(files, **more)) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "d.json is no table of a comparison"),
        ("[]", "d.json is no table of a comparison"),
        ('{"runs": [{"name": "a"}]}', "d.json is no table of a comparison"),
        ('{"runs": []}', "must hold the runs of one dataset, has []"),
    ],
)
def test_a_file_that_is_no_table_is_named(files, capsys, text, says):
    (files / "out" / "d.json").write_text(text)
    assert by_length.main(arguments(files)) == 2
    assert says in capsys.readouterr().err


def test_a_file_is_read_in_the_encoding_of_the_run(files):
    file = files / "data" / "d" / "d.inter"
    file.write_bytes("who:token\titem:token\né\t1\né\t2\n".encode("latin-1"))
    resolved = {"USER_ID_FIELD": "who", "ITEM_ID_FIELD": "item", "encoding": "latin-1", "load_col": None}
    row = {"dataset": "d", "resolved": resolved}
    assert by_length.history_lengths(row, data_path=str(files / "data")) == {"é": 1}


def test_lengths_are_those_of_any_models_run(files):
    path = str(files / "data")
    columns = {"USER_ID_FIELD": "who", "ITEM_ID_FIELD": "item", "TIME_FIELD": "time", "load_col": None}
    want = by_length.history_lengths({"dataset": "d", "resolved": columns}, data_path=path)
    for model in ("SASRec", "KuaiFormer", "BPR"):
        row = case(model, "d", seed=1, request=Request(common=columns, data_path=path))
        assert by_length.history_lengths(row, data_path=path) == want


def test_models_that_have_fewer_users_are_said():
    few = ranks(3)
    some = few.users != "u7"
    few = UserRanks(few.users[some], few.items[some], {name: r[some] for name, r in few.ranks.items()})
    lengths = dict.fromkeys(some_lengths(), 3)
    found = by_length.bins({"one": [ranks(1)], "two": [few]}, lengths=lengths, edges=[5], metrics=["mrr@3"])
    assert found[0].fewer == {"two": N_USERS - 1}
    assert f"two has {N_USERS - 1} of 0 to 5" in by_length.as_markdown(found, command="x", history="masked")


def test_a_model_of_which_a_finished_run_has_no_ranks_is_left_out(files, capsys):
    (files / "out" / "runs" / "b").mkdir()
    ranks(1).save(files / "out" / "runs" / "b" / "ranks.npz")
    table = files / "out" / "d.json"
    runs = json.loads(table.read_text())["runs"]
    table.write_text(json.dumps({"runs": [*runs, {**runs[0], "seed": 9, "folder": "runs/none"}]}))
    assert by_length.main(arguments(files)) == 0
    assert "without saved ranks, and left out: one\n" in capsys.readouterr().out
    table.write_text(json.dumps({"runs": [*runs, runs[0]]}))  # the same run twice is one
    assert by_length.main(arguments(files)) == 0
    assert "left out" not in capsys.readouterr().out


def test_a_file_in_another_encoding_is_named(files, capsys):
    (files / "data" / "d" / "d.inter").write_bytes("who:token\titem:token\né\t1\n".encode("latin-1"))
    assert by_length.main(arguments(files)) == 2
    assert ": not in the run's encoding 'utf-8'" in capsys.readouterr().err


def test_a_file_of_interactions_without_users_is_named(files, capsys):
    (files / "data" / "d" / "d.inter").write_text("item:token\n1\n")
    assert by_length.main(arguments(files)) == 2
    assert ": the interactions have no column 'who' (USER_ID_FIELD)" in capsys.readouterr().err
