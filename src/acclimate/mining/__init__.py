"""Hard negatives out of a corpus, and an audit of them."""
