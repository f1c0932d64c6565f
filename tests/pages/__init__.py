"""The written parts of the documentation, from the code. `python -m tests.pages` writes them; a test fails when one is out of date."""
