"""PDAutoscaler files: YAML to values, or one line for every fault. Reads files."""

import difflib
import json
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from planner.errors import SpecError
from planner.spec.contradictions import FAULTS
from planner.spec.crd import plain, spec_schema
from planner.spec.resource import API_VERSION, KIND, PDAutoscaler
from planner.spec.yaml_text import YamlError, read_documents

Location = tuple[str | int, ...]

_SHOWN_MAX: Final = 60
_OUTSIDE: Final = reprlib.Repr()
_OUTSIDE.maxlevel = 2
_WRONG_TYPES: Final = {
    "string_type": "no text: write it in quotes",
    "int_type": "no whole number: write one without quotes",
    "dict_type": "no mapping: write key: value lines",
    "model_type": "no mapping: write key: value lines",
    "model_attributes_type": "no mapping: write key: value lines",
    "tuple_type": "no list: begin each entry with a dash",
}


@dataclass(frozen=True, slots=True)
class SpecDocument:
    """One PDAutoscaler and where it stands."""

    spec: PDAutoscaler
    source: str
    folder: Path


def load_specs(paths: Sequence[Path]) -> list[PDAutoscaler]:
    """Return the PDAutoscalers of all files in their order; SpecError as `load_documents`."""
    return [document.spec for document in load_documents(paths)]


def load_documents(paths: Sequence[Path]) -> list[SpecDocument]:
    """Return the PDAutoscalers of all files with their places.

    Raises
    ------
    SpecError
        If anything is wrong with any of them: one line a fault.
    """
    documents: list[SpecDocument] = []
    faults: list[str] = []
    for path in paths:
        try:
            documents.extend(_read_file(path))
        except SpecError as error:
            faults.append(str(error))
    faults.extend(_name_clashes(documents))
    if faults:
        raise SpecError("\n".join(faults))
    return documents


def _read_file(path: Path) -> list[SpecDocument]:
    try:
        entries = _entries(path)
    except (OSError, UnicodeDecodeError, YamlError) as error:
        raise SpecError(f"{path}: {_why(error)}") from error
    documents: list[SpecDocument] = []
    faults: list[str] = []
    for place, entry in entries:
        source = f"{path} ({place})" if len(entries) > 1 else str(path)
        try:
            documents.append(SpecDocument(parse_spec(entry, source), source, path.parent))
        except SpecError as error:
            faults.append(str(error))
    if not entries:
        faults.append(f"{path}: holds nothing: write a {KIND}")
    if faults:
        raise SpecError("\n".join(faults))
    return documents


def _entries(path: Path) -> list[tuple[str, Any]]:
    """Return the objects of a file with their places; a List is its items."""
    found: list[tuple[str, Any]] = []
    for number, document in enumerate(read_documents(path.read_text(encoding="utf-8")), 1):
        if isinstance(document, Mapping) and document.get("kind") == "List":
            items = document.get("items")
            for index, item in enumerate(items if isinstance(items, list) else []):
                found.append((f"document {number}, items[{index}]", item))
        else:
            found.append((f"document {number}", document))
    return found


