"""`lmlab problems`: problems of the alignment tasks as JSON lines, for supervised training."""

import argparse
from pathlib import Path

from lmlab.errors import UserError

GROUP = Path("task") / "problems"
EXAMPLES = """\
examples:
  lmlab problems addition data/addition --demonstrations 2000
  lmlab problems countdown data/countdown numbers=4 count=50000
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `problems` to the `lmlab` command."""
    parser = commands.add_parser(
        "problems",
        help="write the problems of an alignment task as JSON lines",
        description="Write train.jsonl and validation.jsonl with the fields prompt, answer, and, "
        "where a right response is known, completion and text, which is prompt and completion "
        "together. They are the problems that task/problems=KIND has with the same settings, "
        "divided alike.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", metavar="KIND", help="a file in conf/task/problems")
    parser.add_argument("folder", type=Path, metavar="DIR", help="where the files are written")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="settings of the problems"
    )
    parser.add_argument(
        "--demonstrations",
        type=int,
        default=0,
        metavar="N",
        help="also write demonstrations.jsonl, N of the training problems (default: 0)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Write the files, and print their paths."""
    import yaml
    from pydantic import TypeAdapter, ValidationError

    from lmlab.alignment.problems import open_problems
    from lmlab.alignment.problems.config import ProblemsConfig
    from lmlab.alignment.problems.files import write_problems
    from lmlab.io.progress import say
    from lmlab.locations import find_conf

    folder = find_conf() / GROUP
    path = folder / f"{options.kind}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise UserError(f"unknown problems '{options.kind}'; known: {known}")
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    for setting in options.overrides:
        key, found, value = setting.partition("=")
        if not found or key not in values:
            raise UserError(f"'{setting}': expected KEY=VALUE with a KEY of {', '.join(values)}")
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"'{setting}': the value is not YAML") from error
    try:
        config: ProblemsConfig = TypeAdapter(ProblemsConfig).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:])
        raise UserError(f"{place}: {first['msg']}, got {first['input']!r}") from error
    problems = open_problems(config, say)
    for written, count in write_problems(problems, options.folder, options.demonstrations):
        print(f"{written}: {count:,} problems")
