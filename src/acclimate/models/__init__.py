"""What holds weights or vectors."""
