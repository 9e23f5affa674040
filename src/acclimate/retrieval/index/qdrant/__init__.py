"""An index on a Qdrant server: one machine, or many."""
