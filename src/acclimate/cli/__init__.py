"""Parse, call one stage, print one table, turn our errors into one line."""
