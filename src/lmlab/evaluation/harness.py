"""A trained run as a model of lm-evaluation-harness, for `lm_eval.simple_evaluate(model=...)`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import numpy as np

from lmlab.errors import UserError
from lmlab.evaluation.pairs import encode_pair, pair_request
from lmlab.evaluation.scorer import Request, Scorer
from lmlab.evaluation.windows import sliding_windows
from lmlab.generation.engine import Engine, Generation
from lmlab.generation.options import Options
from lmlab.generation.weights import Dtype
from lmlab.io.progress import say
from lmlab.loading import TrainedRun

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from tqdm import tqdm
except ImportError as missing:
    raise UserError(
        f"lm-evaluation-harness is needed ({missing.name} is not installed): "
        "pip install 'lmlab[eval]'"
    ) from missing

LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names of the generated tokens at most; the first one given counts."""
MAX_NEW_TOKENS = 256
UNUSED = ("max_length", "num_beams", "early_stopping", "use_cache")
"""Generation arguments of other libraries that do not change what is generated here."""


class LmlabLM(LM):
    """A run at one of its checkpoints.

    Log-likelihoods are those that `lm_eval`'s own class for transformers computes with the same
    weights: special tokens in a text are parsed, an empty context is <|endoftext|>, a long one is
    cropped from the left. `dtype` and `batch_size` are as in `Scorer`.
    """

    def __init__(self, run: TrainedRun, *, dtype: Dtype = "fp32", batch_size: int = 8) -> None:
        super().__init__()
        self.run = run
        self.scorer = Scorer(run, dtype=dtype, batch_size=batch_size)
        self.batch_size = batch_size
        self.max_length = run.model.context_length
        self._device = self.scorer.device
        self._told: set[str] = set()

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Return log p(continuation | context) in nats, and whether it is the greedy one."""
        wanted: list[Request] = []
        cropped = 0
        for index, (context, continuation) in enumerate(r.args for r in requests):
            pair = encode_pair(self.run.tokenizer, context, continuation, "parse")
            request, was_cropped = pair_request(self.scorer, pair, index)
            cropped += was_cropped
            wanted.append(request)
        if cropped:
            self._tell(
                f"{cropped:,} of {len(requests):,} requests are longer than the context of "
                f"{self.max_length:,} tokens and were cropped from the left"
            )
        results = []
        with tqdm(total=len(requests), desc="log-likelihoods", disable=disable_tqdm) as shown:
            for scored in self.scorer.score(wanted, greedy=True):
                results.append((float(scored.log_probs.sum()), bool(scored.greedy)))
                shown.update()
        return self._cached("loglikelihood", requests, results)

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Return the log-probability of each whole text in nats, in windows without overlap."""
        wanted: list[Request] = []
        end = self.scorer.end
        for index, (text,) in enumerate(request.args for request in requests):
            ids = np.array([end, *self.run.tokenizer.encode(text)])
            for window in sliding_windows(len(ids) - 1, self.max_length, self.max_length):
                part = ids[window.begin : window.end + 1]
                wanted.append(Request(part, window.scored, index))
        results = [0.0] * len(requests)
        with tqdm(total=len(wanted), desc="windows", disable=disable_tqdm) as shown:
            for scored in self.scorer.score(wanted):
                results[scored.request.owner] += float(scored.log_probs.sum())
                shown.update()
        return self._cached("loglikelihood_rolling", requests, results)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return the text generated after each context, up to one of its `until` strings.

        The context is cropped to leave room for `max_gen_toks` tokens (256 by default). It is
        greedy without a `temperature`, or when `do_sample` is false. Requests that are repeated are
        samples of their own: sample i of a context has a seed made of `seed`, the context and i.
        Raises UserError for arguments that are not known.
        """
        engine = Engine(self.scorer.model, self.run.tokenizer, max_batch=self.batch_size)
        generations = []
        samples: Counter[tuple[int, str]] = Counter()
        for context, arguments in (request.args for request in requests):
            options = self._options(arguments)
            key = options.seed, context
            options = replace(options, seed=_sample_seed(*key, samples[key]))
            samples[key] += 1
            room = max(1, self.max_length - options.max_new_tokens)
            ids = self.run.tokenizer.encode(context)
            generations.append(engine.submit(ids[-room:], options))
        with tqdm(total=len(requests), desc="generating", disable=disable_tqdm) as shown:
            while engine.busy:
                with self.scorer.autocast():
                    pieces = engine.step()
                shown.update(sum(p.sequence.finish_reason is not None for p in pieces))
        return self._cached("generate_until", requests, _texts(generations))

    def _options(self, arguments: dict[str, Any]) -> Options:
        known = dict(arguments)
        lengths = [known.pop(name) for name in LENGTHS if name in known]
        until = known.pop("until", None) or []
        temperature = float(known.pop("temperature", 0.0))
        options: dict[str, Any] = {
            "stop": (until,) if isinstance(until, str) else tuple(filter(None, until)),
            "max_new_tokens": lengths[0] if lengths else MAX_NEW_TOKENS,
            "temperature": temperature if known.pop("do_sample", True) else 0.0,
            "top_k": known.pop("top_k", None) or None,  # elsewhere 0 means all
        }
        for name in ("top_p", "min_p", "repetition_penalty", "seed"):
            if name in known:
                options[name] = known.pop(name)
        unknown = sorted(known.keys() - set(UNUSED))
        if unknown:
            raise UserError(f"generation argument {unknown[0]!r} is not supported; remove it")
        return Options(**options)

    def _cached(self, kind: str, requests: list[Instance], results: Sequence[Any]) -> list[Any]:
        """Return the results, after handing them to lm_eval's cache."""
        for request, result in zip(requests, results, strict=True):
            self.cache_hook.add_partial(kind, request.args, result)
        return list(results)

    def _tell(self, line: str) -> None:
        if line not in self._told:
            say(line)
            self._told.add(line)


def _sample_seed(seed: int, context: str, sample: int) -> int:
    digest = blake2b(f"{seed}/{sample}/{context}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _texts(generations: Sequence[Generation]) -> list[str]:
    return [generation.text for generation in generations]
