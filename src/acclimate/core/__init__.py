"""Pure functions on arrays; knows only numpy and torch."""
