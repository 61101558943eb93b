"""Markdown tables, and what every report of a benchmark has."""

from __future__ import annotations

from typing import Any

Rows = list[dict[str, Any]]
Verdict = tuple[str, str, bool]  # what was aimed at, what was found, whether it holds

# Okabe and Ito's colours, which colour-blind readers tell apart.
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999",
)  # fmt: skip


def about(result: dict[str, Any]) -> str:
    """The machine that the numbers were taken on, in one line."""
    machine = result["machine"]
    where = f"{machine['cpu']}, {machine['threads']} threads, Python {machine['python']}"
    return f"Measured on {where}, torch {machine['torch']}{' (--quick)' if result['quick'] else ''}."


def of(rows: Rows, kind: str) -> Rows:
    """The rows of a kind that hold numbers."""
    return [row for row in rows if row.get("kind") == kind and "failed" not in row]


def table(head: list[str], body: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def failures(rows: Rows, *, by: str) -> str:
    """A section that lists what failed; empty where nothing did."""
    lines = [f"- {row['kind']} {row.get(by, '')}: {row['failed']}" for row in rows if "failed" in row]
    return "## Failed\n\n" + "\n".join(lines) if lines else ""


def section(title: str, *, case: str, text: str, body: list[str], verdicts: list[Verdict]) -> str:
    """A section of benchmarks.training: command, what is compared, tables, what became of the aims."""
    peer = " --peer-python PYTHON" if case == "epoch" else ""
    run = "python -m recbole_kuaiformer.benchmarks.training"
    command = f"`{run} --out DIR --cases {case} --data_path DATA{peer}`"
    judged = [[aim, found, "yes" if holds else "**no**"] for aim, found, holds in verdicts]
    parts = [f"## {title}", f"{command}. {text}", *body]
    return "\n\n".join([*parts, table(["aim", "found", "holds?"], judged)] if judged else parts)
