"""The benchmark of training runs in a minute, goes on where it stopped, and measures what it says."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from recbole_kuaiformer.benchmarks import (
    epoch_cases,
    exactness_cases,
    flops,
    limit_cases,
    options_cases,
    running,
    training,
    training_report,
    training_systems,
)

USERS, TARGETS_EACH = 80, 22 - 3  # of write_walks: the first item, and those of validation and test, are none


def rows_of(result, kind):
    return [row for finished in result["results"] for row in finished["rows"] if row["kind"] == kind]


def test_quick_measures_every_kind_and_goes_on_where_it_stopped(tmp_path):
    assert training.main(["--out", str(tmp_path), "--quick"]) == 0
    result = json.loads((tmp_path / "training.json").read_text())

    systems = {row["system"]: row for row in rows_of(result, "epoch")}
    assert set(systems) == set(training.SYSTEMS)
    for name in training_systems.SYSTEMS:
        row = systems[name]
        assert len(row["targets_per_second"]) == 2
        assert min(row["targets_per_second"]) > 0
        limited = row["system"].startswith("RecBole")  # its table: 20 users, but the whole catalogue
        assert row["epoch_targets"] == (20 if limited else USERS) * TARGETS_EACH
        assert row["items"] == systems["SASRecPlus"]["items"]
        assert row["epoch_seconds"] > 0

    layouts = {row["layout"]: row for row in rows_of(result, "compression")}
    for row in layouts.values():
        for what in ("inference", "step"):
            assert row[f"{what}_flops"] == row[f"{what}_flops_by_formula"]
    assert layouts["compressed 256"]["inference_flops"] < layouts["plain 256"]["inference_flops"] / 3
    assert layouts["compressed 256"]["tokens"] == 7 + 48 + 4

    for row in rows_of(result, "exactness"):
        assert max(row["vectors"], row["loss"], row["gradient"]) < 1e-5

    (row,) = rows_of(result, "limit")
    assert row["flops"] == row["flops_of_products"] > 0
    assert set(row["profile"]) == {*limit_cases.CATEGORIES, limit_cases.GAP}
    assert row["profile"]["matrix products"] > 0

    asked = {row["option"]: row for row in rows_of(result, "options")}
    assert set(asked) == {name for name in options_cases.OPTIONS if "compile" not in name}
    assert min(min(row["targets_per_second"]) for row in asked.values()) > 0

    at = [(row["variant"], row["at"]) for row in rows_of(result, "quality")]
    assert at == [
        ("all", "same epochs"),
        ("last", "seconds of 1 epochs of all"),
        ("last", "same epochs"),
        ("all", "seconds of 1 epochs of last"),
    ]
    assert rows_of(result, "quality")[0]["epochs"] == 1.0

    text = (tmp_path / "training.md").read_text()
    for heading in (
        "1 Epoch time",
        "3 Compression",
        "4 Exactness",
        "5 Distance from the limit",
        "Options",
        "6 Quality",
    ):
        assert f"## {heading}" in text

    (tmp_path / "training.md").unlink()
    assert training.main(["--out", str(tmp_path), "--quick"]) == 0  # seconds would not repeat themselves
    assert json.loads((tmp_path / "training.json").read_text())["results"] == result["results"]
    assert (tmp_path / "training.md").read_text() == text

    pytest.importorskip("matplotlib")
    for name in ("training", "compression", "profile"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_case_that_dies_is_a_row_that_says_so_and_is_tried_again(tmp_path, monkeypatch):
    case = {"kind": "limit", "system": "KuaiFormer", "dataset": "none-such", "data_path": str(tmp_path)}
    monkeypatch.setattr(training, "quick_plan", lambda **_: [{**case, "length": 9, "steps": 1}])
    assert training.main(["--out", str(tmp_path), "--quick"]) == 1
    assert "## Failed\n\n- limit KuaiFormer: ValueError" in (tmp_path / "training.md").read_text()
    (tmp_path / "training.json").write_text(
        (tmp_path / "training.json").read_text().replace("Value", "Stale")
    )
    assert training.main(["--out", str(tmp_path), "--quick"]) == 1
    assert "Stale" not in (tmp_path / "training.json").read_text()


def test_a_kind_that_does_not_exist_is_an_error(tmp_path, capsys):
    assert training.main(["--out", str(tmp_path), "--cases", "epoch,speed"]) == 2
    assert capsys.readouterr().err.startswith("error: --cases: speed is not known; known: epoch, ")


def test_results_of_other_kinds_and_of_the_same_case_stand():
    def result(**case):
        return {"case": case, "rows": [{"kind": case["kind"], "x": 1.5}], "seconds": 1.0}

    earlier = [
        result(kind="epoch", length=50),
        result(kind="epoch", length=70),
        result(kind="quality", seed=3),
    ]
    held = training.kept(earlier, cases=[{"length": 50, "kind": "epoch"}, {"kind": "epoch", "length": 99}])
    assert list(held.values()) == [earlier[0], earlier[2]]


def test_what_succeeded_is_not_measured_again_and_what_failed_is():
    cases = [{"kind": "epoch", "length": n, "systems": ("a", "b")} for n in (50, 70)]
    read = json.loads(json.dumps(cases))  # as it comes back from the file: lists for tuples
    earlier = [
        {"case": read[0], "rows": [{"kind": "epoch", "x": 1.5}], "seconds": 1.0},
        {"case": read[1], "rows": [{"kind": "epoch", "failed": "earlier"}], "seconds": 1.0},
    ]
    results = running.results(cases, module_of=lambda _: "no_such_module", earlier=earlier)
    first, second = results
    assert first is earlier[0]
    assert second["rows"][0]["failed"].endswith("No module named no_such_module")


PEER = """
import json, sys
rounds, answers = int(sys.argv[1]), 0
def answer(what):
    print(json.dumps(what), flush=True)
