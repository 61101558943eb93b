"""What is written reads back to the same numbers; what is not comparable is said."""

import csv
import io
import json
import re
import statistics

import pytest

from recbole_kuaiformer.benchmarks import comparison_summary
from recbole_kuaiformer.benchmarks.comparison_grid import clock_time, time_left
from recbole_kuaiformer.benchmarks.comparison_plots import LOWEST_PERCENT, _draw, hit_rates
from recbole_kuaiformer.benchmarks.comparison_summary import lines, shown_metrics, warnings
from recbole_kuaiformer.benchmarks.comparison_tables import as_csv, as_json, as_latex, as_markdown


def run(model, seed, *, kept=None, masked=None, length=50, users=9, **more):
    readings = {name: values for name, values in (("kept", kept), ("masked", masked)) if values}
    resolved = {"MAX_ITEM_LIST_LENGTH": length, "evaluate_history": "kept", "learning_rate": 0.001 * seed}
    return {
        "kind": "run", "model": model, "name": model, "dataset": "d_1", "seed": seed, "readings": readings,
        "params": {},
        "valid_reading": "kept" if kept else "masked", "resolved": resolved, "test_users": users,
        "train_seconds": 10.0 * seed, "epochs": 3 + seed, "peak_mib": 500.25, "cuda_peak_mib": None,
        "parameters": 1234, "valid_score": 0.25, "seconds": 20.0, **more,
    }  # fmt: skip


def values(base):
    return {"recall@10": base, "recall@7": base + 0.5, "ndcg@10": base / 3, "giniindex@10": 1 - base}


ROWS = [
    run("A", 1, kept=values(0.11), masked=values(0.21)),
    run("A", 2, kept=values(0.14), masked=values(0.26)),
    run("B_2", 1, kept=values(0.12), masked=values(0.2)),
    run("B_2", 2, kept=values(0.1211), masked=values(0.2)),
    run("Pop", 1, masked=values(0.05)),
    {
        "kind": "run",
        "model": "C",
        "name": "C",
        "dataset": "d_1",
        "seed": 1,
        "params": {},
        "resolved": {},
        "failed": "Oh: no",
    },
]


def expected(model, reading, name):
    found = [row["readings"][reading][name] for row in ROWS[:5] if row["model"] == model]
    return statistics.mean(found), statistics.stdev(found) if len(found) > 1 else None


def test_csv_reads_back_to_the_last_bit():
    read = [*csv.DictReader(io.StringIO(as_csv(ROWS)))]
    assert [(line["model"], line["history"], line["seeds"]) for line in read] == [
        ("A", "kept", "2"), ("B_2", "kept", "2"), ("Pop", "kept", "1"),
        ("A", "masked", "2"), ("B_2", "masked", "2"), ("Pop", "masked", "1"),
    ]  # fmt: skip
    for line in read:
        for name in values(0):
            if (line["model"], line["history"]) == ("Pop", "kept"):
                assert (line[f"{name} mean"], line[f"{name} std"]) == ("", "")
                continue
            mean, std = expected(line["model"], line["history"], name)
            assert float(line[f"{name} mean"]) == mean
            assert line[f"{name} std"] == ("" if std is None else repr(std))
        assert float(line["train_seconds mean"]) == (10.0 if line["model"] == "Pop" else 15.0)


def test_json_holds_the_lines_and_the_runs():
    read = json.loads(as_json(ROWS))
    assert read["runs"] == ROWS
    assert read["models"][0]["recall@7"] == dict(zip(("mean", "std"), expected("A", "kept", "recall@7")))


def test_latex_reads_back_and_the_best_of_each_column_is_bold():
    kept, masked = as_latex(ROWS, dataset="d_1").strip().split("\n\n")
    assert r"\caption{d\_1, history kept; told the time of the request: none}" in kept
    for text, reading, models in (("", "kept", ("A", "B_2")), ("", "masked", ("A", "B_2", "Pop"))):
        text = kept if reading == "kept" else masked
        head, *body = [line for line in text.splitlines() if " & " in line]
        assert head == r"Model & HR@10 & NDCG@10 & Gini@10 \\"
        assert [line.split(" & ")[0] for line in body] == [model.replace("_", r"\_") for model in models]
        cells = [line.removesuffix(r" \\").split(" & ")[1:] for line in body]
        for column, name in enumerate(("recall@10", "ndcg@10", "giniindex@10")):
            means = [expected(model, reading, name)[0] for model in models]
            best = min(means) if name.startswith("gini") else max(means)
            for model, mean, row in zip(models, means, cells):
                numbers = [float(number) for number in re.findall(r"\d\.\d{4}", row[column])]
                std = expected(model, reading, name)[1]
                assert numbers == [round(value, 4) for value in (mean, std) if value is not None]
                assert (r"\mathbf" in row[column]) == (mean == best)


