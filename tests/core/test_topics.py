from __future__ import annotations

import pytest

from trio_gateway.core.topics import (
    TopicTree,
    check_filter_untrusted,
    check_topic_untrusted,
    matches,
    overlaps,
)
from trio_gateway.errors import BadPacket

# The examples of MQTT 3.1.1, section 4.7, and a few that implementations have got wrong.
MATCHING = [
    ("sport/tennis/player1/#", "sport/tennis/player1"),
    ("sport/tennis/player1/#", "sport/tennis/player1/ranking"),
    ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"),
    ("sport/#", "sport"),
    ("#", "sport"),
    ("#", "/"),
    ("sport/tennis/+", "sport/tennis/player1"),
    ("sport/+", "sport/"),
    ("+/+", "/finance"),
    ("/+", "/finance"),
    ("+/tennis/#", "sport/tennis"),
    ("+/+/#", "a/b"),
    ("$SYS/#", "$SYS/monitor"),
    ("$SYS/monitor/+", "$SYS/monitor/Clients"),
    ("a/$b/#", "a/$b/c"),
    ("a/+", "a/$b"),
    ("ACCOUNTS", "ACCOUNTS"),
]
NOT_MATCHING = [
    ("sport/tennis/+", "sport/tennis/player1/ranking"),
    ("sport/+", "sport"),
    ("+", "/finance"),
    ("+", "a/b"),
    ("#", "$SYS/monitor"),
    ("+/monitor/Clients", "$SYS/monitor/Clients"),
    ("+/#", "$SYS/monitor"),
    ("ACCOUNTS", "Accounts"),
    ("/finance", "finance"),
    ("a/#", "b"),
    ("a/b", "a"),
    ("a/b/#", "a"),
    ("a", "a/b"),
]


@pytest.mark.parametrize(("topic_filter", "topic"), MATCHING)
def test_matching(topic_filter: str, topic: str) -> None:
    assert matches(topic_filter, topic)
    assert _tree_finds(topic_filter, topic)


@pytest.mark.parametrize(("topic_filter", "topic"), NOT_MATCHING)
def test_not_matching(topic_filter: str, topic: str) -> None:
    assert not matches(topic_filter, topic)
    assert not _tree_finds(topic_filter, topic)


def _tree_finds(topic_filter: str, topic: str) -> bool:
    tree: TopicTree[str] = TopicTree()
    tree.add(topic_filter, "key")
    return tree.match(topic) == {"key"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("#", "a/b"),
        ("+/b", "a/+"),
        ("a/#", "a"),
        ("a/+/c", "a/b/#"),
        ("a/#", "+/b/c"),
        ("a/b/#", "a/+"),
    ],
)
def test_filters_that_share_a_topic(first: str, second: str) -> None:
    assert overlaps(first, second)
    assert overlaps(second, first)


@pytest.mark.parametrize(
    ("first", "second"),
    [("a/+", "a"), ("a/+", "b/#"), ("+", "a/b"), ("#", "$SYS/#"), ("+/b", "+/c")],
)
def test_filters_that_share_none(first: str, second: str) -> None:
    assert not overlaps(first, second)
    assert not overlaps(second, first)


@pytest.mark.parametrize(
    "topic_filter", ["#", "+", "/", "+/+", "a/#", "/#", "a/+/b", "a b", "$SYS/#"]
)
def test_good_filters(topic_filter: str) -> None:
    check_filter_untrusted(topic_filter)


@pytest.mark.parametrize(
    "topic_filter", ["", "a#", "#/a", "a/#/b", "a+", "+a/b", "a/b+/c", "##", "++", "a/##", "a\0"]
)
def test_bad_filters(topic_filter: str) -> None:
    with pytest.raises(BadPacket, match="filter"):
        check_filter_untrusted(topic_filter)


@pytest.mark.parametrize("topic", ["a", "/", "a//b", "$SYS", " ", "a" * 65535])
def test_good_topics(topic: str) -> None:
    check_topic_untrusted(topic)


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a+b", "a\0"])
def test_bad_topics(topic: str) -> None:
    with pytest.raises(BadPacket, match="topic"):
        check_topic_untrusted(topic)


def test_a_tree_forgets_what_is_discarded() -> None:
    tree: TopicTree[int] = TopicTree()
    for key, topic_filter in enumerate(["a/b", "a/+", "a/#", "#", "a/b/c"]):
        tree.add(topic_filter, key)
    assert tree.match("a/b") == {0, 1, 2, 3}
    tree.discard("a/+", 1)
    tree.discard("a/+", 1)
    tree.discard("never/there", 1)
    tree.discard("a/#", 0)  # held by another key
    assert tree.match("a/b") == {0, 2, 3}
    for key, topic_filter in [(0, "a/b"), (2, "a/#"), (3, "#"), (4, "a/b/c")]:
        tree.discard(topic_filter, key)
    assert tree._root.children == {}


def test_a_tree_does_not_recurse() -> None:
    tree: TopicTree[int] = TopicTree()
    deep = "/" * 65534
    tree.add(deep, 1)
    assert tree.match(deep) == {1}
    tree.discard(deep, 1)
    assert tree._root.children == {}
