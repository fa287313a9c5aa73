"""The training API of Stanford CS336, assignment 3, answered by a surrogate surface."""

import asyncio
import hmac
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lmlab.errors import UserError
from lmlab.files import atomic_write
from lmlab.scaling.surface import Surface
from lmlab.scaling.trial import COURSE, COURSE_BUDGET, Config, Space

FIELDS = tuple(Config.__dataclass_fields__)


class Refused(Exception):
    """A request that is answered with a status and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class TrainingApi:
    """Losses by configuration, and what they have cost so far.

    The runs are kept in a file, so that a server that is started again goes on with them.
    """

    def __init__(
        self, surface: Surface, key: str, state: Path, budget: int = COURSE_BUDGET
    ) -> None:
        self.surface, self.key, self.state, self.budget = surface, key, state, budget
        self.runs = _read(state, surface)
        self.lock = asyncio.Lock()

    @property
    def spent(self) -> int:
        """FLOPs of all different runs."""
        return sum(config.train_flops for config in self.runs)

    async def loss(self, request: Request) -> Response:
        """Answer `GET /loss`; a run that was made before costs nothing."""
        self._check_key(request)
        config = parse_config(request.query_params)
        async with self.lock:
            if config not in self.runs:
                if self.spent + config.train_flops > self.budget:
                    raise Refused(
                        403,
                        f"train_flops={config.train_flops:.3g} is more than what is left: "
                        f"{self.spent:.4g} of {self.budget:.4g} FLOPs are used",
                    )
                runs = {**self.runs, config: self.surface.measure(config)}
                await asyncio.to_thread(_write, self.state, runs, self.surface)
                self.runs = runs
            answer = {"loss": self.runs[config], "total_flops_used": float(self.spent)}
        return JSONResponse(answer)

    async def total_flops_used(self, request: Request) -> Response:
        """Answer `GET /total_flops_used` with a number."""
        self._check_key(request)
        return JSONResponse(float(self.spent))

    async def previous_runs(self, request: Request) -> Response:
        """Answer `GET /previous_runs` with all runs and their losses."""
        self._check_key(request)
        runs = [config.to_dict() | {"loss": loss} for config, loss in self.runs.items()]
        return JSONResponse({"previous_runs": runs})

    def _check_key(self, request: Request) -> None:
        given = request.query_params.get("api_key", "")
        if not hmac.compare_digest(given.encode(), self.key.encode()):
            raise Refused(401, "api_key is missing or wrong")

    def build_app(self) -> Starlette:
        """Return the application."""
        paths = ("loss", "total_flops_used", "previous_runs")
        routes = [Route(f"/{path}", getattr(self, path)) for path in paths]
        return Starlette(routes=routes, exception_handlers={Refused: _refuse})


def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse({"message": str(error)}, error.status)


def parse_config(values: Mapping[str, str], space: Space = COURSE) -> Config:
    """Return the configuration of a query; raises Refused (404) for one outside of the space."""
    missing = [name for name in FIELDS if name not in values]
    if missing:
        raise Refused(404, f"missing: {', '.join(missing)}")
    numbers = {name: _number(name, values[name]) for name in FIELDS}
    ranges = {
        "d_model": space.shapes.widths,
        "num_layers": space.shapes.depths,
        "num_heads": space.shapes.heads,
        "learning_rate": space.learning_rates,
    }
    for name, (low, high) in ranges.items():
        if not low <= numbers[name] <= high:
            raise Refused(404, f"{name} must be from {low:g} to {high:g}, got {values[name]}")
    choices = {"batch_size": space.batch_sizes, "train_flops": space.train_flops}
    for name, allowed in choices.items():
        if numbers[name] not in allowed:
            listed = ", ".join(f"{value:.0e}" if value >= 1e6 else str(value) for value in allowed)
            raise Refused(404, f"{name} must be one of {listed}, got {values[name]}")
    if numbers["d_model"] % numbers["num_heads"]:
        raise Refused(
            404, f"num_heads={values['num_heads']} does not divide d_model={values['d_model']}"
        )
    rate = numbers.pop("learning_rate")
    return Config(**{name: int(value) for name, value in numbers.items()}, learning_rate=rate)


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (name != "learning_rate" and value != int(value)):
        kind = "a number" if name == "learning_rate" else "an integer"
        raise Refused(404, f"{name} must be {kind}, got {text!r}")
    return value


def _read(state: Path, surface: Surface) -> dict[Config, float]:
    if not state.exists():
        return {}
    try:
        values: Any = json.loads(state.read_text(encoding="utf-8"))
        seed = values["surface"]
        runs = {Config.from_dict(run): float(run["loss"]) for run in values["runs"]}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{state} is not the state of a training API: {error!r}") from error
    if seed != surface.seed:
        raise UserError(f"{state} has the runs of --surface {seed}, not of {surface.seed}")
    return runs


def _write(state: Path, runs: Mapping[Config, float], surface: Surface) -> None:
    rows = [config.to_dict() | {"loss": loss} for config, loss in runs.items()]
    with atomic_write(state) as file:
        json.dump({"surface": surface.seed, "runs": rows}, file, indent=1)
