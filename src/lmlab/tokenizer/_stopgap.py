from lmlab.tokenizer import reference
from lmlab.tokenizer.pretokenize import split_pretokens, split_special_stream
import numpy as np
class Encoder:
    def __init__(self, v):
        self.v = v
        self.ids = v.ordinary_ids
        self.ranks = {p: r for r, p in enumerate(v.merges)}
        self.cache = {}
        self.dtype = np.dtype(np.uint16 if v.size <= 65536 else np.uint32)
    def _pretoken(self, p):
        if p not in self.cache:
            self.cache[p] = [self.ids[t] for t in reference.encode_pretoken(p.encode(), self.ranks)]
        return self.cache[p]
    def encode(self, text):
        return np.array(list(self.stream([text])), self.dtype)
    def stream(self, pieces):
        for part, special in split_special_stream(pieces, list(self.v.special_tokens)):
            if special:
                yield self.v.special_tokens[part]
            else:
                for p in split_pretokens(part, self.v.pattern):
                    yield from self._pretoken(p)
