"""A STARTTLS gateway: modern TLS in front of mail servers that have none."""

__version__ = "0.1.0"
