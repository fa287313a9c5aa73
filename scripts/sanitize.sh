#!/bin/sh
# Build the native cores under AddressSanitizer and UndefinedBehaviorSanitizer, run the tests of the
# tokenizer, the native cleaning steps and the native kernels on them and then the fuzzer.
#
#     scripts/sanitize.sh [SECONDS OF FUZZING, default 60] [PYTEST ARGUMENTS...]
#
# PYTHON is the interpreter with the development dependencies (default .venv/bin/python).
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
seconds=${1:-60}
[ $# -eq 0 ] || shift

# An environment of its own holds the instrumented package, so that the editable one stays as it is;
# everything else comes from the development environment's path.
rm -rf build/sanitize/venv
"$python" -m venv build/sanitize/venv
site=$(build/sanitize/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$python" -c 'import sys; print("\n".join(p for p in sys.path if p.endswith("-packages")))' \
    > "$site/development.pth"
build/sanitize/venv/bin/python -m pip install --quiet --no-deps \
    --config-settings=cmake.define.LMLAB_SANITIZE=ON \
    --config-settings=build-dir=build/sanitize/cmake \
    --config-settings=install.strip=false .

# Python itself leaks by design, so leaks are not looked for; it must load the runtime first.
export LD_PRELOAD="$(${CXX:-c++} -print-file-name=libasan.so) $(${CXX:-c++} -print-file-name=libstdc++.so)"
export ASAN_OPTIONS=detect_leaks=0:strict_string_checks=1
export UBSAN_OPTIONS=print_stacktrace=1
build/sanitize/venv/bin/python -c '
from lmlab.cleaning import _core as cleaning
from lmlab.kernels import _core as kernels
from lmlab.tokenizer import _core as tokenizer
for core in cleaning, kernels, tokenizer:
    assert "/sanitize/" in core.__file__ and b"__asan_init" in open(core.__file__, "rb").read()'
cleaning=$(printf 'tests/cleaning/test_%s.py ' against_datatrove boundaries deduplication extraction)
kernels=$(printf 'tests/kernels/test_%s.py ' blocked_attention native_layers native_losses)
build/sanitize/venv/bin/python -m pytest tests/tokenizer $cleaning $kernels -m "not slow" "$@"
build/sanitize/venv/bin/python scripts/fuzz.py "$seconds"
