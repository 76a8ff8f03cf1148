"""News: NNTP."""
