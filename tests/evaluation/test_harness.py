"""The adapter against lm_eval's own class for transformers on the same weights; whole tasks."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

lm_eval = pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

from lmlab.errors import UserError  # noqa: E402
from lmlab.evaluation import Scorer, answer_questions, read_questions  # noqa: E402
from lmlab.evaluation.harness import LmlabLM  # noqa: E402
from lmlab.evaluation.tasks import Tasks  # noqa: E402
from lmlab.loading import TrainedRun  # noqa: E402
from tests_support import ROOT  # noqa: E402

sys.path.insert(0, str(ROOT))

from benchmarks.llama import llama_of  # noqa: E402


@pytest.fixture(scope="module")
def peer(bpe_run: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> HFLM:
    """lm_eval's class around transformers' Llama with our weights and our tokenizer."""
    theirs = llama_of(bpe_run.model)
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    bpe_run.tokenizer.to_huggingface(file)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(file), eos_token="<|endoftext|>")
    # Its cache confuses windows of the same tokens that score different numbers of them.
    return HFLM(
        pretrained=theirs, tokenizer=tokenizer, device="cpu", batch_size=3, logits_cache=False
    )


def instances(kind: str, *arguments: Any) -> list[Instance]:
    return [
        Instance(request_type=kind, doc={}, arguments=each, idx=i)
        for i, each in enumerate(arguments)
    ]


PAIRS = [
    ("the cat sees the", " moon"),
    ("the cat sees the ", "moon"),
    ("", "old ship"),
    ("the sun", "."),
    ("Größe", " ☃ and more"),
    ("a<|endoftext|>the", " sea"),
    ("the old red ship sails over the blue sea under the moon " * 4, " and sun"),
    ("th", "e"),
]


def test_log_likelihoods_are_those_of_lm_eval(bpe_run: TrainedRun, peer: HFLM) -> None:
    # `th` and `e` make one token: there lm_eval has nothing to score, and fails.
    pairs = PAIRS[:-1]
    requests = instances("loglikelihood", *pairs)
    ours = LmlabLM(bpe_run, batch_size=2).loglikelihood(requests, disable_tqdm=True)
    theirs = peer.loglikelihood(requests, disable_tqdm=True)
    np.testing.assert_allclose([x for x, _ in ours], [x for x, _ in theirs], rtol=1e-4)
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]


def test_the_greedy_continuation_is_known(bpe_run: TrainedRun, peer: HFLM) -> None:
    context = "the cat"
    ids = bpe_run.tokenizer.encode(context)
    for _ in range(3):
        ids.append(int(bpe_run.model(torch.tensor([ids]))[0, -1].argmax()))
    text = bpe_run.tokenizer.decode(ids)[len(context) :]
    requests = instances("loglikelihood", (context, text), (context, " dog"))
    ours = LmlabLM(bpe_run).loglikelihood(requests, disable_tqdm=True)
    theirs = peer.loglikelihood(requests, disable_tqdm=True)
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]


def test_rolling_log_likelihoods_are_those_of_lm_eval(bpe_run: TrainedRun, peer: HFLM) -> None:
    texts = ["the cat sees the moon", "old ship, new sea. " * 20, "a", "Größe ☃ " * 9]
    requests = instances("loglikelihood_rolling", *[(text,) for text in texts])
    ours = LmlabLM(bpe_run).loglikelihood_rolling(requests, disable_tqdm=True)
    theirs = peer.loglikelihood_rolling(requests, disable_tqdm=True)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_generated_texts_are_those_of_lm_eval(bpe_run: TrainedRun, peer: HFLM) -> None:
    greedy = {"until": ["\n\n", "zzz"], "max_gen_toks": 8, "do_sample": False}
    requests = instances(
        "generate_until",
        ("the cat sees", greedy),
        ("old", greedy),
        ("the sea and the moon " * 20, greedy),
        ("a dog", greedy | {"until": ["e"]}),
    )
    ours = LmlabLM(bpe_run, batch_size=2).generate_until(requests, disable_tqdm=True)
    assert ours == peer.generate_until(requests, disable_tqdm=True)


def test_generation_arguments_that_are_not_known_are_named(bpe_run: TrainedRun) -> None:
    requests = instances("generate_until", ("a", {"until": [], "penalty_alpha": 0.5}))
    with pytest.raises(UserError, match="'penalty_alpha' is not supported"):
        LmlabLM(bpe_run).generate_until(requests)


def test_sampling_follows_its_arguments(bpe_run: TrainedRun) -> None:
    sampled = {"do_sample": True, "temperature": 5.0, "max_new_tokens": 12, "top_k": 0, "seed": 3}
    model = LmlabLM(bpe_run)
    texts = model.generate_until(
        instances("generate_until", ("the", sampled), ("the", sampled | {"seed": 4}))
    )
    again = model.generate_until(instances("generate_until", ("the", sampled)))
    assert texts[0] == again[0] != texts[1]


def test_repeated_requests_are_samples_that_differ(bpe_run: TrainedRun) -> None:
    """lm_eval repeats a request for pass@k and for majority votes."""
    sampled = {"temperature": 5.0, "max_gen_toks": 12}
    asked = [("the", sampled), ("the cat", sampled), ("the", sampled), ("the", sampled)]
    model = LmlabLM(bpe_run)
    texts = model.generate_until(instances("generate_until", *asked))
    assert len({texts[0], texts[2], texts[3]}) == 3
    again = model.generate_until(instances("generate_until", *asked[1:]))
    assert again == [texts[1], texts[0], texts[2]]  # whatever else is asked


QUESTIONS = [
    {"question": "the cat sees the", "choices": ["moon", "old red ship", "sun"], "answer": 0},
    {"question": "a dog sails", "choices": ["over", "under the"], "answer": 1},
    {"question": "the Größe", "choices": ["☃", "and", "blue"], "answer": 2},
    {"question": "new", "choices": ["sea", "sees the moon"], "answer": 0},
    {"question": "under the blue", "choices": ["sails", "sun"], "answer": 1},
]


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A task of multiple choice in a YAML file of its own, with its data."""
    data = tmp_path / "questions.jsonl"
    data.write_text("\n".join(map(json.dumps, QUESTIONS)) + "\n")
    path = tmp_path / "own_choice.yaml"
    path.write_text(
        f"""
task: own_choice
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - metric: acc
  - metric: acc_bytes
  - metric: acc_mutual_info
"""
    )
    return path


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded, and what is cached is in the test's folder."""
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)


