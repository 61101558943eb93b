"""Groups of keys, read out of a configuration and checked; what is wrong is one error that names the key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

NOTHING = (None, "~", "null")  # yaml's null, on a command line too; there ~ unquoted is a home folder


class SettingsError(ValueError):
    """A key of the configuration is missing, unknown, of the wrong type or out of range."""


S = TypeVar("S", bound="Settings")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Keys that belong together; a subclass names them as fields, without defaults."""

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """Names of the keys this group reads."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def read(cls: type[S], config: Any) -> S:
        """The group's values out of a RecBole Config (or any mapping), typed and checked.

        Raises:
            SettingsError: a key is missing, of the wrong type or out of range.
        """
        hints = get_type_hints(cls)
        values = {}
        for key in cls.keys():  # noqa: SIM118 (a class, not a mapping)
            if key not in config:
                raise SettingsError(f"{key}: missing; properties/ should give it a default")
            values[key] = _cast(config[key], hints[key], key=key)
        return cls(**values)

    def _require(self, key: str, *, that: bool, what: str) -> None:
        if not that:
            raise SettingsError(f"{key}: must be {what}, got {getattr(self, key)!r}")

    def _one_of(self, key: str, names: Iterable[str]) -> None:
        value, known = getattr(self, key), sorted(names)
        if value not in known:
            raise SettingsError(
                f"{key}: {value!r} is not known{nearest(value, known)}; known: {', '.join(known)}"
            )


def check_known_keys(given: Iterable[str], *, ours: Iterable[str], known: Iterable[str]) -> None:
    """Every key the user gave must be one that RecBole or this package reads.

    Args:
        given: keys of the user's files, dict and command line.
        ours: keys of this package, which suggestions are taken from first.
        known: all legal keys.

    Raises:
        SettingsError: names the key, and the nearest known one.
    """
    ours, known = sorted(set(ours)), set(known)
    for key in given:
        if key in known or key in ours:
            continue
        near = nearest(key, ours) or nearest(key, sorted(known))
        raise SettingsError(
            f"{key}: unknown key{near}; name keys of your own in extra_keys (a list) to let them pass"
        )


def nearest(value: Any, known: Iterable[str]) -> str:
    """Words that suggest the known name nearest to the value, whatever its case; none where none is near.

    >>> nearest("sasrec", ["SASRec", "Pop"])
    " (did you mean 'SASRec'?)"
    """
    names = {name.lower(): name for name in known}
    matches = difflib.get_close_matches(str(value).lower(), names, n=1, cutoff=0.7)
    return f" (did you mean {names[matches[0]]!r}?)" if matches else ""


def _cast(value: Any, hint: Any, *, key: str) -> Any:
    """The value in the annotated type; ints pass for floats, lists for tuples, nothing else is bent."""
    if get_origin(hint) in (Union, UnionType):
        if value in NOTHING and NoneType in get_args(hint):
            return None  # RecBole's command line hands on yaml's null as a string
        (hint,) = (arg for arg in get_args(hint) if arg is not NoneType)
    origin = get_origin(hint) or hint
    if origin is tuple and isinstance(value, list | tuple):
        (inner, _) = get_args(hint)
        return tuple(_cast(item, inner, key=key) for item in value)
    if origin is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin is dict and value is None:
        return {}
    is_bool_for_int = origin is int and isinstance(value, bool)
    if not isinstance(value, origin) or is_bool_for_int:
        in_brackets = isinstance(value, str) and value.startswith(("{", "[", "("))
        written = " (as Python writes it on a command line, words in quotes)" if in_brackets else ""
        raise SettingsError(f"{key}: must be {getattr(hint, '__name__', hint)}, got {value!r}{written}")
    if isinstance(value, Mapping):
        return dict(value)
    return value
