"""Train a language model: `python train.py [GROUP=CHOICE ...] [KEY=VALUE ...]`, see `--help`."""

from pathlib import Path

from lmlab.compose import main

if __name__ == "__main__":
    main(Path(__file__).parent / "conf")
