"""Whether two models differ by more than chance over users: paired bootstrap, Wilcoxon, Holm's correction."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from recbole_kuaiformer.benchmarks import tables
from recbole_kuaiformer.benchmarks.comparison_tables import title
from recbole_kuaiformer.benchmarks.user_ranks import OF_A_USER, UserRanks
from recbole_kuaiformer.config import READINGS

Floats = npt.NDArray[np.float64]

RESAMPLES, COVERAGE, SEED = 10_000, 0.95, 0
FEWEST_BEYOND = 20  # resamples on the far side of 0; fewer do not count a p-value well
DRAWN_AT_ONCE = 2**22  # counts held while resampling
METRICS = ("ndcg@10", "recall@10", "recall@50")


@dataclass(frozen=True)
class Comparison:
    """Two models on the users that both were tested on.

    Attributes:
        seeds: runs of each whose values are averaged for every user before.
        difference: mean over users of first − second.
        low: lower end of its 95 % interval (percentiles of the bootstrap).
        high: upper end.
        p_bootstrap: two-sided; 1 where no user differs.
        p_wilcoxon: two-sided signed-rank test over the users that differ; 1 where none does.
        corrected_bootstrap: after Holm's correction over all comparisons; NaN before it.
        corrected_wilcoxon: likewise.
    """

    dataset: str
    history: str
    metric: str
    first: str
    second: str
    users: int
    seeds: int
    difference: float
    low: float
    high: float
    p_bootstrap: float
    p_wilcoxon: float
    corrected_bootstrap: float = math.nan
    corrected_wilcoxon: float = math.nan


def bootstrap(
    differences: Floats, *, resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, float, float]:
    """Ends of the 95 % interval of the mean under resampling of users, and the two-sided p that it is 0.

    Users with one value are drawn together (a multinomial count of each value), which is the same
    distribution as drawing user by user, in a fraction of the time. The p-value counts resamples beyond 0;
    where these are fewer than FEWEST_BEYOND it is the paired t-test's: a count could not tell one in a
    million from one in ten thousand, and Holm's correction over hundreds of pairs would call both chance.
    It is never less than the t-test's, as the count alone is where few users differ.
    """
    values, counts = np.unique(differences, return_counts=True)
    if len(values) == 1:
        only = float(values[0])
        return only, only, 1.0 if only == 0 else 2 / (resamples + 1)
    rng, n = np.random.default_rng(seed), len(differences)
    size = max(1, DRAWN_AT_ONCE // len(values))
    means = np.concatenate(
        [
            rng.multinomial(n, counts / n, size=min(size, resamples - start)) @ values / n
            for start in range(0, resamples, size)
        ]
    )
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    beyond = min(int((means <= 0).sum()), int((means >= 0).sum()))
    p = float(stats.ttest_1samp(differences, 0).pvalue)
    if beyond >= FEWEST_BEYOND:
        p = max(p, min(1.0, 2 * (beyond + 1) / (resamples + 1)))
    return float(low), float(high), p


def wilcoxon(differences: Floats) -> float:
    """Two-sided p of the signed-rank test; users without a difference take no part."""
    differing = differences[differences != 0]
    return 1.0 if len(differing) == 0 else float(stats.wilcoxon(differing).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979): adjusted p-values, in the order given.

    >>> [round(p, 4) for p in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def user_values(runs: Iterable[UserRanks], *, reading: str, metric: str) -> dict[tuple[str, str], float]:
    """Mean over the seeds of each user's metric, by (user, target); empty where there is no such reading."""
    name, _, k = metric.partition("@")
    of_user: Callable[..., Floats] = OF_A_USER[name]
    held: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        if reading in run.ranks:
            values = of_user(run.ranks[reading], k=int(k)).tolist()
            for user, item, value in zip(run.users.tolist(), run.items.tolist(), values):
                held.setdefault((user, item), []).append(value)
    return {key: sum(values) / len(values) for key, values in held.items()}


def matched(first: Iterable[int], second: Iterable[int]) -> tuple[list[int], list[int]]:
    """As many seeds of the one as of the other: those that both have, or where there are none the first few.

    A mean over several runs varies less from user to user than a single run, which the signed-rank test
    would take for a difference.

    >>> matched([1, 2, 3], [1]), matched([1, 2], [3])
    (([1], [1]), ([1], [3]))
    """
    mine, theirs = sorted(first), sorted(second)
    if common := [seed for seed in mine if seed in theirs]:
        return common, common
    n = min(len(mine), len(theirs))
    return mine[:n], theirs[:n]


