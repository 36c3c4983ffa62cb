"""All targets. A new `_untrusted` function has to be in one of them: a test compares."""

from __future__ import annotations

from audio_targets import AUDIO_TARGETS
from codec_targets import CODEC_TARGETS
from device_targets import DEVICE_TARGETS
from json_targets import JSON_TARGETS
from mqtt_targets import MQTT_TARGETS

__all__ = ["TARGETS"]

ALL = (*AUDIO_TARGETS, *CODEC_TARGETS, *JSON_TARGETS, *MQTT_TARGETS, *DEVICE_TARGETS)
TARGETS = {target.name: target for target in ALL}
