"""Serve the folders experiments/ and sweeps/ as the Hydra groups `experiment` and `sweep`.

They lie beside the primary configuration folder or in the working directory, whose folders (and
`conf/`) come first. Hydra's own `hydra.searchpath` knows neither groups with folders of other names
nor paths relative to the primary configuration folder.
"""

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from lmlab.locations import FOLDERS, roots


class FolderSource(ConfigSource):
    """A configuration source `folders://ROOT` whose groups are folders with other names."""

    @staticmethod
    def scheme() -> str:
        """Return the URL scheme of this source."""
        return "folders"

    def _path(self, config_path: str) -> Path | None:
        group, _, rest = config_path.partition("/")
        return Path(self.path, FOLDERS[group], rest) if group in FOLDERS else None

    def available(self) -> bool:
        """Whether the root exists."""
        return Path(self.path).is_dir()

    def is_group(self, config_path: str) -> bool:
        """Whether the path names a folder of configurations."""
        path = self._path(config_path)
        return config_path == "" or (path is not None and path.is_dir())

    def is_config(self, config_path: str) -> bool:
        """Whether the path names a YAML file."""
        path = self._path(self._normalize_file_name(config_path))
        return path is not None and path.is_file()

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """List the configurations and groups under a group."""
        if config_path == "":
            return [group for group in FOLDERS if self.is_group(group)]
        files: list[str] = []
        path = self._path(config_path)
        for entry in path.iterdir() if path is not None else ():
            self._list_add_result(
                files=files,
                file_path=f"{config_path}/{entry.name}",
                file_name=entry.name,
                results_filter=results_filter,
            )
        return sorted(set(files))

    def load_config(self, config_path: str) -> ConfigResult:
        """Read one YAML file and the `# @package` line at its top."""
        path = self._path(self._normalize_file_name(config_path))
        if path is None or not path.is_file():
            raise ConfigLoadError(f"Config not found: {path}")
        text = path.read_text(encoding="utf-8")
        return ConfigResult(
            config=OmegaConf.create(text) if text.strip() else OmegaConf.create(),
            path=f"{self.scheme()}://{self.path}",
            provider=self.provider,
            header=self._get_header_dict(text),
        )


class FolderSearchPath(SearchPathPlugin):
    """Adds the folders beside `conf`, and before all the user's in the working directory."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add each root that has such folders."""
        for entry in list(search_path.get_path()):
            if entry.provider != "main" or not entry.path:
                continue
            *users, own = roots(Path(entry.path.removeprefix("file://")))
            main = SearchPathQuery(provider="main")
            if any((own / folder).is_dir() for folder in FOLDERS.values()):
                search_path.append("lmlab", f"folders://{own}", anchor=main)
            for root in users:
                if (root / "conf").is_dir():
                    search_path.prepend("user", f"file://{root / 'conf'}", anchor=main)
                if any((root / folder).is_dir() for folder in FOLDERS.values()):
                    search_path.prepend("user", f"folders://{root}", anchor=main)
