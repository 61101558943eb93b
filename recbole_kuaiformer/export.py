"""A checkpoint → an export that serves: python -m recbole_kuaiformer.export --checkpoint X --out DIR."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from recbole_kuaiformer.index.base import IndexUnavailableError
from recbole_kuaiformer.quick_start import USER_ERRORS, fail
from recbole_kuaiformer.serving.writing import export


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m recbole_kuaiformer.export", description=__doc__)
    parser.add_argument("--checkpoint", required=True, help="a .pth file that training wrote")
    parser.add_argument("--out", required=True, help="folder of the export, new or to be refreshed")
    parser.add_argument("--index_factory", default="Flat", help="FAISS's factory string")
    parser.add_argument("--index_parameters", default="", help="FAISS's search parameters")
    parser.add_argument("--data_path", default=None, help="folder that holds the dataset's folder")
    args = parser.parse_args(arguments)
    return run_command(lambda: _export(args))


def _export(args: argparse.Namespace) -> None:
    manifest = export(
        args.checkpoint,
        args.out,
        factory=args.index_factory,
        parameters=args.index_parameters,
        data_path=args.data_path,
    )
    kind = "exact" if manifest["index"]["exact"] else "approximate"
    print(
        f"{args.out}: {manifest['model']} on {manifest['dataset']}, {manifest['n_items']} items of width "
        f"{manifest['dimension']}, index {manifest['index']['factory']} ({kind}), version "
        f"{manifest['version']}"
    )
    dropped = manifest["dropped"]
    if dropped is None:
        print("what lay there was damaged: items added to it, if there were any, are lost")
    elif dropped:
        print(f"{len(dropped)} items added earlier are unknown to this checkpoint and left out: "
              f"{', '.join(dropped[:10])}")  # fmt: skip


def run_command(command: Callable[[], None]) -> int:
    """Run it; what a user can mend is one line on stderr and status 2."""
    try:
        command()
    except (*USER_ERRORS, IndexUnavailableError, OSError, ValueError) as error:
        text = str(error)
        if "known dataset name" in text:
            text += " Set --data_path to the folder that holds the dataset's folder."
        return fail(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
