"""Texts and pairs in, one Dataset out."""
