"""Ogg as others read and write it: mutagen, which is typed in part only."""

from __future__ import annotations

from typing import Any

from mutagen import ogg, oggopus

__all__ = ["OggOpus", "OggPage"]

OggPage: Any = ogg.OggPage
OggOpus: Any = oggopus.OggOpus
