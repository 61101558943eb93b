"""Shape annotations are checked in every test: the import hook must come before the package."""

from jaxtyping import install_import_hook

for _package in ("layers", "losses", "encoders"):
    install_import_hook(f"recbole_kuaiformer.{_package}", "beartype.beartype")
