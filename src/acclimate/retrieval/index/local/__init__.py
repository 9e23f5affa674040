"""An index in a folder: SQLite is the truth, FAISS and tantivy are derived from it and can be made anew at any time."""