def test_latex_prints_every_sign_of_a_name():
    name = r"50 % & a_b #1 $x$ {y} ~ ^ \z [8] * < | >"
    row = {**run("A", 1, kept=values(0.1)), "name": name}
    printed = r"50 \% \& a\_b \#1 \$x\$ \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{}z"
    printed += r" {[}8] {*} \textless{} \textbar{} \textgreater{}"
    assert printed + " & $" in as_latex([row], dataset="d")


def told(name, **resolved):
    row = run(name, 1, kept=values(0.1), masked=values(0.2))
    return {**row, "resolved": {**row["resolved"], **resolved}}


def test_every_table_says_who_knew_the_time_of_the_request():
    """An absent request_gap is of a run before there was one; Pop has no kept reading, whatever it knew."""
    rows = [
        told("H_1", use_request_time=True), told("H_2", use_times=True, use_request_time=False),
        told("K, gap", request_gap={"n_buckets": 4}), told("K", request_gap=None), told("old"),
    ]  # fmt: skip
    markdown = as_markdown(rows, dataset="d", about="")
    kept, masked = markdown.split("## History kept")[1].split("## What training took")[0].split("## History")
    for part in (kept, masked):
        assert part.strip().endswith("|\n\nTold the time of the request: H_1; K, gap.")
    for reading in ("kept", "masked"):
        caption = rf"\caption{{d, history {reading}; told the time of the request: H\_1; K, gap}}"
        assert caption in as_latex(rows, dataset="d")
    lines = [*csv.DictReader(io.StringIO(as_csv(rows)))]
    assert {line["model"] for line in lines if line["told request time"] == "True"} == {"H_1", "K, gap"}
    assert {line["told request time"] for line in lines} == {"True", "False"}
    assert as_markdown(ROWS, dataset="d", about="").count("\nTold the time of the request: none.\n") == 2


def test_what_a_search_chose_is_what_the_run_had_of_it():
    searched = {"learning_rate": 0.01, "weight_decay": "1e-3", "act": "gelu", "epochs": 9, "of_old": 1}
    row = told("A", learning_rate=0.001, weight_decay=0.001, act="gelu", epochs=4)
    text = as_markdown([{**row, "params": searched}], dataset="d", about="")
    had = '{"weight_decay": 0.001, "act": "gelu"}'
    assert (
        f'| A | `{had}`; given in place of the search\'s: `{{"learning_rate": 0.001, "epochs": 4}}` |' in text
    )
    text = as_markdown([{**row, "params": {"act": "gelu"}}], dataset="d", about="")
    assert '| A | `{"act": "gelu"}` |' in text


def test_markdown_says_what_is_missing_and_what_failed():
    text = as_markdown(ROWS, dataset="d_1", about="about")
    assert "| Pop | n/a | n/a | n/a |" in text
    assert "| Pop | 0.0500 | 0.0167 | 0.9500 |" in text
    assert "| A | 0.1250 ± 0.0212 |" in text
    assert "- run C seed 1: Oh: no" in text
    assert "Pop: no numbers with history kept" in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"users": 8}, "different users: A 9, B 8"),
        ({"length": 200}, "different length: A 50, B 200"),
        ({"items": 140}, "catalogues of different size: A 149, B 140"),
        ({"valid_reading": "masked"}, "chosen in different readings of history: A kept, B masked"),
        ({}, None),
    ],
)
def test_what_is_not_comparable_is_said(change, said):
    both = {"kept": values(0.1), "masked": values(0.1)}
    found = warnings([run("A", 1, **both, items=149), run("B", 1, **{"items": 149, **both, **change})])
    assert [said in line for line in found] == ([True] if said else [])


def test_seconds_of_several_devices_are_never_put_together():
    both = {"kept": values(0.1), "masked": values(0.1)}
    on_gpu = {"made": {"cuda": "NVIDIA H100"}}
    rows = [run("A", 1, **both, **on_gpu), run("A", 2, **both), run("B", 1, **both), run("B", 2, **both)]
    (line,) = warnings(rows)
    assert (
        "several devices: seconds and memory cannot be compared. On NVIDIA H100: A. On a CPU: A; B." in line
    )
    of_a, of_b = (next(one for one in lines(rows) if one.model == name) for name in "AB")
    assert "train_seconds" in of_b.costs
    assert "train_seconds" not in of_a.costs
    assert of_a.costs.keys() >= {"epochs", "parameters"}


def made_by(*devices):
    """Names of the runs by device, of runs that tell of themselves what devices hold."""
    rows = [{"name": name, **facts} for name, facts in zip("ABCD", devices)]
    return comparison_summary.devices(rows)


