"""The planner, its journal, the training API and the client."""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import requests
import uvicorn
from hydra.core.override_parser.overrides_parser import OverridesParser
from starlette.testclient import TestClient

from lmlab.errors import UserError
from lmlab.scaling.api import TrainingApi
from lmlab.scaling.client import ApiClient
from lmlab.scaling.journal import carry_out, open_journal, read_journal
from lmlab.scaling.plan import plan_with_api
from lmlab.scaling.planner import LAST, ROUNDS, Round, next_round, predict
from lmlab.scaling.surface import Surface
from lmlab.scaling.sweeps import Sweeps, launched_together, real_space
from lmlab.scaling.trial import COURSE, COURSE_BUDGET, Config, Trial
from tests_support import composed

CONFIG = Config(512, 8, 8, 128, 3e-4, 10**15)
TARGET = 10**19


def planned(surface: Surface) -> list[Trial]:
    trials: list[Trial] = []
    rounds: list[Round] = []
    while (round_ := next_round(rounds, trials, COURSE, COURSE_BUDGET)) is not None:
        trials += [Trial(config, surface.measure(config)) for config in round_.configs]
        rounds.append(round_)
    return trials


def test_the_loss_of_a_larger_budget_is_predicted_within_one_per_cent() -> None:
    good = 0
    for seed in range(10):
        surface = Surface.draw(seed)
        trials = planned(surface)
        assert sum(trial.config.train_flops for trial in trials) <= COURSE_BUDGET
        assert len({trial.config for trial in trials}) == len(trials)
        _, truth = surface.best(TARGET)
        found = predict(trials, COURSE, TARGET, samples=20)
        good += abs(found.loss / truth - 1) < 0.01
    assert good >= 9


def test_surfaces_differ_and_depend_on_everything() -> None:
    first, second = Surface.draw(1), Surface.draw(2)
    assert first.law != second.law
    assert first.measure(CONFIG) == first.measure(CONFIG) != first.truth(CONFIG)
    for change in ({"batch_size": 256}, {"learning_rate": 1e-3}, {"num_layers": 4}):
        other = Config(**{**CONFIG.to_dict(), **change})
        assert first.truth(other) != first.truth(CONFIG)
    config, loss = first.best(10**17)
    assert loss == first.truth(config) < first.truth(CONFIG)


@pytest.fixture
def api(tmp_path: Path) -> TrainingApi:
    return TrainingApi(Surface.draw(3), "secret", tmp_path / "state.json")


def test_the_contract_of_the_api(api: TrainingApi) -> None:
    client = TestClient(api.build_app())
    query = CONFIG.to_dict() | {"api_key": "secret"}
    first = client.get("/loss", params=query)
    assert first.status_code == 200
    assert first.json() == {"loss": api.surface.measure(CONFIG), "total_flops_used": 1e15}
    assert client.get("/loss", params=query).json() == first.json()  # repeated: free
    assert client.get("/total_flops_used", params={"api_key": "secret"}).json() == 1e15
    runs = client.get("/previous_runs", params={"api_key": "secret"}).json()["previous_runs"]
    assert runs == [CONFIG.to_dict() | {"loss": first.json()["loss"]}]
    for path in ("/loss", "/total_flops_used", "/previous_runs"):
        refused = client.get(path, params=query | {"api_key": "other"})
        assert refused.status_code == 401
        assert "api_key" in refused.json()["message"]
    for change, message in (
        ({"d_model": 1025}, "d_model must be from 64 to 1024"),
        ({"num_layers": 1}, "num_layers must be from 2 to 24"),
        ({"num_heads": 17}, "num_heads must be from 2 to 16"),
        ({"num_heads": 7}, "does not divide"),
        ({"batch_size": 64}, "batch_size must be one of 128, 256"),
        ({"learning_rate": 1e-2}, "learning_rate must be"),
        ({"learning_rate": "nan"}, "must be a number"),
        ({"train_flops": 2 * 10**15}, "train_flops must be one of 1e+13"),
        ({"d_model": "wide"}, "must be an integer"),
    ):
        answer = client.get("/loss", params=query | change)
        assert answer.status_code == 404
        assert message in answer.json()["message"]
    missing = client.get("/loss", params={"api_key": "secret"})
    assert missing.status_code == 404
    assert "missing: d_model" in missing.json()["message"]


