"""Connections: legs, listeners, the dialer, and TLS."""
