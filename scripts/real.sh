#!/bin/bash
# The whole table of docs/real.md for several seeds, each in a process of its own: fits, tests, perplexities, tables.
#
#   scripts/real.sh MODEL DATA OUT [WORDS]      WORDS go to every fit and test
#   scripts/real.sh runs/smollm2 $COH_REAL_DATA runs/real --config conf/trainer/gpu_bf16.yaml
#
# MODEL is the folder of scripts/smollm2.py (a machine that fetches nothing takes the GGUF file in parts:
# `split -b 60M`, `cat`, then --gguf); DATA has the pairs and wikitext. Run again, it goes on: what is finished is kept.
# SEEDS="0 1 2", STEPS=60, PROMPTS=400 and TEST=200 can be set; COH names the program.
set -euo pipefail
model=$(realpath "$1") data=$(realpath "$2") out=$3
shift 3
coh=${COH:-coh} python=${PYTHON:-python}
export COH_REAL_DATA=$data OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
here=$(dirname "$0")
all=("--model.name_or_path=$model" --trainer.enable_progress_bar=false "$@")

run() { # SEED NAME CONFIG WORDS: a fit and its test, unless they are there
  local folder=$out/$1/$2 config=conf/experiment/$3.yaml words=("${all[@]}" "--seed_everything=$1" "--data.seed=$1" "${@:4}")
  [ -f "$folder/finished" ] || $coh fit --config "$config" "${words[@]}" "--trainer.max_steps=${STEPS:-60}" "--run.folder=$folder"
  [ -f "$folder/test.csv" ] || $coh test --config "$config" "${words[@]}" "--ckpt_path=$folder/checkpoints/last.ckpt" "--run.folder=$folder"
  reads "$folder" "$folder/checkpoints/last.ckpt"
}

untrained() { # SEED NAME CONFIG WORDS: a test of the model as it is
  local folder=$out/$1/$2
  [ -f "$folder/test.csv" ] || $coh test --config "conf/experiment/$3.yaml" "${all[@]}" "--data.seed=$1" "${@:4}" "--run.folder=$folder"
  reads "$folder" "$model"
}

reads() { # FOLDER MODEL: perplexity on wikitext
  [ -f "$1/perplexity.json" ] || $python "$here/perplexity.py" "$2" "$data/wikitext2_valid.txt.gz" --output "$1/perplexity.json"
}

seed() {
  local sft=--data.method=conf/method/sft.yaml text=$data/gutenberg_scifi_squality_dev.txt.gz
  local faultless='--data.method={name: sft_faultless, orders: [p], sentences: none, preference_from: thumb}'
  untrained "$1" base smollm2_hh
  run "$1" coh smollm2_hh
  run "$1" coh_lambda smollm2_hh "--data.pretraining_text=[$text]" --data.pretraining_rows_per_step=2
  run "$1" sft smollm2_hh $sft
  export COH_CONSTRAINTS=$(realpath -m "$out")/$1/constraints
  [ -f "$COH_CONSTRAINTS/test.jsonl" ] || $python -m coh_lightning.world.instructions "$model" --output "$COH_CONSTRAINTS" \
    --seed "$1" --prompts "${PROMPTS:-400}" --test-prompts "${TEST:-200}"
  untrained "$1" constraints_base smollm2_constraints $sft
  run "$1" constraints_critiques smollm2_constraints
  run "$1" constraints_sft smollm2_constraints $sft
  run "$1" constraints_faultless smollm2_constraints "$faultless" --data.max_unusable_fraction=0.95
  $python "$here/real_table.py" "$out/$1"/{base,coh,coh_lambda,sft} >"$out/$1/hh.md"
  $python "$here/real_table.py" "$out/$1"/constraints_{base,critiques,sft,faultless} --scores overall faultless tokens >"$out/$1/constraints.md"
}

mkdir -p "$out"
pids=()
for one in ${SEEDS:-0 1 2}; do
  seed "$one" >"$out/$one.log" 2>&1 &
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid"; done
cat "$out"/*/hh.md "$out"/*/constraints.md