def test_more_than_the_budget_is_refused_and_costs_nothing(api: TrainingApi) -> None:
    client = TestClient(api.build_app())
    large = CONFIG.to_dict() | {"api_key": "secret", "train_flops": 10**18}
    for width in (512, 640):
        query = large | {"d_model": width, "num_heads": 8}
        assert client.get("/loss", params=query).status_code == 200
    refused = client.get("/loss", params=CONFIG.to_dict() | {"api_key": "secret"})
    assert refused.status_code == 403
    assert "2e+18 of 2e+18 FLOPs are used" in refused.json()["message"]
    again = TrainingApi(api.surface, "secret", api.state)  # a new start goes on
    assert again.spent == 2 * 10**18
    with pytest.raises(UserError, match="has the runs of --surface 3"):
        TrainingApi(Surface.draw(4), "secret", api.state)


@contextmanager
def served(api: TrainingApi) -> Iterator[str]:
    config = uvicorn.Config(api.build_app(), port=0, lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def test_a_plan_is_interrupted_anywhere_and_pays_each_run_once(
    api: TrainingApi, tmp_path: Path
) -> None:
    class Killed(BaseException):
        """A signal."""

    class Client(ApiClient):
        calls = 0

        def run(self, config: Config) -> float:
            loss = super().run(config)
            self.calls += 1
            if self.calls in (3, 20, 21, 40):  # paid, and not yet in the journal
                raise Killed
            return loss

    budget = 6e17
    with served(api) as url:
        client = Client(url, "secret")
        for _ in range(4):
            with pytest.raises(Killed):
                plan_with_api(client, tmp_path / "plan", budget, 1e19, lambda line: None)
        journal = plan_with_api(client, tmp_path / "plan", budget, 1e19, lambda line: None)
        assert api.spent == journal.spent <= budget
        assert set(api.runs) == set(journal.losses)
        assert client.calls <= len(journal.losses)
        assert read_journal(journal.path) == journal
        straight = TrainingApi(api.surface, "secret", tmp_path / "other.json")
        with pytest.raises(UserError, match="already spent"):
            plan_with_api(client, tmp_path / "b", journal.spent, 1e19, lambda line: None)
        with pytest.raises(UserError, match="is of a plan with budget=6e"):
            plan_with_api(client, tmp_path / "plan", 1e18, 1e19, lambda line: None)
        with pytest.raises(UserError, match="refuses the key"):
            plan_with_api(ApiClient(url, "x"), tmp_path / "c", budget, 1e19, lambda line: None)
    with served(straight) as url:
        uninterrupted = plan_with_api(
            ApiClient(url, "secret"), tmp_path / "d", budget, 1e19, lambda line: None
        )
    assert uninterrupted.losses == journal.losses
    with pytest.raises(UserError, match="no answer from"):
        ApiClient("http://127.0.0.1:9", "secret").total_flops_used()


def test_two_processes_do_not_carry_out_one_plan(api: TrainingApi, tmp_path: Path) -> None:
    """The second would write its own losses over those of the first."""
    refused = []

    class Client(ApiClient):
        def run(self, config: Config) -> float:
            if not refused:
                with pytest.raises(UserError, match="another process carries out the plan in") as e:
                    plan_with_api(
                        ApiClient(self.url, self.key), folder, 6e17, 1e19, lambda line: None
                    )
                refused.append(e)
            return super().run(config)

    folder = tmp_path / "plan"
    with served(api) as url:
        journal = plan_with_api(Client(url, "secret"), folder, 6e17, 1e19, lambda line: None)
        assert refused
        assert set(journal.losses) == set(api.runs)
        again = plan_with_api(ApiClient(url, "secret"), folder, 6e17, 1e19, lambda line: None)
    assert again == journal


def test_a_journal_that_is_none(tmp_path: Path) -> None:
    run = CONFIG.to_dict() | {"loss": 3.0, "train_flops": "many"}
    for content in ({"rounds": [{}]}, {"rounds": [{"name": "a", "runs": [run]}]}, []):
        (tmp_path / "plan.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match="is not the journal of a plan"):
            open_journal(tmp_path, {})
    state = tmp_path / "state.json"
    state.write_text(json.dumps({"surface": 3, "runs": [run]}))
    with pytest.raises(UserError, match="is not the state of a training API"):
        TrainingApi(Surface.draw(3), "secret", state)


def test_a_server_that_is_no_training_api_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = requests.Response()
    answer.status_code = 200
    monkeypatch.setattr(requests, "get", lambda *arguments, **settings: answer)
    client = ApiClient("http://127.0.0.1:9", "secret")
    for content in ('{"message": "hello"}', "[]", '"text"'):
        answer._content = content.encode()
        for call in (client.total_flops_used, client.previous_runs, lambda: client.run(CONFIG)):
            with pytest.raises(UserError, match="which is not of a training API; check --server"):
                call()


def test_a_budget_too_small_for_a_plan(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, {"budget": 1e14})

    def run(configs: Sequence[Config]) -> Mapping[Config, float]:
        raise AssertionError

    with pytest.raises(UserError, match=r"--budget 1e\+14 is too small"):
        carry_out(journal, COURSE, run)


def test_a_round_after_one_without_runs_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_runs = (ROUNDS[0], ("isoflop 1", 0.0, ()), *ROUNDS[2:])
    monkeypatch.setattr("lmlab.scaling.planner.ROUNDS", without_runs)
    surface = Surface.draw(1)

    def run(configs: Sequence[Config]) -> Mapping[Config, float]:
        return {config: surface.measure(config) for config in configs}

    journal = carry_out(open_journal(tmp_path, {"budget": 2e18}), COURSE, run)
    names = [round_.name for round_ in journal.rounds if round_.name != LAST]
    assert names == ["hyper-parameters", "isoflop 2", "isoflop 3", "isoflop 4"]


def test_plans_with_other_overrides_have_no_runs_in_common() -> None:
    own = Sweeps("plan", ["tokenizer=byte", "seed=1"])
    assert own.folder == Sweeps("plan", ["seed=1", "tokenizer=byte"]).folder
    others = [Sweeps("plan", ["tokenizer=byte", f"seed={seed}"]).folder for seed in range(2, 9)]
    assert own.folder not in others
    assert f"name={own.folder.name}" in own.arguments([CONFIG])


def test_a_round_of_real_runs_is_a_sweep_of_shapes(tmp_path: Path) -> None:
    space = real_space(1e15, 1e-2, 16, 128)
    round_ = next_round([], [], space, 1e15)
    assert round_ is not None
    for config in round_.configs:
        assert config.d_model % 64 == 0
        assert config.d_model == 64 * config.num_heads
        assert config.batch_size == 16
        assert config.tokens >= 20 * 16 * 128
    together = launched_together(round_.configs)
    shapes = {(c.d_model, c.num_layers) for c in round_.configs}
    assert {(c.d_model, c.num_layers) for c in together} == shapes
    assert len(together) == len(shapes)
    changed = [replace(c, learning_rate=1e-3 * (i + 1)) for i, c in enumerate(together)]
    arguments = Sweeps("a", ["experiment=cpu_scale"]).arguments(changed)
    assert arguments[0] == "experiment=cpu_scale"
    (models,) = (a for a in arguments if a.startswith("model="))
    rest = [a for a in arguments if not a.startswith("model=")]
    parsed = OverridesParser.create().parse_override(models)
    points = list(parsed.sweep_string_iterator())
    assert len(points) == len(changed)
    for point in points:
        run = composed(*rest, f"model={point}")
        shape = (run.model.d_model, run.model.num_layers)
        (config,) = (c for c in changed if (c.d_model, c.num_layers) == shape)
        assert run.lr == config.learning_rate
        assert run.budget.tokens == int(config.tokens)  # type: ignore[union-attr]
    with pytest.raises(UserError, match="too small: its first runs train 49,152 parameters on"):
        next_round([], [], real_space(1e12, 1e-2, 16, 128), 1e12)
