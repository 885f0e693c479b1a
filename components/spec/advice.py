"""Which key an unknown key was meant to be: one that is misspelt, a key of another program, or one of another place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from components.spec import pastes
from components.spec.findings import nearest, shown
from components.spec.keypath import KeyPath, dotted, pattern_of, value_at
from components.spec.model_paths import accepts, annotation_at, every_key, has_shape_of, known_keys

# The similarity from which on a key counts as misspelt. With less, "apiServer" would be "serviceCidr".
_CUTOFF = 0.7
_MOST_PLACES = 3


@dataclass(frozen=True)
class Advice:
    """`fix` continues "Fix: ". `meant`: the key that the author probably meant. No rule may rely on it now."""

    fix: str
    meant: KeyPath | None = None


def for_unknown_key(raw: object, path: KeyPath) -> Advice:
    """What to do about the unknown key at `path`."""
    word, value, parent = str(path[-1]), value_at(raw, path), path[:-1]
    siblings = [key for key in known_keys(raw, parent) if key not in (value_at(raw, parent) or ())]
    fitting = [key for key in siblings if has_shape_of(annotation_at(raw, (*parent, key)), value)]
    same = next((key for key in fitting if pastes.plain(key) == pastes.plain(word)), None)
    before_colon = word.partition(":")[0]
    if before_colon in siblings:
        return Advice(f"write a space after the colon of {before_colon}", (*parent, before_colon))
    if same is None:
        if foreign := _foreign(parent, word, value):
            return foreign
        same = nearest(word, fitting, _CUTOFF)
    if same is not None:
        return Advice(f"did you mean {same}? If not, remove it", (*parent, same))
    if places := _places_named(word):
        written = [_numbered(place, parent) for place in places]
        return Advice(f"it belongs elsewhere: write {_listed(written)}", _fixed(places))
    if isinstance(value, dict) and (inner := list(_inside(value))):
        return Advice("; ".join(inner[:_MOST_PLACES]))
    known = known_keys(raw, parent)
    return Advice(f"use one of {', '.join(known)}" if known else "remove it")


def _foreign(parent: KeyPath, word: str, value: object) -> Advice | None:
    """The advice for a key of another program; None if it is not known as one."""
    if pastes.is_autodetection(word):
        fix = pastes.autodetection(value) or "write calico.interface with the name of the interface, e.g. eth1"
        return Advice(fix, ("calico", "interface"))
    place = pastes.place_of(pattern_of(parent), word)
    return Advice(_write(_numbered(place, parent), value), _fixed([place])) if place else None


def _numbered(place: str, parent: KeyPath) -> str:
    """The place with the index of the list item around `parent`: networks[].subnet becomes networks[2].subnet."""
    for end in range(len(parent), 0, -1):
        if isinstance(parent[end - 1], int) and place.startswith(pattern_of(parent[:end])):
            return dotted(parent[:end]) + place.removeprefix(pattern_of(parent[:end]))
    return place


def _inside(value: dict[str, object]) -> Iterator[str]:
    """Advice for the keys of an unknown mapping, such as kubeadm's `networking`."""
    for word, inner in value.items():
        if place := pastes.place_of("", word):
            yield _write(place, inner)
        elif places := _places_named(word):
            yield f"write {_listed(places)}"


def _write(place: str, value: object) -> str:
    """The key to write, with the value if that key accepts it."""
    annotation = annotation_at(None, tuple(part for part in re.split(r"[.\[\]]+", place) if part))
    fitting = "[" not in place and value is not None and accepts(annotation, value)
    return f"write {place}: {shown(value)}" if fitting else f"write {place}"


def _fixed(places: list[str]) -> KeyPath | None:
    """The place as a path; None if there are several places or it is in a list."""
    return tuple(places[0].split(".")) if len(places) == 1 and "[]" not in places[0] else None


def _listed(places: list[str]) -> str:
    return " or ".join(places)


def _places_named(word: str) -> list[str]:
    """The places where the models have a key of this name. Empty if there are so many that they would not help."""
    places = _index().get(pastes.plain(word), [])
    return places if len(places) <= _MOST_PLACES else []


@cache
def _index() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, place in every_key():
        places = found.setdefault(pastes.plain(key), [])
        if place not in places:
            places.append(place)
    return found
