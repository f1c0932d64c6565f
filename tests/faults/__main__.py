"""`python -m tests.faults`: see tests/faults/many.py."""

from tests.faults.many import main

if __name__ == "__main__":
    main()
