"""What clients call, a family of routes a file."""