def compared(
    runs: Mapping[str, Mapping[int, UserRanks]], *, dataset: str, metrics: Sequence[str] = METRICS
) -> list[Comparison]:
    """Every pair of models in every reading that both have, over as many seeds of each, not yet corrected.

    Args:
        runs: ranks by model and seed.
        dataset: for the table.
        metrics: per-user metrics and their cut-offs.
    """
    found = []
    for reading, metric in itertools.product(READINGS, metrics):
        there = {
            name: {seed: one for seed, one in of_model.items() if reading in one.ranks}
            for name, of_model in runs.items()
        }

        held: dict[tuple[str, tuple[int, ...]], dict[tuple[str, str], float]] = {}
        for names in itertools.combinations([name for name in there if there[name]], 2):
            seeds = matched(*(there[name] for name in names))
            sides = [(name, tuple(chosen)) for name, chosen in zip(names, seeds)]
            for name, chosen in {*sides} - held.keys():
                ranks = [there[name][seed] for seed in chosen]
                held[name, chosen] = user_values(ranks, reading=reading, metric=metric)
            mine, theirs = (held[side] for side in sides)
            common = sorted(mine.keys() & theirs.keys())
            if not common:
                continue
            # Rounded, as sums of seeds in another order are the same value.
            differences = np.round(np.array([mine[key] - theirs[key] for key in common]), 12)
            low, high, p = bootstrap(differences)
            found.append(
                Comparison(
                    dataset, reading, metric, *names, users=len(common), seeds=len(seeds[0]),
                    difference=float(differences.mean()), low=low, high=high,
                    p_bootstrap=p, p_wilcoxon=wilcoxon(differences),
                )
            )  # fmt: skip
    return found


def corrected(found: Sequence[Comparison]) -> list[Comparison]:
    """The same with Holm's correction over all of them, for each of the two tests."""
    bootstraps, signed = (
        holm([one.p_bootstrap for one in found]),
        holm([one.p_wilcoxon for one in found]),
    )
    return [
        replace(one, corrected_bootstrap=b, corrected_wilcoxon=w)
        for one, b, w in zip(found, bootstraps, signed)
    ]


def ranks_by_model(rows: Sequence[Mapping[str, Any]], *, out: Path) -> dict[str, dict[int, UserRanks]]:
    """The saved ranks of the finished runs of one dataset, by model and seed; says which cannot be read."""
    held: dict[str, dict[int, UserRanks]] = {}
    for row in rows:
        file = out / row["folder"] / "ranks.npz"
        if "failed" not in row and "published" not in row and file.is_file():
            try:
                held.setdefault(row["name"], {})[row["seed"]] = UserRanks.load(file)
            except ValueError as error:
                print(f"{file}: {error}; the run takes no part in significance tests", flush=True)
    return held


def as_rows(found: Sequence[Comparison]) -> list[dict[str, Any]]:
    """For JSON."""
    return [asdict(one) for one in found]


def as_markdown(found: Sequence[Comparison]) -> str:
    """The table of all comparisons."""
    head = ["dataset", "history", "metric", "models", "users", "seeds", "difference", "95 %", "p bootstrap"]
    head += ["corrected", "p Wilcoxon", "corrected"]
    body = [
        [
            one.dataset, one.history, title(one.metric), f"{one.first} - {one.second}",
            str(one.users), str(one.seeds),
            f"{one.difference:+.4f}", f"{one.low:+.4f} … {one.high:+.4f}",
            *(_p(p) for p in (
                one.p_bootstrap, one.corrected_bootstrap, one.p_wilcoxon, one.corrected_wilcoxon
            )),
        ]
        for one in found
    ]  # fmt: skip
    text = (
        "Paired over users, each user's values averaged over the seeds that both models have, or where there "
        "are none over as many of each (so that the difference need not be that of a table's means): the "
        f"tests speak of other users, not of other seeds. {RESAMPLES} bootstrap resamples, p never below "
        f"the paired t-test's, and that one where fewer than {FEWEST_BEYOND} lie beyond 0; Wilcoxon over "
        f"users that differ; Holm's correction over all {len(found)} comparisons of this page, for each test."
    )
    return f"# Significance\n\n{text}\n\n{tables.table(head, body)}\n"


def _p(value: float) -> str:
    """A p-value in two digits; one too small for a float is not 0.

    >>> _p(0.0123), _p(0.0), _p(math.nan)
    ('0.012', '< 1e-300', 'nan')
    """
    return "< 1e-300" if value < 1e-300 else f"{value:.2g}"
