"""Invariant: matching, overlap and the tree agree with a naive reading of the standard."""

from __future__ import annotations

import re
from itertools import product

from hypothesis import example, given
from hypothesis import strategies as st

from trio_gateway.core.topics import (
    TopicTree,
    check_filter_untrusted,
    check_topic_untrusted,
    matches,
    overlaps,
)
from trio_gateway.errors import BadPacket

# Two words, "$" and the empty level make every kind of coincidence likely.
words = st.sampled_from(["a", "b", "", "$s"])
topics = st.lists(words, min_size=1, max_size=4).map("/".join).filter(bool)
levels = st.lists(st.one_of(words, st.just("+")), max_size=4)
filters = (
    st.tuples(levels, st.sampled_from([[], ["#"]]))
    .map(lambda parts: "/".join(parts[0] + parts[1]))
    .filter(bool)
)


def reference(topic_filter: str, topic: str) -> bool:
    """Section 4.7 as a regular expression."""
    if topic_filter[0] in "+#" and topic.startswith("$"):
        return False
    parents, slash, last = topic_filter.rpartition("/")
    if last != "#":
        parents, tail = topic_filter, ""
    elif not slash:
        return True
    else:
        tail = "(/.*)?"
    pattern = "/".join(
        "[^/]*" if level == "+" else re.escape(level) for level in parents.split("/")
    )
    return re.fullmatch(pattern + tail, topic, re.DOTALL) is not None


@given(filters, topics)
def test_matching_agrees_with_the_reference(topic_filter: str, topic: str) -> None:
    assert matches(topic_filter, topic) == reference(topic_filter, topic)


EVERY_TOPIC = [
    topic
    for length in range(1, 6)
    for topic in map("/".join, product(["a", "b", "", "$s"], repeat=length))
]


@given(filters, filters)
@example("/#", "+")  # only the empty topic
def test_overlapping_filters_have_a_topic_in_common(first: str, second: str) -> None:
    # Filters have at most five levels of four words here, so this list has a witness if one exists.
    witness = any(reference(first, topic) and reference(second, topic) for topic in EVERY_TOPIC)
    assert overlaps(first, second) == overlaps(second, first) == witness


operations = st.lists(st.tuples(st.booleans(), filters, st.integers(0, 2)), max_size=30)


@given(operations, st.lists(topics, max_size=5))
def test_the_tree_agrees_with_a_set_of_pairs(
    steps: list[tuple[bool, str, int]], asked: list[str]
) -> None:
    tree: TopicTree[int] = TopicTree()
    model: set[tuple[str, int]] = set()
    for add, topic_filter, key in steps:
        if add:
            tree.add(topic_filter, key)
            model.add((topic_filter, key))
        else:
            tree.discard(topic_filter, key)
            model.discard((topic_filter, key))
    for topic in asked:
        assert tree.match(topic) == {key for each, key in model if reference(each, topic)}
    for topic_filter, key in model:
        tree.discard(topic_filter, key)
    assert tree._root.children == {}


@given(st.text(st.sampled_from("a/+#\0$"), max_size=6))
def test_a_filter_is_checked_level_by_level(text: str) -> None:
    parts = text.split("/")
    good = (
        bool(text)
        and "\0" not in text
        and all(part in {"+", "#"} or not set(part) & set("+#") for part in parts)
        and "#" not in parts[:-1]
    )
    try:
        check_filter_untrusted(text)
    except BadPacket:
        assert not good
    else:
        assert good


@given(st.text(st.sampled_from("a/+#\0$"), max_size=6))
def test_a_topic_has_no_wildcards(text: str) -> None:
    try:
        check_topic_untrusted(text)
    except BadPacket:
        assert not text or set(text) & set("+#\0")
    else:
        assert text
        assert not set(text) & set("+#\0")
