"""Limits of clients, the test for open relays, and memory."""
