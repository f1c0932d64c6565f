"""Generators of the parts of the documentation that come from the code. `python -m docs.make` runs them; a test compares the pages with them."""
