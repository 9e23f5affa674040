"""Other people's folders, read and written: models, adapters, rerankers, sentence-transformers."""
