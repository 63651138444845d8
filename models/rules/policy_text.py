"""YAML of a stranger: a small, plain subset, with the line of every value.

Aliases are refused (a kilobyte of them unfolds to gigabytes), as are tags, double keys, deep nesting and more
than one document.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import yaml

MAX_BYTES = 64 * 1024
MAX_DEPTH = 12

Path = tuple[int | str, ...]


class TextError(ValueError):
    """The text is not YAML that we read; `line` counts from 1."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line


@dataclass(frozen=True)
class Document:
    """The value of a text, and where in it each part stands."""

    data: Any
    lines: dict[Path, int]

    def line(self, path: Path) -> int:
        """The line of a part, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def known(self, path: Path, *, missing: bool) -> Path:
        """The parts of a path that are in the text; its last part too where it is what is missing."""
        kept: Path = ()
        for part in path:
            if (*kept, part) not in self.lines:
                break
            kept = (*kept, part)
        return (*kept, path[-1]) if missing and len(kept) == len(path) - 1 else kept


def read(text: str) -> Document:
    """Read one YAML document.

    Raises:
        TextError: it is too large, or not YAML of the plain kind.
    """
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise TextError(1, "is not Unicode text") from error
    if size > MAX_BYTES:
        raise TextError(1, f"is {size} bytes long; a policy has at most {MAX_BYTES}")
    try:
        _refuse_what_is_not_plain(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            raise TextError(1, "is empty")
        lines: dict[Path, int] = {}
        _number_lines(node, (), lines)
        return Document(data=yaml.safe_load(text), lines=lines)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise TextError(mark.line + 1 if mark else 1, f"is not YAML: {problem}") from error
    except ValueError as error:  # a date like 2026-13-45, a number of 5,000 digits
        if isinstance(error, TextError):
            raise
        raise TextError(1, f"holds a value that cannot be read: {str(error)[:120]}") from error


def _refuse_what_is_not_plain(text: str) -> None:
    """Walk the events, which come one by one: nothing is built yet, so nothing can blow up."""
    depth = documents = 0
    # The stubs know neither marks nor tags of an event.
    for event in cast("Iterable[Any]", yaml.parse(text, Loader=yaml.SafeLoader)):
        line: int = event.start_mark.line + 1
        documents += isinstance(event, yaml.DocumentStartEvent)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise TextError(line, "aliases and anchors (& and *) are not allowed; write the value out")
        if getattr(event, "tag", None):
            raise TextError(line, f"the tag {event.tag} is not allowed")
        if depth > MAX_DEPTH:
            raise TextError(line, f"is nested more than {MAX_DEPTH} deep")
        if documents > 1:
            raise TextError(line, "has more than one document; a policy is one")


def _number_lines(node: yaml.Node, path: Path, lines: dict[Path, int]) -> None:
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _number_lines(item, (*path, index), lines)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                raise TextError(key.start_mark.line + 1, "a key must be a plain word")
            if (*path, key.value) in lines:
                raise TextError(key.start_mark.line + 1, f"the key {key.value!r} stands twice")
            _number_lines(value, (*path, key.value), lines)
            # A list's or a map's own line is that of its key: where somebody would look for it.
            lines[(*path, key.value)] = key.start_mark.line + 1
