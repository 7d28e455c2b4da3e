#!/usr/bin/env bash
# The whole journey on the built-in tasks: prepare, look, train, evaluate, answer, report.
set -euo pipefail
cd "$(dirname "$0")/.."
flan_jax=".venv/bin/flan-jax"
out="${OUT_DIR:-runs/demo}"
vocabulary=tasks/data/demo/vocabulary.model
mixtures=demo,demo_unseen_examples,demo_unseen_wordings,demo_held_out,demo_multistep,demo_cot_eval

echo "== 1. prepare: 28 trained tasks, their unseen wordings and the held-out clusters become tokens"
"$flan_jax" prepare --mixture "$mixtures" --cache_dir "$out/cache" --vocabulary "$vocabulary" | tail -n 3

echo "== 2. train: a tiny encoder-decoder, scored before the first step and after the last"
"$flan_jax" train --gin_file runs/demo.gin --cache_dir "$out/cache" --workdir "$out/run" "$@"

echo "== 3. answer: prompts that were not trained on, the last two with a rationale"
"$flan_jax" generate --checkpoint "$out/run" < launch/demo_prompts.txt
