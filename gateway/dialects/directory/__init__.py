"""Protocols of directories."""
