"""The written parts of the documentation, from the code. `python -m docs.make` writes them; a test fails when one is out of date."""
