"""An index in a table of Postgres, with the extension pgvector."""
