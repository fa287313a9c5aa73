"""The command line of `clean.py`: Hydra composes, `load_as` checks, the documents are cleaned."""

import argparse
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import hydra
import yaml

from lmlab.arguments import require_keys
from lmlab.cleaning.pipeline_config import CleanConfig
from lmlab.command import exit_code
from lmlab.compose_errors import explain_composition_error
from lmlab.config import load_as, plain_values
from lmlab.errors import UserError
from lmlab.help import help_text
from lmlab.hydra_app import COMPOSITION_ERRORS, raised_by_hydra
from lmlab.locations import find_conf
from lmlab.refused import check_emptied

EXAMPLES = """\
Clean text for training:  python clean.py [GROUP=CHOICE ...] [KEY=VALUE ...]

  python clean.py cleaning=course 'input=[crawl/*.warc.gz]' output=cleaned
  python clean.py 'input=[pages.jsonl.zst]' output=cleaned cleaning.steps.gopher.min_words=20
  python clean.py 'input=[crawl]' output=cleaned '~cleaning.steps.language'     without a step
  python clean.py 'input=[crawl]' output=cleaned executor=slurm executor.partition=cpu
  python clean.py 'input=[crawl]' output=cleaned --cfg job    print the configuration and stop

The same command again resumes a run that was stopped. `lmlab cleaning report cleaned` shows what
was removed and why; `python train.py data=cleaned data.path=cleaned` trains on the result.
"""
_HINT = "(see `python clean.py --help`)"


def main(conf: Path, arguments: Sequence[str] | None = None) -> None:
    """Compose from the folder `conf`, check, clean; exits with 1 after one line for a mistake."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    sys.exit(exit_code(lambda: _command(conf, given), explain=partial(_explain, given)))


def _command(conf: Path, arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--cfg", "-c", choices=("job",))
    try:
        flags, overrides = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise UserError(f"{error} {_HINT}") from None
    if flags.help:
        print(help_text(conf, CleanConfig, EXAMPLES), end="")
        return
    if unknown := [override for override in overrides if override.startswith("-")]:
        raise UserError(f"unknown option {unknown[0]} {_HINT}")
    config = compose_clean(conf, overrides)
    if flags.cfg:
        values = config.model_dump(mode="json")
        print(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), end="")
        return
    _clean(config)


def compose_clean(conf: Path, overrides: Sequence[str]) -> CleanConfig:
    """Return what `python clean.py OVERRIDES` would run; raises ConfigError for what is wrong."""
    require_keys(overrides)
    with hydra.initialize_config_dir(str(conf.resolve()), version_base="1.3"):
        composed = hydra.compose("clean", overrides=list(overrides))
        check_emptied(overrides, plain_values(composed, missing=True))
        return load_as(CleanConfig, composed)


def clean_config(*overrides: str) -> CleanConfig:
    """Return the configuration of `python clean.py OVERRIDES`: `clean_config("cleaning=c4", ...)`.

    Raises UserError for what the command line would refuse.
    """
    try:
        return compose_clean(find_conf(), overrides)
    except Exception as error:
        text = _explain(overrides, error)
        if text is None:
            raise
        raise UserError(text) from error


def _clean(config: CleanConfig) -> None:
    """Clean; errors from here on are not explained as those of a configuration."""
    from lmlab.cleaning.run import clean
    from lmlab.cleaning.text import require_documents, summary

    manifest = clean(config)
    if manifest is not None:
        print(summary(manifest, config.output), flush=True)
        require_documents(manifest)
        if not manifest["kept"]:
            print("warning: no document was kept, see above for the reasons", file=sys.stderr)


def _explain(overrides: Sequence[str], error: Exception) -> str | None:
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    if _clean.__code__ in codes:
        return None
    if isinstance(error, COMPOSITION_ERRORS) or raised_by_hydra(error):
        return explain_composition_error(error, CleanConfig, overrides)
    return None
