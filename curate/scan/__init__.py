"""Rows of the tables `sources` and `clips`: listing, identity, header, the one decode."""
