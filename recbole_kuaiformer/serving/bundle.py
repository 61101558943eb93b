"""An export's files: written beside and swapped in, checked on every read, none of them a pickle."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

FORMAT = "recbole_kuaiformer-export/1"
MANIFEST = "manifest.json"
LOCK = ".lock"
_NEEDED = {"version": str, "files": dict, "index": dict, "n_items": int, "n_model_items": int}
_FILES = ("model.json", "model.safetensors", "items.json", "items.safetensors")

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

Writer = Callable[[Path], None]


class ExportError(ValueError):
    """A folder is no complete export; the message names the file at fault."""


class StaleExportError(ExportError):
    """The export was replaced again and again while it was read; try again."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other writers of the export out until the block ends; makes the folder if it is not there.

    Writers in other processes wait too, where the system has flock (Linux, macOS).

    Raises:
        ExportError: the folder holds something else than an export.
    """
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write(folder: Path, *, files: Mapping[str, Writer], facts: Mapping[str, Any]) -> str:
    """Write a version of an export beside what is there, then make it the current one; returns its name.

    To be called inside ``locked``. Readers see the old version or the new one, never a mixture: the
    manifest, replaced in one step, says which files belong together. The version before stays for readers
    that are just loading it; what older writers left is removed.

    Args:
        folder: the export.
        files: a function for each file that writes it to the path it is given.
        facts: further entries of the manifest.
    """
    before = _current(folder)
    version = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
    beside = folder / f".{version}.part"
    beside.mkdir(parents=True)
    try:
        for name, writer in files.items():
            writer(beside / name)
            (beside / name).chmod(0o644)  # safetensors writes files that their owner alone can read
        manifest = {
            "format": FORMAT,
            "version": version,
            "created": f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}",
            **facts,
            "files": {name: _fingerprint(beside / name) for name in files},
        }
        part = beside / MANIFEST
        part.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        beside.rename(folder / version)
        (folder / version / MANIFEST).replace(folder / MANIFEST)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(folder / version, ignore_errors=True)
        raise
    _drop_all_but(folder, {version, before})
    return version


def _current(folder: Path) -> str | None:
    try:
        return str(read_manifest(folder)["version"])
    except ExportError:
        return None


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
    damaged = [key for key, kind in _NEEDED.items() if not isinstance(manifest.get(key), kind)]
    damaged += [name for name in _FILES if not damaged and not isinstance(manifest["files"].get(name), dict)]
    if damaged:
        raise ExportError(f"{file}: its entry {damaged[0]!r} is missing or damaged; export again")
    return manifest


def checked_files(
    folder: Path, manifest: Mapping[str, Any], *, only: Collection[str] = ()
) -> dict[str, Path]:
    """Paths of the version's files (all, or those named), each compared with its size and checksum.

    Raises:
        ExportError: a file is missing, cut off or altered.
    """
    paths = {}
    for name, fingerprint in manifest["files"].items():
        if only and name not in only:
            continue
        path = folder / manifest["version"] / name
        if not path.is_file():
            raise ExportError(f"{path}: missing; export again")
        found = _fingerprint(path)
        if found["bytes"] != fingerprint.get("bytes"):
            said = fingerprint.get("bytes")
            raise ExportError(f"{path}: {found['bytes']} bytes, but the manifest says {said}; export again")
        if found != fingerprint:
            raise ExportError(f"{path}: its SHA-256 is not the manifest's; it was altered, export again")
        paths[name] = path
    return paths


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something else than an export, or what a broken-off one left.

    Raises:
        ExportError: says what is in the way.
    """
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{folder}: a file; name a folder for the export")
    if folder.is_dir() and not (folder / MANIFEST).is_file():
        foreign = [path.name for path in folder.iterdir() if not _is_ours(path.name)]
        if foreign:
            raise ExportError(
                f"{folder}: holds other files ({foreign[0]} …); name an empty folder, or one that holds an "
                "export"
            )


def _fingerprint(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _drop_all_but(folder: Path, kept: set[str | None]) -> None:
    """Remove older versions, and what writers left that were broken off."""
    for path in folder.iterdir():
        if path.is_dir() and _is_ours(path.name) and path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)


def _is_ours(name: str) -> bool:
    stamp, _, token = name.removeprefix(".").removesuffix(".part").partition("-")
    return name == LOCK or (len(stamp) == 15 and stamp[8] == "T" and len(token) == 8)
