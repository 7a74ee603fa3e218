"""On which line of a YAML file something of its document is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import yaml

_MERGE: Final = "<<"


class YamlLines:
    """The lines of one YAML text. Reading it costs as much as parsing, so do it when it is asked for."""

    def __init__(self, text: str, loader: Any = yaml.SafeLoader) -> None:
        """
        Raises:
            yaml.YAMLError: the text is no YAML.
        """
        self._root = yaml.compose(text, Loader=loader)

    def line_of(self, path: Sequence[str | int]) -> int | None:
        """The line, from 1, of the key or list item at the end of the path; of the last one before it
        that is there, when it is not; None when not even the first step leads anywhere.

        What an alias or a merge brings in is on the line where it is written out.
        """
        node, line = self._root, None
        for step in path:
            found = _step(node, step)
            if found is None:
                break
            mark, node = found
            line = mark.line + 1
        return line


def _step(node: yaml.Node | None, step: str | int) -> tuple[yaml.Mark, yaml.Node] | None:
    """Where the step is written, and what it leads to."""
    if isinstance(node, yaml.SequenceNode):
        if isinstance(step, int) and step < len(node.value):
            item = node.value[step]
            return item.start_mark, item
        return None
    if not isinstance(node, yaml.MappingNode):
        return None
    found = _key(node, step)
    if found is not None:
        return found
    merge = _key(node, _MERGE)
    if merge is None:
        return None
    merged = merge[1]
    # A merge of a merge is not followed: it may lead back to itself.
    maps = merged.value if isinstance(merged, yaml.SequenceNode) else [merged]
    return next((place for one in maps if (place := _key(one, step)) is not None), None)


def _key(node: yaml.Node, step: str | int) -> tuple[yaml.Mark, yaml.Node] | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value == step:
            return key.start_mark, value
    return None
