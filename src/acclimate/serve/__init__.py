"""The service: what runs answer with over HTTP. Only the command line starts it."""
