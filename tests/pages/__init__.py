"""The written parts of the documentation, from the code. `python -m tests.pages` writes them all anew; tests/test_docs.py fails when one is out of date."""