def test_what_made_a_run_is_a_gpu_or_a_cpu_and_its_threads():
    epyc, two = ({"made": {"cpu": "EPYC", "threads": n}} for n in (1, 2))
    unknown, gpu = {"made": None}, {"cuda_peak_mib": 7.0}
    assert made_by(epyc, unknown) == {"EPYC (threads: 1)": ["A", "B"]}  # taken for the only CPU
    assert made_by(epyc, two) == {"EPYC (threads: 1)": ["A"], "EPYC (threads: 2)": ["B"]}
    assert made_by(epyc, two, unknown).keys() == {"EPYC (threads: 1)", "EPYC (threads: 2)", "a CPU"}
    assert made_by(unknown, gpu) == {"a CPU": ["A"], "a GPU": ["B"]}
    idle = {"cuda_peak_mib": 0.0, "made": {"cuda": "NVIDIA H100", "cpu": "EPYC", "threads": 1}}
    assert made_by(epyc, idle) == {"EPYC (threads: 1)": ["A", "B"]}  # of a machine that has a GPU


def test_a_mean_is_of_one_device_as_the_page_says():
    both = {"kept": values(0.1), "masked": values(0.1)}
    epyc, xeon = ({"made": {"cpu": cpu, "threads": 1}} for cpu in ("EPYC", "Xeon"))
    rows = [run("A", 1, **both), run("A", 2, **both, **epyc), run("B", 1, **both, **xeon)]
    assert "On a CPU: A. On EPYC (threads: 1): A. On Xeon (threads: 1): B" in "".join(warnings(rows))
    (of_a,) = (one for one in lines(rows) if (one.model, one.reading) == ("A", "kept"))
    assert "train_seconds" not in of_a.costs


def test_what_a_time_budget_ends_is_said_not_to_compare_between_devices():
    both = {"kept": values(0.1), "masked": values(0.1), "time_budget": 600}
    (line,) = warnings([run("A", 1, **both, made={"cuda": "NVIDIA H100"}), run("A", 2, **both)])
    assert "nor the results of what a time budget ends (A)" in line


def test_different_numbers_of_seeds_are_said():
    both = {"kept": values(0.1), "masked": values(0.1)}
    (line,) = warnings([run("A", 1, **both), run("A", 2, **both), run("B", 1, **both)])
    assert "different numbers of seeds: A 2, B 1" in line


def test_the_table_shows_the_cut_offs_of_the_protocol():
    assert shown_metrics(lines(ROWS)) == ["recall@10", "ndcg@10", "giniindex@10"]


def test_a_curve_is_the_hit_rate_over_ascending_cut_offs():
    (line, *_) = lines([run("A", 1, kept={"recall@50": 0.5, "recall@5": 0.25, "ndcg@5": 0.125})])
    assert {k: spread.mean for k, spread in hit_rates(line).items()} == {5: 0.25, 50: 0.5}
    assert [*hit_rates(line)] == [5, 50]


def test_below_a_plot_are_percent_of_the_first_model_with_every_reading():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figure = pyplot.figure()
    rows = [run("Pop", 1, masked={"recall@10": 0.1}), *ROWS[:4]]
    _draw([line for line in lines(rows) if hit_rates(line)], figure)
    kept, masked = figure.axes[2:]
    assert kept.get_ylabel() == "HR@k, % over that of A"
    lower = {bars.get_label(): list(bars.lines[0].get_ydata()) for bars in masked.containers}
    assert lower["A"] == [0.0, 0.0]
    a, b = (expected(model, "masked", "recall@10")[0] for model in ("A", "B_2"))
    assert lower["B_2"][1] == pytest.approx(100 * (b / a - 1), abs=1e-5)
    assert masked.get_ylim()[0] == LOWEST_PERCENT  # Pop is farther behind
    pyplot.close(figure)


def test_time_left_is_of_the_nearest_kind():
    def one(model, dataset, seconds=None, **more):
        return {"model": model, "name": model, "dataset": dataset, "seconds": seconds, **more}

    finished = [one("A", "x", 60.0), one("A", "x", 120.0), one("A", "x", 600.0), one("B", "y", 3600.0)]
    assert time_left([one("A", "x")], finished=finished) == "2 min"
    assert time_left([one("B", "x")], finished=finished) == "2 min"  # as others on x
    assert time_left([one("A", "y"), one("A", "x")], finished=finished) == "1 h 2 min"
    assert time_left([one("A", "z")], finished=[one("A", "x", 0.5, failed="Oh")]) == "an unknown time"
    assert time_left([], finished=[]) == clock_time(0) == "0 s"
