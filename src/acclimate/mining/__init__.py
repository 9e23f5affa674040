"""Hard negatives from a corpus, and an audit of them."""
