"""MQTT topic names and filters (MQTT 3.1.1, section 4.7): checked, matched, kept in a tree.

A topic name is what a message is published to. A topic filter is what a subscription asks for:
levels between slashes, where `+` stands for one level and a last `#` for any number of them, the
parent included. A topic that begins with `$` is matched by no filter that begins with a wildcard.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from attrs import define, field

from trio_gateway.errors import BadPacket

__all__ = ["TopicTree", "check_filter_untrusted", "check_topic_untrusted", "matches", "overlaps"]

K = TypeVar("K")


def check_topic_untrusted(topic: str) -> None:
    """Raise BadPacket("topic") unless a message can be published to `topic`."""
    if not topic or "+" in topic or "#" in topic or "\0" in topic:
        raise BadPacket("topic", "empty, or has a wildcard or NUL")


def check_filter_untrusted(topic_filter: str) -> None:
    """Raise BadPacket("filter") unless `topic_filter` is well formed.

    A wildcard fills its whole level, and `#` is the last one (MQTT-4.7.1-2, MQTT-4.7.1-3).
    """
    if not topic_filter or "\0" in topic_filter:
        raise BadPacket("filter", "empty, or has NUL")
    if "+" not in topic_filter and "#" not in topic_filter:
        return
    parents, _, last = topic_filter.rpartition("/")
    if "#" in parents or ("#" in last and last != "#"):
        raise BadPacket("filter", "'#' is not the whole last level")
    if any("+" in level and level != "+" for level in topic_filter.split("/")):
        raise BadPacket("filter", "'+' is not a whole level")


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a subscription to `topic_filter` gets what is published to `topic` (both checked)."""
    return overlaps(topic_filter, topic)


def overlaps(first: str, second: str) -> bool:
    """Whether there is a topic that both filters match. A topic name is a filter for itself.

    The empty topic counts ("/#" and "+" share it), though nothing can be published to it.
    """
    if (first[0] == "$") != (second[0] == "$"):
        return False  # MQTT-4.7.2-1: a leading wildcard never reaches a `$` topic
    ones, others = first.split("/"), second.split("/")
    for one, other in zip(ones, others, strict=False):
        if one == "#" or other == "#":
            return True
        if one not in (other, "+") and other != "+":
            return False
    shared = min(len(ones), len(others))
    # What is left over is nothing, or the one `#` that also matches its parent ("a/#" matches "a").
    return ones[shared:] in ([], ["#"]) and others[shared:] in ([], ["#"])


@define(eq=False)
class _Node(Generic[K]):
    children: dict[str, _Node[K]] = field(factory=dict)
    keys: set[K] = field(factory=set)


class TopicTree(Generic[K]):
    """Which keys have which filters; finds the keys for a topic without asking every filter.

    A match visits, on each level of the topic, only the nodes that fit so far: the time depends on
    the filters that match, not on how many there are. Nothing recurses, so any depth will do.
    """

    def __init__(self) -> None:
        self._root: _Node[K] = _Node()

    def add(self, topic_filter: str, key: K) -> None:
        """Give `key` the messages for `topic_filter`, a checked filter; again is no change."""
        node = self._root
        for level in topic_filter.split("/"):
            node = node.children.setdefault(level, _Node())
        node.keys.add(key)

    def discard(self, topic_filter: str, key: K) -> None:
        """Undo `add`; nothing happens if there was none. Nodes left empty are freed."""
        path: list[tuple[_Node[K], str]] = []
        node = self._root
        for level in topic_filter.split("/"):
            if level not in node.children:
                return
            path.append((node, level))
            node = node.children[level]
        node.keys.discard(key)
        for parent, level in reversed(path):
            child = parent.children[level]
            if child.keys or child.children:
                return
            del parent.children[level]

    def match(self, topic: str) -> set[K]:
        """Every key with at least one filter that matches `topic`, a checked topic name."""
        found: set[K] = set()
        fitting = [self._root]
        wildcards = not topic.startswith("$")
        for level in topic.split("/"):
            deeper: list[_Node[K]] = []
            for node in fitting:
                if wildcards:
                    _take_rest(node, found)
                    if (any_level := node.children.get("+")) is not None:
                        deeper.append(any_level)
                if (same := node.children.get(level)) is not None:
                    deeper.append(same)
            fitting = deeper
            wildcards = True
        for node in fitting:
            found |= node.keys
            _take_rest(node, found)
        return found


def _take_rest(node: _Node[K], found: set[K]) -> None:
    """Add the keys of a `#` below `node`, which matches `node` itself and everything below it."""
    if (rest := node.children.get("#")) is not None:
        found |= rest.keys
