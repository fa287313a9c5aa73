"""Clean text for training: `python clean.py [GROUP=CHOICE ...] [KEY=VALUE ...]`, see `--help`."""

import sys
from pathlib import Path

try:
    from lmlab.clean_app import main
except KeyboardInterrupt:  # while modules are loaded
    sys.exit(130)

if __name__ == "__main__":
    main(Path(__file__).parent / "conf")
