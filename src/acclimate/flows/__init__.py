"""Stages in a row: the whole run, three stages."""
