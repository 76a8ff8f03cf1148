"""What an administrator can ask without running the gateway."""