def test_own_questions_and_a_task_of_lm_eval_agree(bpe_run: TrainedRun, task: Path) -> None:
    rows = Tasks([str(task)]).run("one", LmlabLM(bpe_run))
    found = {row["metric"]: row for row in rows}
    ours = answer_questions(Scorer(bpe_run), read_questions(task.with_name("questions.jsonl")))
    for metric, scoring in (
        ("acc", "sum"),
        ("acc_bytes", "per_byte"),
        ("acc_mutual_info", "unconditional"),
    ):
        accuracy = ours.accuracy(scoring)
        assert found[metric]["value"] == pytest.approx(accuracy.value), metric
        assert found[metric]["task"] == "own_choice"
        if metric != "acc_mutual_info" or found[metric]["standard_error"] is not None:
            assert found[metric]["standard_error"] == pytest.approx(accuracy.error), metric


def test_it_is_a_model_for_simple_evaluate(bpe_run: TrainedRun, peer: HFLM, task: Path) -> None:
    results = [
        lm_eval.simple_evaluate(
            model=model, tasks=[str(task)], num_fewshot=1, limit=4, bootstrap_iters=0
        )["results"]["own_choice"]
        for model in (LmlabLM(bpe_run), peer)
    ]
    assert results[0] == results[1]


def test_tasks_by_name_in_a_folder_with_examples_and_a_limit(
    bpe_run: TrainedRun, task: Path
) -> None:
    tasks = Tasks(["own_choice"], include_path=task.parent, num_fewshot=1, limit=2)
    rows = tasks.run("one", LmlabLM(bpe_run))
    assert {row["metric"] for row in rows} == {"acc", "acc_bytes", "acc_mutual_info"}
    assert all(float(row["value"] or 0) in (0, 0.5, 1) for row in rows)


def test_tasks_that_cannot_be_loaded_are_one_line(tmp_path: Path, task: Path) -> None:
    with pytest.raises(
        UserError, match=r"hellaswak: lm_eval has no such task; did you mean .*swag"
    ):
        Tasks(["hellaswak"])
    with pytest.raises(UserError, match=r"missing\.yaml: the file does not exist"):
        Tasks([str(tmp_path / "missing.yaml")])
    with pytest.raises(UserError, match="is not a folder"):
        Tasks(["own_choice"], include_path=tmp_path / "missing")
    (tmp_path / "questions.jsonl").unlink()
    with pytest.raises(UserError, match=r"own_choice\.yaml: cannot be loaded: ") as raised:
        Tasks([str(task)])
    assert "\n" not in str(raised.value)
