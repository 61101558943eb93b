"""An export's files: written beside and swapped in, checked on every read, none of them a pickle."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

FORMAT = "recbole_kuaiformer-export/1"
MANIFEST = "manifest.json"
VERSIONS_KEPT = 2  # the current one, and the one a reader may just be loading

Writer = Callable[[Path], None]


class ExportError(ValueError):
    """A folder is no complete export; the message names the file at fault."""


class StaleExportError(ExportError):
    """The export changed while it was read or about to be written; try again."""


def write(
    folder: Path, *, files: dict[str, Writer], facts: dict[str, Any], expected: str | None = None
) -> str:
    """Write a version of an export beside what is there, then make it the current one; returns its name.

    Readers see the old version or the new one, never a mixture: the manifest, replaced in one step, says
    which files belong together. The version before stays for readers that are just loading it.

    Args:
        folder: the export; made if it is not there.
        files: a function for each file that writes it to the path it is given.
        facts: further entries of the manifest.
        expected: the version this one is made from; None to write whatever is there.

    Raises:
        ExportError: the folder holds something else than an export.
        StaleExportError: somebody else wrote a version meanwhile; nothing was changed.
    """
    _check_folder(folder)
    version = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
    beside = folder / f".{version}.part"
    beside.mkdir(parents=True)
    try:
        for name, writer in files.items():
            writer(beside / name)
            (beside / name).chmod(0o644)  # whoever serves may be another user than the one who trained
        manifest = {
            "format": FORMAT,
            "version": version,
            "created": f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}",
            **facts,
            "files": {name: _fingerprint(beside / name) for name in files},
        }
        if expected is not None and read_manifest(folder)["version"] != expected:
            raise StaleExportError(f"{folder}: another version was written meanwhile; do it again")
        beside.rename(folder / version)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    part = folder / f".{version}.{MANIFEST}"
    part.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    part.replace(folder / MANIFEST)
    _drop_old(folder)
    return version


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the current version.

    Raises:
        ExportError: there is none, or it is none of ours.
    """
    file = folder / MANIFEST
    if not folder.is_dir():
        raise ExportError(f"{folder}: no such folder")
    if not file.is_file():
        raise ExportError(f"{file}: missing; {folder} is no export, or its writing was broken off")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExportError(f"{file}: not JSON ({error}); export again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ExportError(f"{file}: not of format {FORMAT}; export again with this version of the package")
    return manifest


def checked_files(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Path]:
    """Paths of the version's files, each compared with its size and checksum.

    Raises:
        ExportError: a file is missing, cut off or altered.
    """
    paths = {}
    for name, fingerprint in manifest["files"].items():
        path = folder / manifest["version"] / name
        if not path.is_file():
            raise ExportError(f"{path}: missing; export again")
        found = _fingerprint(path)
        if found["bytes"] != fingerprint["bytes"]:
            raise ExportError(
                f"{path}: {found['bytes']} bytes, but the manifest says {fingerprint['bytes']}; export again"
            )
        if found != fingerprint:
            raise ExportError(f"{path}: its SHA-256 is not the manifest's; it was altered, export again")
        paths[name] = path
    return paths


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{folder}: a file; name a folder for the export")
    is_foreign = (
        folder.is_dir()
        and not (folder / MANIFEST).is_file()
        and any(not (path.name.startswith(".") and path.name.endswith(".part")) for path in folder.iterdir())
    )
    if is_foreign:
        raise ExportError(f"{folder}: holds other files; name an empty folder, or one that holds an export")


def _fingerprint(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _drop_old(folder: Path) -> None:
    versions = sorted(path for path in folder.iterdir() if path.is_dir() and _is_version(path.name))
    current = read_manifest(folder)["version"]
    for path in [path for path in versions if path.name != current][: -(VERSIONS_KEPT - 1)]:
        shutil.rmtree(path, ignore_errors=True)


def _is_version(name: str) -> bool:
    stamp, _, token = name.partition("-")
    return len(stamp) == 15 and stamp[8] == "T" and len(token) == 8
