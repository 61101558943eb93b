"""Shape annotations are checked in every test: the import hook must come before the package."""

import pytest
import torch
from jaxtyping import install_import_hook

for _package in ("layers", "losses", "encoders", "index"):
    install_import_hook(f"recbole_kuaiformer.{_package}", "beartype.beartype")

import recbole_kuaiformer  # noqa: E402, F401  (before recbole.quick_start, which does not import by itself)

_is_available, _device_count = torch.cuda.is_available, torch.cuda.device_count


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Tests without the mark ``gpu`` see none, nor do their fixtures: their references are on the CPU."""
    is_gpus = item.get_closest_marker("gpu") is not None
    torch.cuda.is_available = _is_available if is_gpus else lambda: False
    torch.cuda.device_count = _device_count if is_gpus else lambda: 0
