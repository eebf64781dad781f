"""`python -m vfrnn`: the command line."""

import sys

from vfrnn.cli import main

if __name__ == "__main__":
    sys.exit(main())
