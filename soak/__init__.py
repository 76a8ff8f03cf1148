"""Hours of mixed traffic, honest and not, and what became of it: `make soak MINUTES=30`."""
