"""What the gateway tells: events, and where their lines go."""
