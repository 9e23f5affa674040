"""Graphs of other engines: written, run, and read as strangers read them."""
