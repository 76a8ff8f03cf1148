"""Protocols that move files."""
