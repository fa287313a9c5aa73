"""Where the configuration files lie: in the checkout, or inside the installed package."""

from pathlib import Path

from lmlab.errors import UserError

FOLDERS = {"experiment": "experiments", "sweep": "sweeps"}
"""Group -> its folder beside `conf/`."""


def find_conf() -> Path:
    """Return the folder `conf` of the checkout of this code, or else of the installed package.

    Hydra looks into `conf/`, `experiments/` and `sweeps/` of the working directory first. Raises
    UserError when the installation has no configuration files.
    """
    package = Path(__file__).parent
    places = (package.parents[1] / "conf", package / "configs" / "conf")
    for place in places:
        if (place / "config.yaml").is_file():
            return place
    raise UserError(f"no config.yaml in {' or '.join(map(str, places))}; install lmlab again")


def roots(conf: Path) -> list[Path]:
    """Return the folders that hold `conf`, `experiments` and `sweeps`: the user's comes first."""
    own = conf.resolve().parent
    here = Path.cwd()
    return [own] if here == own else [here, own]
