"""The command line for administrators."""
