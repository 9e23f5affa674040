"""EmbeddingCache: vectors by what exactly decides them, bounded in bytes; each is computed once, whoever asks."""

from __future__ import annotations
