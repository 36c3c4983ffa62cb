"""Who may publish and subscribe to what.

    topic                          publish               subscribe
    the client's control topics    the gateway hears it  never gets anything
    devices/<client id>/...        yes                   yes
    devices/<another id>/...       no                    no
    devices/p2p/...                no: the gateway's     the client's own two topics
    internal/...                   no                    no
    $...                           no                    no
    anything else                  yes                   yes

"..." is one level or more. A filter that could match a topic with a "no" is refused as a whole, so
`#` always is.
"""

from __future__ import annotations

from attrs import field, frozen

from trio_gateway.core.identity import DeviceId, is_addressable
from trio_gateway.core.topics import matches, overlaps

__all__ = ["Access", "is_allowed_id"]

MAX_TOPIC_CHARS = 512
"""Longest topic or filter. A guess: 256 for a client id, as much again around it."""

MAX_TOPIC_LEVELS = 8
"""As AWS IoT Core has it (mosquitto: 200). Each level of a filter costs about half a KiB."""

_PLACEHOLDER = "{client_id}"
_PROTECTED = ("devices/+/+/#", "internal/+/#")


def is_allowed_id(client_id: str) -> bool:
    """Whether topics can be made with `client_id` that are nobody else's.

    "+" would hear every device, and "a/b" would own a part of "a"; "p2p" is no device (below
    `devices/` it is the way down to all of them).
    """
    return is_addressable(client_id) and "/" not in client_id and client_id != "p2p"


@frozen
class Access:
    """The rights of one client.

    Attributes:
        control_topics: On these the client talks to the gateway, and nobody else listens.
    """

    control_topics: frozenset[str]
    _own_topics: frozenset[str]
    _own_prefix: str
    _closed: tuple[str, ...] = field(repr=False)

    @classmethod
    def of(cls, client_id: str, publish_topics: tuple[str, ...]) -> Access:
        """Make the rights of `client_id`, an allowed one.

        Args:
            client_id: Of the client.
            publish_topics: The control topics; "{client_id}" in one stands for the sender's.
        """
        # Any template with another id in it is that other client's control topic.
        others = (_with_any_id(each) for each in publish_topics if _PLACEHOLDER in each)
        return cls(
            control_topics=frozenset(
                each.replace(_PLACEHOLDER, client_id) for each in publish_topics
            ),
            own_topics=frozenset(DeviceId.parse(client_id).p2p_topics),
            own_prefix=f"devices/{client_id}/",
            closed=(*_PROTECTED, *others),
        )

    def may_publish(self, topic: str) -> bool:
        """Whether a message on `topic`, a checked name and no control topic, is passed on."""
        if _is_excessive(topic) or topic.startswith("$"):
            return False
        return topic.startswith(self._own_prefix) or not any(
            matches(closed, topic) for closed in self._closed
        )

    def may_subscribe(self, topic_filter: str) -> bool:
        """Whether `topic_filter`, a checked one, is granted."""
        if _is_excessive(topic_filter) or topic_filter.startswith("$"):
            return False
        return (
            topic_filter in self._own_topics
            or topic_filter.startswith(self._own_prefix)
            or not any(overlaps(closed, topic_filter) for closed in _PROTECTED)
        )


def _is_excessive(topic: str) -> bool:
    return len(topic) > MAX_TOPIC_CHARS or topic.count("/") >= MAX_TOPIC_LEVELS


def _with_any_id(template: str) -> str:
    """Return the filter for `template` with whatever id; wider if the id is part of a level."""
    return "/".join("+" if _PLACEHOLDER in level else level for level in template.split("/"))
