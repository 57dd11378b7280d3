"""The user's cache: things that are costly to make, built once under a lock, never half."""

from __future__ import annotations

from llmfw.core.cache.build import cached_json, locked_build
from llmfw.core.cache.place import cache_dir, cache_root, is_ours, mark_used

__all__ = ["cache_dir", "cache_root", "cached_json", "is_ours", "locked_build", "mark_used"]
