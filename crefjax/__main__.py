"""`python -m crefjax`."""

import sys

from crefjax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
