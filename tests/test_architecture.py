"""Import directions: lower layers know nothing of higher ones, and RecBole is met at the edge only."""

import ast
from pathlib import Path

import pytest

import recbole_kuaiformer

ROOT = Path(recbole_kuaiformer.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MAY_IMPORT = {
    "layers": {"layers"},
    "losses": {"losses"},
    "index": {"index"},
    "encoders": {"encoders", "layers"},
    "data": {"data", "settings", "config", "compat"},
    "models": {"models", "settings", "bucket_options", "config", "encoders", "losses", "data"},
    "evaluation": {
        "evaluation", "settings", "value_checks", "config", "checkpoint", "data", "defaults", "index",
        "losses", "models",
    },
    "serving": {"serving", "checkpoint", "compat", "defaults", "index", "models"},
    "settings": set(),
    "bucket_options": {"settings"},
    "config": {"settings", "bucket_options"},
    "compat": set(),
    "defaults": set(),
    "checkpoint": set(),
    "spawning": {"compat"},
    "value_checks": {"settings", "config"},
}  # fmt: skip
RECBOLE_IN = {
    "models", "evaluation", "data/dataset", "data/history", "data/logged", "data/sequences", "data/presplit",
    "data/atomic_files", "data/item_floats", "value_checks", "plugin", "compat", "checkpoint", "quick_start",
    "serving", "benchmarks",
}  # fmt: skip


def imports_of(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield from ([f"{node.module}.{name.name}" for name in node.names])
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_downwards(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    for name in imports_of(file):
        top, *rest = name.split(".")
        if top == "recbole_kuaiformer" and rest and parts[0] in MAY_IMPORT:
            assert rest[0] in MAY_IMPORT[parts[0]], name
        if top == "recbole":
            assert parts[0] in RECBOLE_IN or "/".join(parts) in RECBOLE_IN, name
        assert not name.startswith("faiss"), name


def test_faiss_is_met_in_one_file_and_its_torch_patch_in_none():
    for file in FILES:
        text = file.read_text()
        assert ('import_module("faiss")' in text) == (file.name == "faiss_index.py"), file
        assert "contrib.torch_utils" not in text, file
