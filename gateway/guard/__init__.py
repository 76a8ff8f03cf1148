"""What protects the gateway, its backends and their users: limits, the open-relay watch, memory."""
