"""An index: documents, their vectors and their words, searched together, durable where the backend is."""