answer({"imported": True})
sys.stdin.readline()
answer({"epoch_targets": 30, "epoch_start_seconds": 0.5, "build_seconds": 0.0})
for line in sys.stdin:
    if answers == rounds:
        sys.exit("out of breath")
    answers += 1
    answer({"seconds": 2.0 * answers, "targets": 12, "steps": 3})
"""


def test_a_system_that_dies_does_not_stop_the_others(tmp_path):
    with (tmp_path / "errors").open("w+") as errors, (tmp_path / "others").open("w+") as others:
        workers = {
            "dies": epoch_cases.Worker([sys.executable, "-c", PEER, "2"], errors=errors),
            "lives": epoch_cases.Worker([sys.executable, "-c", PEER, "9"], errors=others),
        }
        answers = epoch_cases._rounds(workers, case={"rounds": 3, "seconds": 1.0})
        dead, alive = (epoch_cases._row(workers[name], answers[name]) for name in ("dies", "lives"))
        for worker in workers.values():
            worker.close()
    assert dead["failed"] == "out of breath"
    assert alive["targets_per_second"] == [12 / 4, 12 / 6, 12 / 8]  # the warm-up's 12 / 2 is not among them
    (row,) = epoch_cases._with_whole_epochs([alive])
    assert row["epoch_seconds"] == 30 / (12 / 6) + 0.5
    assert row["measured_share"] == 36 / 30


def test_a_stretch_ends_by_steps_or_by_the_clock_and_the_next_goes_on():
    class Batch(list):
        interaction = ()

    loader = [Batch(range(n)) for n in (3, 5, 7, 11, 13)]
    batches = iter(loader)

    def trained(**limits):
        stretch = training_systems.Stretch(loader, batches, **limits)
        return [len(batch) for batch in stretch], stretch.targets, stretch.steps

    assert trained(seconds=None, steps=2) == ([3, 5], 8, 2)
    assert trained(seconds=0.0, steps=None) == ([7], 7, 1)
    assert trained(seconds=0.0, steps=9) == ([11], 11, 1)


def test_operations_are_those_of_the_products_attention_included():
    torch.manual_seed(0)
    query, linear = torch.randn(3, 2, 7, 8, requires_grad=True), nn.Linear(8, 5)
    batched = torch.randn(3, 5, 11)

    def work():
        mixed = scaled_dot_product_attention(query, query, query, attn_mask=torch.ones(7, 7).tril().bool())
        return linear(mixed.transpose(1, 2)[:, :, 0]) @ batched

    attention, product, last = 2 * (3 * 2 * 7 * 7 * 8), 2 * (3 * 7 * 8 * 5), 2 * (3 * 7 * 5 * 11)
    assert flops.counted(work) == 2 * attention + product + last
    whole = 7 * attention + 3 * product + 2 * last  # `batched` takes no gradient
    assert flops.counted(lambda: work().sum().backward()) == whole
    shapes = flops.products(lambda: work().sum().backward())
    assert flops.flops_of(shapes) == whole
    assert flops.bare_seconds(shapes, repeats=1) > 0


def test_an_encoder_that_looks_ahead_is_found_out():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, tokens, *, valid, n_unseen):
            mean = (tokens * valid[..., None]).sum(1) / valid.sum(1, keepdim=True)
            return (self.weight * mean)[:, None, None].expand(-1, n_unseen.shape[1], -1, -1)

    found = exactness_cases._differences(Mean(), dtype=torch.float32, windows=3)
    assert min(found["vectors"], found["loss"], found["gradient"]) > 1e-2


def test_time_is_put_down_to_what_called_it():
    def event(*names):
        above = event(*names[:-1]) if len(names) > 1 else None
        return SimpleNamespace(name=names[-1], cpu_parent=above)

    for names, category in {
        ("aten::mul",): "element by element",
        ("aten::rms_norm", "aten::mul"): "norm",
        ("Optimizer.step#Adam.step", "aten::mul"): "optimiser",
        ("data loading", "aten::index"): "data loading",
        ("data loading",): "data loading",
        ("autograd::engine::evaluate_function: EmbeddingBackward0", "aten::mul"): "element by element",
        ("aten::linear", "aten::mm"): "matrix products",
        ("aten::scaled_dot_product_attention", "aten::bmm"): "attention",
        ("autograd::engine::evaluate_function: MmBackward0",): None,
    }.items():
        assert limit_cases.category_of(event(*names)) == category, names


def test_the_report_says_which_aims_hold():
    def timed(system, *speeds):
        facts = {"kind": "epoch", "dataset": "d", "length": 50, "system": system, "epoch_seconds": 1.0}
        facts |= {"measured_share": 1.0, "epoch_targets": 9, "build_seconds": 1.0, "peak_mib": 5.0}
        facts |= {"targets": 90, "steps": 3, "items_seen": 24.25}
        return {**facts, "targets_per_second": list(speeds)}

    rows = [
        timed("KuaiFormer", 1200, 1300, 1100),
        timed("SASRecPlus", 2900, 2800, 3100),
        timed(training_report.RECBOLE, 100, 50, 200),
        timed("RecTools HSTU", 2900, 2800, 3200),
    ]
    assert training_report.ratios(rows[0], rows[2]) == (12.0, 5.5, 26.0)
    machine = {"cpu": "c", "threads": 1, "python": "3", "torch": "2"}
    one = {"case": {"kind": "epoch"}, "rows": rows, "commit": "abc", "date": "2026-11-24", "threads": 2}
    text = training_report.markdown({"machine": machine, "quick": False, "results": [one]})
    assert "| epoch | abc | 2026-11-24 | 2 |" in text
    assert "| KuaiFormer | 1,200 (1,100 to 1,300) | 30 | 24.2 |" in text
    holds = {
        line.split(" | ")[0].strip("| "): line.split(" | ")[-1].strip("| ") for line in text.splitlines()
    }
    where = "RecBole SASRec, as it is, d, length 50"
    assert holds[f"KuaiFormer ≥ 12x {where}"] == "yes"
    assert holds[f"SASRecPlus ≥ 30x {where}"] == "**no**"
    assert holds["SASRecPlus ≥ 1x RecTools HSTU, d, length 50"] == "yes"
