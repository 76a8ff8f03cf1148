"""The report: which networks still need what, kept for months, and what follows from it."""
