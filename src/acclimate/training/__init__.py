"""The one training loop, and what each way of training gives it."""
