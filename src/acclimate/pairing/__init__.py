"""Pairs out of documents: where nobody has asked anything yet, queries are made."""
