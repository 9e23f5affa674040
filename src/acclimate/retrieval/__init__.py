"""Which documents answer a query: exact search, cached vectors, BM25, reranking, run files."""
