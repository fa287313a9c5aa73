"""Combinations that mean nothing are refused with the reason, before anything is built."""

import re

import pytest

from lmlab.errors import UserError
from lmlab.hydra_app import compose_run
from lmlab.locations import find_conf

LINEAR, HYBRID, MOE = "model/attention=linear", "model/attention=hybrid", "model/ffn=moe"
MISTAKES = {
    "heads": (["model.num_heads=5"], "num_heads=5 does not divide d_model=128"),
    "kv heads": (["model.attention.num_kv_heads=3"], "num_kv_heads=3 does not divide num_heads=4"),
    "kv heads of a member": (
        [HYBRID, "model.attention.members.global.num_kv_heads=3"],
        "num_kv_heads=3 does not divide num_heads=4",
    ),
    "odd heads": (
        ["model.head_dim=3"],
        "rope needs an even head width, got 3",
    ),
    "odd width": (
        ["model/position=sinusoidal", "model.d_model=33", "model.num_heads=3"],
        "sinusoidal positions need an even d_model, got 33",
    ),
    "factors of the scaling": (
        ["model/position/scaling=llama3", "model.position.scaling.low_freq_factor=4"],
        "low_freq_factor=4 must be less than high_freq_factor=4",
    ),
    "scaling without rope": (
        ["model/position=none", "+model.position.scaling.kind=linear"],
        "not a key of the chosen model/position, but of model/position=rope",
    ),
    "window": (
        ["model/attention=sliding_window", "model.attention.window=0"],
        "config error at 'model.attention.window': must be >= 1, got 0",
    ),
    "stride": (
        ["model/attention=strided", "model.attention.stride=0"],
        "config error at 'model.attention.stride': must be >= 1, got 0",
    ),
    "window of a member": (
        [HYBRID, "model.attention.members.local.window=-1"],
        "config error at 'model.attention.members.local.window': must be >= 1, got -1",
    ),
    "no members": (
        [HYBRID, "model.attention.members={}"],
        "'model.attention.members': {} removes no entry; remove them with ~model.attention.members",
    ),
    "experts": ([MOE, "model.ffn.top_k=9"], "top_k=9 exceeds num_experts=8; lower top_k"),
    "one expert": (
        [MOE, "model.ffn.num_experts=1", "model.ffn.top_k=1", "model.ffn.router_softmax=before"],
        "config error at 'model.ffn': num_experts=1 with granularity=1 leaves a single expert",
    ),
    "softmax of one expert": (
        [MOE, "model.ffn.top_k=1", "model.ffn.router_softmax=after"],
        "config error at 'model.ffn': router_softmax=after with top_k=1 gives every chosen expert",
    ),
    "granularity": ([MOE, "model.ffn.granularity=7"], "granularity=7 does not divide d_ff=384"),
    "soft-cap of linear attention": (
        [LINEAR, "model.attention.logit_softcap=30"],
        "config error at 'model.attention.logit_softcap': not a key of the chosen model/attention, "
        "but of model/attention=full or sliding_window or strided "
        "(linear attention has no softmax, so no scores to cap)",
    ),
    "added soft-cap of linear attention": (
        [LINEAR, "+model.attention.logit_softcap=30"],
        "linear attention has no softmax, so no scores to cap",
    ),
    "window of full attention": (
        ["model.attention.window=5"],
        "not a key of the chosen model/attention, but of model/attention=sliding_window or strided",
    ),
    "key of another feed-forward": (
        ["model.ffn.top_k=2"],
        "'model.ffn.top_k': not a key of the chosen model/ffn, but of model/ffn=moe",
    ),
    "misspelt key": (["model.attention.bakend=sdpa"], "unknown key, did you mean 'backend'?"),
    "sdpa with a soft-cap": (
        ["model.attention.backend=sdpa", "model.attention.logit_softcap=5"],
        "backend=sdpa has no soft-cap",
    ),
    "blocks of a strided mask": (
        ["model/attention=strided", "model.attention.backend=blocked"],
        "backend=blocked has no strided mask",
    ),
    "flex with dropout": (
        ["model.attention.backend=flex", "model.attention.dropout=0.1"],
        "backend=flex has no dropout",
    ),
    "norm of no placement": (
        ["model.norm=layernorm", "model.norm_placement=none"],
        "config error at 'model': norm=layernorm is not used with norm_placement=none",
    ),
    "placement of no norm": (
        ["model.norm=none", "model.norm_placement=post"],
        "norm_placement=post needs a norm, got norm=none",
    ),
    "two placements of no norm": (
        ["model.norm=none", "model.norm_placement=double"],
        "norm_placement=double needs a norm, got norm=none",
    ),
    "eps of no norm": (
        ["model.norm=none", "model.norm_eps=1e-6"],
        "norm_eps=1e-06 is not used by any norm with norm=none, norm_placement=pre and no qk_norm; "
        "set it to 1e-05",
    ),
    "eps of no placement": (
        ["model.norm_placement=none", "model.norm_eps=0.1"],
        "norm_eps=0.1 is not used by any norm",
    ),
    "pattern": (
        [HYBRID, "model.attention.pattern=[local,x]"],
        "'x', which is not a member; members: local, global",
    ),
    "unused member": (
        [HYBRID, "model.attention.pattern=[local]"],
        "member 'global' is not in the pattern",
    ),
    "long pattern": (
        [HYBRID, "model.attention.pattern=[local,global,local,global,local]"],
        "the attention pattern has 5 entries, more than num_layers=4; shorten",
    ),
    "dropout": (["model.dropout=1.0"], "config error at 'model.dropout': must be < 1, got 1"),
    "activation": (["model.ffn.activation=relu2"], "'relu2' is not one of"),
    "attention": (["model/attention=sliding"], "(did you mean 'sliding_window'?)"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_means_nothing_is_refused(name: str) -> None:
    overrides, message = MISTAKES[name]
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        compose_run(find_conf(), overrides)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "values",
    [
        ["norm=none"],
        ["norm_placement=none"],
        ["norm=none", "norm_placement=none"],
        ["norm_placement=none", "norm_eps=1e-6", "attention.qk_norm=true"],
    ],
    ids=" ".join,
)
def test_a_model_without_norms_can_be_had(values: list[str]) -> None:
    compose_run(find_conf(), [f"model.{value}" for value in values])


@pytest.mark.parametrize(
    "values",
    [
        ["top_k=1", "router_softmax=before"],
        ["top_k=1", "granularity=2"],
        ["num_experts=1", "top_k=1", "granularity=2"],
    ],
    ids=" ".join,
)
def test_one_expert_of_a_token_can_mean_something(values: list[str]) -> None:
    compose_run(find_conf(), [MOE, *(f"model.ffn.{value}" for value in values)])


def test_values_live_in_yaml_alone() -> None:
    from lmlab.model.config import NORM_EPS, ModelConfig

    assert compose_run(find_conf(), []).model.norm_eps == NORM_EPS

    classes = [ModelConfig]
    from lmlab.schema import members

    for cls in classes:
        for name, field in cls.model_fields.items():
            assert field.is_required(), f"{cls.__name__}.{name}"
            classes += [member for member in members(field.annotation) if member not in classes]
    assert len(classes) > 10