def _why(error: OSError | UnicodeDecodeError | YamlError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file: give the path of a YAML file"
    if isinstance(error, IsADirectoryError):
        return "is a folder: give the path of a YAML file"
    if isinstance(error, OSError):
        return f"{error.strerror}: give a file that can be read"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is no UTF-8: save the file as UTF-8"
    return str(error)


def _name_clashes(documents: Iterable[SpecDocument]) -> Iterator[str]:
    seen: dict[tuple[str, str], str] = {}
    for document in documents:
        meta = document.spec.metadata
        first = seen.setdefault((meta.namespace, meta.name), document.source)
        if first != document.source:
            yield (
                f"{document.source}: metadata.name: {meta.namespace}/{meta.name} is in {first} "
                "too: choose another name or namespace"
            )


def parse_spec(document: object, source: str) -> PDAutoscaler:
    """Return the PDAutoscaler of a document already in Python values; `source` names it.

    Raises
    ------
    SpecError
        If it is none: one line a fault, sorted by path.
    """
    if not isinstance(document, Mapping):
        raise SpecError(f"{source}: {_shown(document)} is no mapping: write a {KIND}")
    kind = document.get("kind")
    if kind is not None and kind != KIND:
        raise SpecError(
            f"{source}: kind: {_shown(kind)} is not handled here; legal: {KIND}, or a List of "
            "them: move it to another file"
        )
    # A status comes with what `kubectl get -o yaml` printed; it is nothing that is asked for.
    asked = {key: value for key, value in document.items() if key != "status"}
    try:
        return PDAutoscaler.model_validate(asked)
    except ValidationError as error:
        faults = [f for detail in error.errors(include_url=False) for f in _faults(detail)]
        lines = (f"{source}: {_path(where)}: {what}" for where, what in sorted(faults, key=_order))
        raise SpecError("\n".join(dict.fromkeys(lines))) from error


def _order(fault: tuple[Location, str]) -> tuple[list[tuple[bool, int, str]], str]:
    # pools[10] comes after pools[2], and both where the text has them among the words.
    where, what = fault
    steps = [(isinstance(s, int), s if isinstance(s, int) else 0, str(s)) for s in where]
    return steps, what


def _path(where: Location) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in where)
    return "".join(steps).removeprefix(".")


def _faults(detail: ErrorDetails) -> list[tuple[Location, str]]:
    where = detail["loc"]
    if detail["type"] == FAULTS:
        return [(where + fault.where, fault.message) for fault in detail["ctx"]["faults"]]
    return [(where, _message(detail))]


def _message(detail: ErrorDetails) -> str:
    kind, where, value = detail["type"], detail["loc"], detail["input"]
    shown = _shown(value)
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    if kind == "missing":
        return f"is missing: add it{_meaning(where)}"
    if kind in {"extra_forbidden", "invalid_key"}:
        return _unknown_key(where)
    if kind in {"enum", "literal_error"}:
        legal = _node(where).get("enum") or [_node(where).get("const", API_VERSION)]
        return f"{shown} is unknown; legal: {', '.join(map(str, legal))}{_close(value, legal)}"
    if kind in _WRONG_TYPES:
        return f"{shown} is {_WRONG_TYPES[kind]}"
    return f"{shown} is out of range: write {_legal(_node(where))}"


def _legal(node: Mapping[str, Any]) -> str:
    if "pattern" in node:
        return "lower-case letters, digits, - and ., a letter or digit at both ends"
    if node.get("type") == "array":
        return f"{node.get('minItems', 0)} to {node['maxItems']} entries"
    if node.get("type") == "string":
        return f"{node.get('minLength', 0)} to {node.get('maxLength')} characters"
    low, high = node.get("minimum"), node.get("maximum")
    return f"a whole number from {low} to {high}" if high is not None else f"at least {low}"


def _unknown_key(where: Location) -> str:
    legal = sorted(_node(where[:-1]).get("properties", {}))
    return f"is no key here; legal: {', '.join(legal)}{_close(where[-1], legal)}"


def _close(value: object, legal: Sequence[object]) -> str:
    by_lower = {str(name).lower(): str(name) for name in legal}
    close = difflib.get_close_matches(str(value).lower(), by_lower, n=1)
    return f"; did you mean {by_lower[close[0]]}?" if close else ""


def _meaning(where: Location) -> str:
    words = str(_node(where).get("description", "")).split(". ")[0]
    return f" ({' '.join(words.split()).rstrip('.')})" if words else ""


def _node(where: Location) -> Mapping[str, Any]:
    """Return the schema of the field at a path, empty if there is none."""
    schema = _schema()
    definitions = schema["$defs"]
    node = plain(schema, definitions)
    for step in where:
        inner = node.get("items") if isinstance(step, int) else None
        inner = inner or node.get("properties", {}).get(step) or node.get("additionalProperties")
        if not isinstance(inner, Mapping):
            return {}
        node = plain(inner, definitions)
    return node


@cache
def _schema() -> dict[str, Any]:
    return spec_schema()


def _shown(value: object) -> str:
    # Anchors make lists that hold themselves, or billions of entries: look at the outside only.
    if isinstance(value, list | dict):
        text = _OUTSIDE.repr(value)
    else:
        text = json.dumps(value, default=repr, ensure_ascii=True)
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…"
