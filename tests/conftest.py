"""Shape annotations are checked in every test: the import hook must come before the package."""

from jaxtyping import install_import_hook

for _package in ("layers", "losses", "encoders", "index"):
    install_import_hook(f"recbole_kuaiformer.{_package}", "beartype.beartype")

import recbole_kuaiformer  # noqa: E402, F401  (before recbole.quick_start, which does not import by itself)
