import os
from lmlab.tokenizer import reference
from lmlab.tokenizer.pretokenize import split_pretokens, split_special
import numpy as np


class InvalidUtf8(ValueError):
    def __init__(self, offset):
        super().__init__(f"invalid UTF-8 at byte {offset}")
        self.offset = offset


def dec(b, errors="strict"):
    if isinstance(b, str):
        b.encode()
        return b
    try:
        return b.decode(errors=errors)
    except UnicodeDecodeError as e:
        raise InvalidUtf8(e.start) from None


class Encoder:
    def __init__(self, vocab, merges, special, pattern):
        self.vocab, self.special, self.pattern = vocab, special, pattern
        self.ids = {}
        for i, t in enumerate(vocab):
            self.ids.setdefault(t, i)
        self.ranks = {p: r for r, p in enumerate(merges)}
        self.cache = {}
        self.dtype = np.dtype(np.uint16 if len(vocab) <= 65536 else np.uint32)

    def _p(self, p):
        if p not in self.cache:
            self.cache[p] = [self.ids[t] for t in reference.encode_pretoken(p, self.ranks)]
        return self.cache[p]

    def encode(self, text, *, num_threads=1):
        text = dec(text)
        out = []
        for part, special in split_special(text, [s.decode() for s in self.special]):
            if special:
                out.append(self.special[part.encode()])
            else:
                for p in split_pretokens(part, self.pattern):
                    out += self._p(p.encode())
        return np.array(out, self.dtype)

    def encode_batch(self, texts, *, num_threads=None):
        return [self.encode(t) for t in texts]

    def encode_pretokens(self, pretokens):
        return np.array([i for p in pretokens for i in self._p(p)], self.dtype)

    def stream(self, *, errors="strict"):
        return Stream(self, errors)

    def decode_bytes(self, ids):
        for i in ids:
            if not 0 <= i < len(self.vocab):
                raise IndexError(f"id {i}")
        return b"".join(self.vocab[i] for i in ids)


class Stream:
    def __init__(self, e, errors):
        self.e, self.errors, self.b = e, errors, b""

    def feed(self, piece):
        self.b += piece
        return np.array([], self.e.dtype)

    def finish(self):
        b, self.b = self.b, b""
        return self.e.encode(dec(b, self.errors))


class FileEncoder:
    def __init__(
        self, encoder, fd, *, num_threads=None, errors="strict", progress=None, chunk_bytes=0
    ):
        self.e, self.fd, self.s, self.n, self.read, self.p = (
            encoder,
            fd,
            encoder.stream(errors=errors),
            0,
            0,
            progress,
        )

    def add_file(self, path):
        self.add(path.read_bytes())

    def add(self, piece):
        self.s.feed(piece)
        self.read += len(piece)
        if self.p:
            self.p(self.read)

    def end_text(self):
        ids = self.s.finish()
        self.n += len(ids)
        data = ids.tobytes()
        while data:
            data = data[os.write(self.fd, data) :]

    def finish(self):
        self.end_text()
        return self.n
