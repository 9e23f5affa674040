"""The commands, one a file: parse, call one verb, print one table."""
