#!/usr/bin/env bash
# The trials of docs/evidence.md, one after another; each goes on where it was stopped.
#
#     DATA=folder OUT=folder [PYTHON=python] benchmarks/evidence.sh [ms ms_rare sarcoma sarcoma_four open_ms]
#
# DATA holds `open_ms`, `sarcoma` (nnU-Net raw) and `mni152` (gm.nii.gz, wm.nii.gz).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${DATA:?folder of the data}" "${OUT:?folder for what comes out}"
PYTHON="${PYTHON:-.venv/bin/python}"
export OMP_NUM_THREADS=1
NETWORK=(--preset tiny -t most_patch=24 -t steps=1000 -t validate_every=200)

trial() {
  local name="$1" input="$2"
  shift 2
  "$PYTHON" -m lesionsynth trial --input "$input" --output "$OUT/$name" "${NETWORK[@]}" "$@"
}

cohort() {
  [ -f "$OUT/cohort/dataset.json" ] || "$PYTHON" benchmarks/ms_cohort.py "$OUT/cohort" \
    --masks "$DATA/open_ms/masks" --template "$DATA/mni152" --spacing 2
}

ms() {
  cohort
  trial ms "$OUT/cohort" --fractions 0.125 --seeds 1 --folds 0,1,2,3,4 \
    --recipes lesionmix,benchmarks/expected_load.yaml,soft_poisson,carve_mix,intensity_bump
}

ms_rare() {
  cohort
  trial ms_rare "$OUT/cohort" --rare 0.0005 --controls lesions --fractions 0.125 --seeds 2 \
    --folds 0,1,2,3,4 --recipes benchmarks/expected_load.yaml
}

sarcoma() {
  trial sarcoma "$DATA/sarcoma" -t "spacing_mm=[4,4,4]" --fractions 0.1 --seeds 1 --folds 0,1,2,3,4 \
    --recipes lesionmix
}

sarcoma_four() {
  trial sarcoma_four "$DATA/sarcoma" -t "spacing_mm=[4,4,4]" --fractions 0.25 --seeds 1 --folds 0,1,2,3,4 \
    --recipes lesionmix
}

open_ms() {
  trial open_ms "$DATA/open_ms" --set folds.strategy=per_fold --recipes open_ms \
    --seeds 1 --folds 0,1
}

for part in "${@:-ms}"; do
  "$part"
done
