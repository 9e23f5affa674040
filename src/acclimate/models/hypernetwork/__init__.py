"""Adapters generated from a condition, without training: a description, example pairs, sample texts."""
