"""Byte-level BPE: training, encoding, decoding."""
