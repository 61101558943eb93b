"""Results of benchmarks.training as Markdown: each question with what was aimed at and what was found."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from recbole_kuaiformer.benchmarks.arithmetic_report import compression, exactness, limit, options
from recbole_kuaiformer.benchmarks.measuring import median
from recbole_kuaiformer.benchmarks.tables import Rows, Verdict, about, failures, of, section, table

RECBOLE, RECBOLE_MENDED = "RecBole SASRec, as it is", "RecBole SASRec, no anomaly detection"
PEERS = ("RecTools SASRec", "RecTools HSTU")
REFERENCES = (RECBOLE, RECBOLE_MENDED, *PEERS)
OURS = ("KuaiFormer", "SASRecPlus", "SASRecPlus, half windows")
EPOCH_AIMS = {
    ("KuaiFormer", 50): 12,
    ("KuaiFormer", 200): 40,
    ("SASRecPlus", 50): 30,
    ("SASRecPlus", 200): 100,
}


def markdown(result: dict[str, Any]) -> str:
    """The whole report."""
    rows = [row for finished in result["results"] for row in finished["rows"]]
    sections: tuple[Callable[[Rows], str], ...] = (
        _epoch,
        _dataset,
        compression,
        exactness,
        limit,
        options,
        _quality,
    )
    parts = ["# Training measured", about(result), _provenance(result), *(write(rows) for write in sections)]
    parts.append(failures(rows, by="system"))
    return "\n\n".join(part for part in parts if part) + "\n"


def _provenance(result: dict[str, Any]) -> str:
    """Commit, day and threads of each kind of case."""
    cells = {
        (one["case"]["kind"], one.get("commit", "unknown"), one.get("date", ""), str(one.get("threads", "")))
        for one in result["results"]
    }
    where = (
        "DATA in the commands is the folder that holds the datasets, PYTHON one that has `rectools[torch]` "
        "(another Python than this one's, as it asks for older numpy and pandas)."
    )
    return where + "\n\n" + table(["cases", "commit", "date", "threads"], [[*row] for row in sorted(cells)])


def ratios(fast: dict[str, Any], slow: dict[str, Any]) -> tuple[float, float, float]:
    """How many times as fast per target: of the medians, and the least and most of the rounds."""
    of_rounds = [a / b for a, b in zip(fast["targets_per_second"], slow["targets_per_second"])]
    whole = median(fast["targets_per_second"]) / median(slow["targets_per_second"])
    return whole, min(of_rounds), max(of_rounds)


def _spread(values: tuple[float, float, float], *, digits: int = 1) -> str:
    whole, least, most = (f"{value:.{digits}f}" for value in values)
    return f"{whole} ({least} to {most})"


def _epoch(rows: Rows) -> str:
    rows = of(rows, "epoch")
    if not rows:
        return ""
    body, verdicts = [], []
    for place in dict.fromkeys((row["dataset"], row["length"]) for row in rows):
        here = [row for row in rows if (row["dataset"], row["length"]) == place]
        timed = {row["system"]: row for row in here if "targets_per_second" in row}
        body += [f"### {place[0]}, length {place[1]}", _epoch_table(timed)]
        body += [f"{row['system']}: not measured, {row['absent']}." for row in here if "absent" in row]
        verdicts += _epoch_verdicts(timed, place=place)
    text = (
        "Each system in a process of its own trains by its own training loop (data loading, forward, "
        "backward, optimiser), all in turn, round by round; width 64, 2 layers, 2 heads, softmax over the "
        "whole catalogue, KuaiFormer (K = 4, its layout cut to the length) its own in-batch softmax; "
        "otherwise each as its makers built it. RecBole takes 2 048 targets a step, ours about as many, "
        "RecTools its own 128 sessions. In brackets the least and the most of the rounds. Epoch s is that "
        "of **all** targets of the training split at the median speed; trained is the share of them that "
        "was trained here. **Items seen** is how much of the history a target is predicted from, on "
        "average: RecBole encodes the newest items before each target anew, a window of several targets "
        "shows the earlier ones less. Half windows train the newer half of each window alone, so that "
        "every target sees at least half of the length where the history has it. RecTools' own epoch "
        "trains the newest window of each user alone: its targets are real, but fewer. Build and memory of "
        "RecBole's table are left out where it was cut to the first users (with the whole catalogue; the "
        "time per target does not depend on the number of rows). Peak MiB are of dataset and training "
        "together, beyond the imported libraries."
    )
    return section("1 Epoch time", case="epoch", text=text, body=body, verdicts=verdicts)


def _epoch_table(timed: dict[str, Any]) -> str:
    references = [name for name in REFERENCES if name in timed]
    head = ["system", "targets/s", "targets a step", "items seen", "epoch s", "trained", "own targets"]
    head += ["build s", "peak MiB"]
    body = []
    for name, row in timed.items():
        speeds = row["targets_per_second"]
        cells = [name, f"{median(speeds):,.0f} ({min(speeds):,.0f} to {max(speeds):,.0f})"]
        cells += [f"{row['targets'] / row['steps']:,.0f}", f"{row['items_seen']:.1f}"]
        cells += [f"{row['epoch_seconds']:.1f}", f"{row['measured_share']:.0%}", f"{row['epoch_targets']:,}"]
        whole = not row.get("first_users")
        cells += [f"{row['build_seconds']:.1f}", f"{row['peak_mib']:,.0f}"] if whole else ["", ""]
        body.append([*cells, *(_spread(ratios(row, timed[reference])) for reference in references)])
    return table([*head, *(f"x {reference}" for reference in references)], body)


def _epoch_verdicts(timed: dict[str, Any], *, place: tuple[str, int]) -> list[Verdict]:
    dataset, length = place
    aims = [
        (name, reference, EPOCH_AIMS.get((name.partition(",")[0], length)))
        for name in OURS
        for reference in (RECBOLE, RECBOLE_MENDED)
    ]
    aims += [("SASRecPlus", peer, 1) for peer in PEERS]
    verdicts = []
    for name, reference, aim in aims:
        if aim is not None and name in timed and reference in timed:
            found = ratios(timed[name], timed[reference])
            what = f"{name} ≥ {aim}x {reference}, {dataset}, length {length}"
            verdicts.append((what, f"{_spread(found)}x", found[0] >= aim))
    return verdicts


def _dataset(rows: Rows) -> str:
    rows = of(rows, "dataset")
    if not rows:
        return ""
    keys = [
        key for key in dict.fromkeys(key for row in rows for key in row) if key not in ("kind", "data_path")
    ]
    cells = [[_plain(row.get(key, "")) for key in keys] for row in rows]
    text = "RecBole's prefix table, RecBole's own models on the log, and this package's dataset, until ready."
    body = [table(keys, cells)]
    return section(
        "2 A ready dataset", case="dataset", text=text, body=body, verdicts=_dataset_verdicts(rows)
    )


def _dataset_verdicts(rows: Rows) -> list[Verdict]:
    found = {(row.get("dataset"), row.get("source"), row.get("length")): row for row in rows}
    verdicts = []
    for (dataset, source, length), table_row in found.items():
        log = found.get((dataset, "log", length), {})
        if source == "table" and length == 200 and log.get("peak_mib") and "peak_mib" in table_row:
            less = table_row["peak_mib"] / log["peak_mib"]
            verdicts.append((f"≥ 20x less memory, {dataset}, length 200", f"{less:.1f}x", less >= 20))
    for dataset in dict.fromkeys(key[0] for key in found):
        seconds = [
            row["cpu_seconds"]
            for key, row in found.items()
            if key[:2] == (dataset, "log") and "seconds" in row
        ]
        if len(seconds) > 1:
            spread = max(seconds) / min(seconds)
            verdicts.append(
                (
                    f"build time (processor's) flat in the length, {dataset}",
                    f"{spread:.2f}x from least to most",
                    spread < 1.5,
                )
            )
    return verdicts


def _plain(value: Any) -> str:
    return (
        f"{value:,.3g}"
        if isinstance(value, float)
        else f"{value:,}"
        if isinstance(value, int)
        else str(value)
    )


MEASURES = ("ndcg@10", "recall@10", "recall@50")


def _quality(rows: Rows) -> str:
    rows = of(rows, "quality")
    if not rows:
        return ""
    body, verdicts = [], []
    for system in dict.fromkeys(row["system"] for row in rows):
        groups: dict[tuple[str, str], Rows] = {}
        for row in rows:
            if row["system"] == system:
                groups.setdefault((row["at"], row["variant"]), []).append(row)
        body += [f"### {system}", _quality_table(groups)]
        verdicts += _quality_verdicts(groups, system=system)
    text = (
        f"{rows[0]['dataset']}, length {rows[0]['length']}, 2 layers, K = 4 where there are several; `all` "
        "trains all targets of a window in one pass, `last` encodes each prefix by itself for one target, "
        "as KuaiFormer's paper and RecBole do; the same batches of targets, leave-one-out, history kept, "
        "the model as it is after the last step, untuned. Seconds are the processor's. Mean ± standard "
        "deviation of the seeds. A verdict is of the differences seed by seed: yes, if their mean is not "
        "below 0 by more than their standard deviation."
    )
    return section("6 Quality", case="quality", text=text, body=body, verdicts=verdicts)


def _quality_table(groups: dict[tuple[str, str], Rows]) -> str:
    head = ["compared after", "targets of a pass", "seeds", "epochs", "training s"]
    head += [f"{split} {name}" for split in ("valid", "test") for name in MEASURES]
    body = []
    for (at, variant), runs in groups.items():
        cells = [at, variant, str(len(runs)), _mean([r["epochs"] for r in runs], digits=1)]
        cells.append(_mean([r["seconds"] for r in runs], digits=0))
        cells += [_mean([r[split][name] for r in runs]) for split in ("valid", "test") for name in MEASURES]
        body.append(cells)
    return table(head, body)


def _quality_verdicts(groups: dict[tuple[str, str], Rows], *, system: str) -> list[Verdict]:
    def found(at: str, variant: str) -> dict[int, float]:
        return {row["seed"]: row["test"]["ndcg@10"] for row in groups.get((at, variant), [])}

    of_all = next((at for at, _ in groups if at.endswith("of all")), "")
    of_last = next((at for at, _ in groups if at.endswith("of last")), "")
    pairs = {
        "as many epochs": (found("same epochs", "all"), found("same epochs", "last")),
        "the time `all` takes": (found("same epochs", "all"), found(of_all, "last")),
        "the time `last` takes": (found(of_last, "all"), found("same epochs", "last")),
    }
    verdicts = []
    for what, (every, last) in pairs.items():
        more = [every[seed] - last[seed] for seed in every.keys() & last.keys()]
        if more:
            aim = f"{system}: `all` not below `last`, test NDCG@10 after {what}"
            verdicts.append((aim, _mean(more), statistics.mean(more) >= -_deviation(more)))
    return verdicts


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _mean(values: list[float], *, digits: int = 4) -> str:
    return f"{statistics.mean(values):.{digits}f} ± {_deviation(values):.{digits}f}"
