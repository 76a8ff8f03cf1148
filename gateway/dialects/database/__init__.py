"""The protocols of databases."""
