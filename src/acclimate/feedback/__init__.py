"""What searchers were shown and what they marked; and what may be learned from it."""
