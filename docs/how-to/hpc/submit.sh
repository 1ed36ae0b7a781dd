#!/bin/bash
# A whole run on Slurm: plan, shards, merge. The jobs wait for each other; this returns at once.
#   SHARDS=20 docs/how-to/hpc/submit.sh RECIPE INPUT OUTPUT [options of `lesionsynth plan` and `run`, such as -n 4 --seed 1]
# ARRAY names another array script, such as docs/how-to/hpc/array_gpu.sbatch. More for sbatch, such as a partition: SBATCH_*.
set -euo pipefail
recipe=$1 input=$2 output=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
array=${ARRAY:-$here/array.sbatch}
last=$((${SHARDS:-10} - 1))
options=""
for option in "$@"; do options+=" $(printf %q "$option")"; done

plan=$(sbatch --parsable --job-name=lesionsynth-plan --cpus-per-task=8 --mem=16G --time=4:00:00 \
    --wrap="lesionsynth plan $(printf '%q ' "$recipe") -i $(printf %q "$input") -o $(printf %q "$output") -j auto$options")
shards=$(sbatch --parsable --array=0-$last --dependency=afterok:"$plan" "$array" "$recipe" "$input" "$output" "$@")
merge=$(sbatch --parsable --job-name=lesionsynth-finalize --mem=8G --time=4:00:00 --dependency=afterany:"$shards" \
    --wrap="lesionsynth finalize $(printf %q "$output")")
echo "plan $plan, shards $shards, finalize $merge. How far it is: lesionsynth status $output"
