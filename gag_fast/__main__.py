"""`python -m gag_fast` is `gag-fast`."""

import sys

from gag_fast.cli import main

if __name__ == "__main__":
    sys.exit(main())
