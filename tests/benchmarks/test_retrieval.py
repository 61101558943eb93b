"""The benchmark runs in a minute, writes what it promises, and measures what it says."""

import json

import pytest
import torch

from recbole_kuaiformer.benchmarks import (
    gpu_retrieval,
    measuring,
    retrieval,
    retrieval_cases,
    retrieval_report,
)
from recbole_kuaiformer.index.choose import build_index


def test_quick_writes_numbers_tables_and_a_picture(tmp_path, capsys):
    assert retrieval.main(["--out", str(tmp_path), "--quick"]) == 0
    result = json.loads((tmp_path / "retrieval.json").read_text())
    rows = result["rows"]
    searched = {(row["backend"], row["n_interests"], row["k"]) for row in rows if row["kind"] == "search"}
    assert searched == {(name, kk, k) for name in retrieval.BACKENDS[1:] for kk in (1, 4) for k in (10, 100)}
    for row in rows:
        if row["kind"] == "search":
            assert row["users_per_second"] > 0
            assert row["single_ms"]["p50"] <= row["single_ms"]["p95"] <= row["single_ms"]["p99"]
            assert ("recall" in row) == (row["backend"] in retrieval_cases.APPROXIMATE)
            assert 0.5 < row.get("recall", 1.0) <= 1.0
    text = (tmp_path / "retrieval.md").read_text()
    for heading in ("In turn, in one process", "Each backend in a process of its own", "A single request"):
        assert f"## {heading}" in text
    assert "bare_product" in text
    pytest.importorskip("matplotlib")
    assert (tmp_path / "retrieval.png").read_bytes().startswith(b"\x89PNG")


def test_a_case_that_dies_is_a_row_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(retrieval, "plan", lambda **_: [{"kind": "search", "backend": "fais", "n_items": 50}])
    assert retrieval.main(["--out", str(tmp_path), "--quick"]) == 1
    assert (
        "## Failed\n\n- search fais: ValueError: index: 'fais' is not known"
        in (tmp_path / "retrieval.md").read_text()
    )


def test_both_ways_measured_give_the_same_ranking():
    items = retrieval_cases.item_table(300)
    users = retrieval_cases.interests_near(items, n_users=40, n_interests=3)
    theirs = retrieval_cases.recboles_way(items, users, k=20, batch=16).get("rec.topk")
    for backend in ("torch", "faiss_cpu"):
        index, _ = build_index(backend, items)
        ours = retrieval_cases.by_index(index, items, users, k=20, batch=8).get("rec.topk")
        assert torch.equal(ours, theirs)


def test_what_does_not_fit_into_memory_is_not_started(monkeypatch):
    monkeypatch.setattr(measuring, "available_gib", lambda: 1e-4)
    case = {
        "kind": "search",
        "backend": "recbole-4096",
        "n_items": 100,
        "n_users": 5,
        "n_interests": [1],
        "k": [5],
    }
    (row,) = retrieval_cases.search(case)
    assert row["stopped"] == "needs 0 GiB for 4096 users at a time; with 0 GiB it stops at 2 items"
    assert "stops at 2 items" in retrieval_report.markdown(
        {"machine": measuring.machine(), "quick": True, "rows": [{"kind": "search", **row}]}
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_gpu_benchmark_says_that_it_needs_one(capsys):
    assert gpu_retrieval.main(["--out", "unused.json"]) == 2
    assert capsys.readouterr().err == "error: this benchmark needs a CUDA device\n"


def test_the_gpu_benchmark_refuses_a_file_it_could_not_write_before_it_asks(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert gpu_retrieval.main(["--out", str(tmp_path / "file" / "gpu.json")]) == 2
    assert f"a file is in the place of the folder {tmp_path / 'file'}" in capsys.readouterr().err
    assert gpu_retrieval.main(["--out", str(tmp_path)]) == 2
    assert f"--out {tmp_path}: a folder is in the place of the file" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"
