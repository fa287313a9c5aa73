"""Pages of the documentation that are made from the code; MkDocs calls the functions `on_...`.

`mkdocs.yml` names this file as a hook. Written here are the reference of the configuration, that of
the `lmlab` command, the reports of experiments/, and the picture of the imports.
"""

import argparse
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))

from code_map import code_map
from config_reference import configuration_page

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    pages = {
        "reference/configuration.md": configuration_page(ROOT),
        "reference/command-line.md": _command_page(),
        "contributing.md": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
    }
    for path in sorted((ROOT / "experiments").glob("*/README.md")):
        pages[f"experiments/{path.parent.name}.md"] = path.read_text(encoding="utf-8")
        for picture in path.parent.glob("*.png"):
            target = f"experiments/{path.parent.name}/{picture.name}"
            files.append(File.generated(config, target, abs_src_path=str(picture)))
    log = (ROOT / "experiments" / "LOG.md").read_text(encoding="utf-8")
    pages["experiments/index.md"] = log.replace("# Log", "# Experiments", 1)
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links that are written for the repository to pages of the site."""
    source = page.file.src_uri
    here = {"contributing.md": ""}.get(source, posixpath.join("docs", posixpath.dirname(source)))
    if source.startswith("experiments/"):
        name = posixpath.splitext(posixpath.basename(source))[0]
        here = "experiments" if name == "index" else f"experiments/{name}"

    def resolved(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(here, match[1]))
        inside = re.sub(r"^docs/", "", target)
        if experiment := re.fullmatch(r"experiments/(\w+)/README\.md", target):
            inside = f"experiments/{experiment[1]}.md"
        if target == "CONTRIBUTING.md":
            inside = "contributing.md"
        found = files.get_file_from_path(inside)
        if found is None:
            return match[0]
        relative = posixpath.relpath(inside, posixpath.dirname(source) or ".")
        return relative + (match[2] or "")

    text = LINK.sub(resolved, markdown)
    # A file of the repository that is no page is named, not linked.
    text = re.sub(r"\[([^\]]+)\]\((?:\.\./)+[\w/.-]+\.(?:yaml|py)\)", r"\1", text)
    return text.replace("<!-- code map -->", code_map(ROOT))


def _command_page() -> str:
    from lmlab.cli import build_parser

    lines = ["# The `lmlab` command", "", "`lmlab COMMAND --help` prints the same text.", ""]
    lines += _describe(build_parser(), 1)
    return "\n".join(lines) + "\n"


def _describe(parser: argparse.ArgumentParser, level: int) -> list[str]:
    lines: list[str] = []
    children: dict[str, Any] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            children |= action.choices
    if level > 1:
        parser.formatter_class = lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=96)
        lines += [f"{'#' * level} `{parser.prog}`", "", "```text", parser.format_help(), "```", ""]
    for child in children.values():
        lines += _describe(child, level + 1)
    return lines
