"""Attacks and their results: one test for each attack, named after it (docs/security.md)."""
