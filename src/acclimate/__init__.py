"""Acclimate adapts a text-embedding model to a domain, proves that it got better, and serves it."""

__version__ = "0.1.0"
