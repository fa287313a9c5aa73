#!/usr/bin/env bash
# Clean the crawl of corpus.py in four ways:  bash experiments/cleaning/clean.sh corpus
set -euo pipefail
corpus=$1
books="{kind: decontaminate, paths: [$corpus/held_out], field: text, ngrams: 13, max_shared_ngrams: 0}"
clean() {
  python clean.py cleaning=gopher "input=[$corpus/crawl]" "+cleaning.steps.decontaminate=$books" "$@"
}
no_filters=('~cleaning.steps.repair' '~cleaning.steps.language' '~cleaning.steps.gopher' '~cleaning.steps.repetition')
no_duplicates='~cleaning.steps.minhash'

clean output="$corpus/raw" "${no_filters[@]}" "$no_duplicates" cleaning.steps.extract.extractor=resiliparse
clean output="$corpus/main" "${no_filters[@]}" "$no_duplicates"
clean output="$corpus/filtered" "$no_duplicates"
clean output="$corpus/deduplicated"
