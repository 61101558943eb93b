"""Sections of benchmarks.training's report: compression, exactness, distance from the limit, options."""

from __future__ import annotations

from typing import Any

from recbole_kuaiformer.benchmarks.measuring import median
from recbole_kuaiformer.benchmarks.options_cases import PLAIN
from recbole_kuaiformer.benchmarks.tables import Rows, Verdict, of, section, table


def compression(rows: Rows) -> str:
    """Section: operations and time over history length and layout; empty where nothing was measured."""
    rows = of(rows, "compression")
    if not rows:
        return ""
    body, verdicts = [], []
    for n_layers in dict.fromkeys(row["n_layers"] for row in rows):
        here = {row["layout"]: row for row in rows if row["n_layers"] == n_layers}
        body += [f"### {n_layers} layers", _compression_table(here)]
        verdicts += _compression_verdicts(here, n_layers=n_layers)
    exact = all(
        row[f"{what}_flops"] == row[f"{what}_flops_by_formula"]
        for row in rows
        for what in ("inference", "step")
    )
    text = (
        "The encoder alone (D = 64, K = 4), full histories, one target each; all layouts in turn in one "
        "process; per sequence, in brackets the ratio to plain 64. A step is forward and backward. "
        "Operations are counted by torch's FlopCounterMode, told of the CPU's fused attention, which it "
        f"leaves out; the formula by hand {'gives the same numbers' if exact else '**differs**'}."
    )
    return section("3 Compression", case="compression", text=text, body=body, verdicts=verdicts)


def _compression_table(here: dict[str, Any]) -> str:
    base = here.get("plain 64")
    body = []
    for name, row in here.items():
        cells = [name, f"{row['length']:,}", str(row["tokens"]), str(row["batch"])]
        for what in ("inference", "step"):
            for key, scale in ((f"{what}_flops", 1e-6), (f"{what}_seconds", 1e3)):
                times = f" ({_middle(row[key]) / _middle(base[key]):.2f})" if base else ""
                cells.append(f"{_middle(row[key]) * scale:,.2f}{times}")
        body.append(cells)
    head = ["layout", "items", "tokens", "batch", "inference MFLOP", "inference ms", "step MFLOP", "step ms"]
    return table(head, body)


def _middle(value: Any) -> float:
    return median(value) if isinstance(value, list) else float(value)


def _compression_verdicts(here: dict[str, Any], *, n_layers: int) -> list[Verdict]:
    verdicts: list[Verdict] = []
    plain, packed = here.get("plain 64"), here.get("compressed 256")
    if plain and packed and n_layers == 4:
        work = packed["inference_flops"] / plain["inference_flops"]
        verdicts.append(
            (
                "compressed 256 ≤ 1.15x plain 64, operations of an inference, 4 layers",
                f"{work:.3f}x",
                work <= 1.15,
            )
        )
        for what in ("inference", "step"):
            time = _middle(packed[f"{what}_seconds"]) / _middle(plain[f"{what}_seconds"])
            verdicts.append(
                (
                    f"compressed 256 ≤ 1.25x plain 64, time of one {what}, 4 layers",
                    f"{time:.2f}x",
                    time <= 1.25,
                )
            )
    longest = max(here.values(), key=lambda row: row["length"])
    if packed and longest["length"] > 1024:
        longer = longest["length"] / packed["length"]
        more = longest["inference_flops"] / packed["inference_flops"]
        aim = (
            f"256 to {longest['length']:,} items well below linear (half of {longer:.0f}x), {n_layers} layers"
        )
        verdicts.append((aim, f"{more:.1f}x the operations", more <= longer / 2))
    return verdicts


def exactness(rows: Rows) -> str:
    """Section: several targets in one pass against a pass for each; empty where nothing was measured."""
    rows = of(rows, "exactness")
    if not rows:
        return ""
    keys = ("vectors", "loss", "gradient")
    cells = [
        [r["encoder"], r["dtype"], f"{r['targets']:,}", *(f"{r[key]:.1e}" for key in keys)] for r in rows
    ]
    worst = max(row["vectors"] for row in rows if row["dtype"] == "float32")
    text = (
        "Several targets in one pass against a pass for each, over random windows of random lengths, padding "
        "and targets: the largest difference of an entry of the vectors, of the loss, and of an entry of its "
        "gradient relative to the largest entry."
    )
    verdict = ("packed against separate ≤ 1e-5 in float32", f"{worst:.1e}", worst <= 1e-5)
    body = [table(["encoder", "numbers", "targets", *keys], cells)]
    return section("4 Exactness", case="exactness", text=text, body=body, verdicts=[verdict])


def limit(rows: Rows) -> str:
    """Section: a training step against its bare matrix products; empty where nothing was measured."""
    rows = of(rows, "limit")
    if not rows:
        return ""
    body = []
    for row in rows:
        seconds, bare = median(row["step_seconds"]), median(row["bare_seconds"])
        rest = sorted(row["profile"].items(), key=lambda item: -item[1])
        whole = sum(row["profile"].values())
        where = ", ".join(f"{name} {value / whole:.0%}" for name, value in rest[:5])
        cells = [row["system"], row["dataset"], str(row["length"]), f"{row['flops'] / seconds / 1e9:.1f}"]
        cells += [f"{row['flops_of_products'] / bare / 1e9:.1f}", f"{row['peak_flops_per_second'] / 1e9:.1f}"]
        body.append([*cells, f"{row['share']:.0%}", where])
    head = ["system", "dataset", "length", "step GFLOP/s", "its bare products", "one large product", "share"]
    text = (
        "Real batches, forward, backward and optimiser, against the same matrix products (those inside of "
        "attention too) each on its own on random matrices, in turn. Share is the time of the bare products "
        "over that of the step. Where the time goes is by torch's profiler, see profile.png."
    )
    verdicts = [
        (
            f"{r['system']}, {r['dataset']}, length {r['length']}: ≥ 50 %",
            f"{r['share']:.0%}",
            r["share"] >= 0.5,
        )
        for r in rows
    ]
    tables = [table([*head, "where the time goes"], body)]
    return section("5 Distance from the limit", case="limit", text=text, body=tables, verdicts=verdicts)


def options(rows: Rows) -> str:
    """Section: training with each option against training without; empty where nothing was measured."""
    everything = [row for row in rows if row.get("kind") == "options"]
    if not of(rows, "options"):
        return ""
    body = []
    for system in dict.fromkeys(row["system"] for row in everything):
        here = [row for row in everything if row["system"] == system]
        plain = next(row for row in here if row["option"] == PLAIN)
        body += [
            f"### {system}, {plain['dataset']}, length {plain['length']}",
            table(
                ["option", "targets/s", "x as it is", "peak MiB of a step"],
                [_option_cells(row, plain) for row in here],
            ),
        ]
    text = (
        "The same training with one option changed, all in turn in one process. Peak MiB are what a step "
        "takes beyond what stands. A ratio below 1 is a loss: such an option is for other machines, or none."
    )
    return section("Options", case="options", text=text, body=body, verdicts=[])


def _option_cells(row: dict[str, Any], plain: dict[str, Any]) -> list[str]:
    if "failed" in row:
        return [row["option"], f"failed: {row['failed']}", "", ""]
    speeds = row["targets_per_second"]
    ratios = [a / b for a, b in zip(speeds, plain["targets_per_second"])]
    ratio = (
        f"{median(speeds) / median(plain['targets_per_second']):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )
    return [row["option"], f"{median(speeds):,.0f}", ratio, f"{row['peak_mib']:,.0f}"]
