"""`starttls-gateway probe`: any server from outside, as a client sees it."""
