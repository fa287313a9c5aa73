"""Clean text for training: `python clean.py [GROUP=CHOICE ...] [KEY=VALUE ...]`, see `--help`."""

from pathlib import Path

from lmlab.clean_app import main

if __name__ == "__main__":
    main(Path(__file__).parent / "conf")
