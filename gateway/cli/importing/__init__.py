"""`starttls-gateway import`: the configuration of another program as one of ours."""
