"""How large a vocabulary may be: what the native core packs into 64 bits, and none comes near."""

MAX_IDS = 2**21 - 1
MAX_MERGES = 2**22 - 1
