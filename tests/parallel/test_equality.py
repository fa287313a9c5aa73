"""Every strategy computes what one process does, and all processes the same."""

import pytest
import torch
from processes import in_processes
from scenarios import ADAMW, SGD, Outcome, Scenario, alone, configured, trained

from lmlab.config import RunConfig
from lmlab.model import products
from lmlab.parallel.config import ParallelConfig
from lmlab.training.distributed import DistributedContext
from tests_support import composed

MOE = ("model/ffn=moe", "model.ffn.num_experts=4", "model.ffn.load_balancing_loss=0")
SCENARIOS = {
    "plain": Scenario(),
    "accumulated and clipped": Scenario(micro=1, clip=0.5),
    "tied": Scenario((*SGD, "model.tie_embeddings=true"), clip=0.5),
    "moe": Scenario((*SGD, *MOE), clip=0.5, micro=1),
    "frozen": Scenario(frozen="token_embedding", clip=0.5),
    "biases, few kv heads, qk norm": Scenario(
        (
            *(*SGD, "model/ffn=mlp", "model.ffn.bias=true", "model.attention.bias=all"),
            *("model.attention.num_kv_heads=2", "model.attention.qk_norm=true"),
            *("model/position=learned", "model.norm=layernorm"),
        ),
        micro=2,
    ),
    "recomputed": Scenario(recomputed=True, micro=2),
    "compiled": Scenario(compiled=True, micro=2, clip=0.5),
    "bf16": Scenario(precision="bf16", micro=2, clip=0.5, tolerance=2e-2),
    "fp16": Scenario(precision="fp16", micro=2, clip=0.5, tolerance=2e-3),
    # Adam divides by the root of the second moment: where gradients are near 0, rounding counts.
    "adamw": Scenario(ADAMW, micro=2, clip=0.5, tolerance=2e-4),
    "muon": Scenario(("optimizer=muon", "optimizer.lr=0.01"), clip=0.5, tolerance=2e-3),
}
STRATEGIES = {
    "ddp": [],
    "ddp_naive": [],
    "ddp_flat": [],
    "ddp_overlapped": [],
    "ddp_bucketed": ["parallel.bucket_size_mb=0.01"],
    "zero1": [],
    "fsdp": [],
    "hsdp": ["parallel.shard_size=1"],
    "tp": [],
}


@pytest.fixture(scope="module")
def configs() -> dict[str, RunConfig]:
    return {name: configured(scenario) for name, scenario in SCENARIOS.items()}


@pytest.fixture(scope="module")
def expected(configs: dict[str, RunConfig]) -> dict[str, Outcome]:
    return {name: alone(scenario, configs[name]) for name, scenario in SCENARIOS.items()}


def every(
    context: DistributedContext, configs: dict[str, RunConfig], parallel: ParallelConfig
) -> dict[str, Outcome]:
    return {
        name: trained(context, SCENARIOS[name], config, parallel)
        for name, config in configs.items()
    }


def compare(found: list[dict[str, Outcome]], expected: dict[str, Outcome]) -> None:
    for name in found[0]:
        scenario = SCENARIOS[name]
        close = {"rtol": scenario.tolerance, "atol": scenario.tolerance}
        outcomes = [outcome[name] for outcome in found]
        for outcome in outcomes:
            torch.testing.assert_close(
                (outcome.losses, outcome.norms, outcome.loads),
                (expected[name].losses, expected[name].norms, expected[name].loads),
                msg=lambda text, name=name: f"{name}: {text}",
                **close,
            )
        for key, weight in expected[name].weights.items():
            torch.testing.assert_close(
                outcomes[0].weights[key],
                weight,
                msg=lambda text, name=name, key=key: f"{name}, {key}: {text}",
                **close,
            )
            for outcome in outcomes[1:]:
                assert torch.equal(outcome.weights[key], outcomes[0].weights[key]), (name, key)
        for key, weight in outcomes[0].held.items():
            assert all(torch.equal(other.held[key], weight) for other in outcomes), (name, key)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_compute_what_one_does(
    strategy: str, configs: dict[str, RunConfig], expected: dict[str, Outcome]
) -> None:
    parallel = composed(f"parallel={strategy}", *STRATEGIES[strategy]).parallel
    compare(in_processes(2, every, configs, parallel), expected)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")
def test_two_processes_with_the_products_of_other_processors(
    configs: dict[str, RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By oneDNN where this processor trains with MKL, and the other way around."""
    monkeypatch.setattr(products, "FAST_ONEDNN", not products.FAST_ONEDNN)
    expected = {name: alone(scenario, configs[name]) for name, scenario in SCENARIOS.items()}
    parallel = composed("parallel=ddp").parallel
    compare(in_processes(2, every, configs, parallel), expected)


@pytest.mark.parametrize(
    ("strategy", "settings"),
    [
        ("hsdp", ["parallel.shard_size=2"]),
        ("tp", ["parallel.size=2"]),
        ("zero1", []),
        ("ddp_bucketed", ["parallel.bucket_size_mb=0.01"]),
    ],
)
def test_four_processes_compute_what_one_does(
    strategy: str,
    settings: list[str],
    configs: dict[str, RunConfig],
    expected: dict[str, Outcome],
) -> None:
    """Two groups of two: divided inside of a group, and averaged between groups."""
    names = "accumulated and clipped", "tied", "moe", "frozen", "bf16", "adamw", "muon"
    parallel = composed(f"parallel={strategy}", *settings).parallel
    compare(in_processes(4, every, {name: configs[name] for name in names}, parallel), expected)
