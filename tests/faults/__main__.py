"""`python -m tests.faults`: see tests/faults/many.py."""

import warnings

from tests.faults.many import main

if __name__ == "__main__":
    # Drivers are forked on purpose, before anything of lancedb is under way.
    warnings.filterwarnings("ignore", message="lancedb fork support is experimental")
    main()
