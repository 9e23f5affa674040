"""What is measured, and whether two models differ."""
