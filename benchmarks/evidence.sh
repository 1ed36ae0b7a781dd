#!/usr/bin/env bash
# The trials of docs/evidence.md, one after another; each goes on where it was stopped.
#
#     DATA=folder OUT=folder [PYTHON=python] benchmarks/evidence.sh [PART ...]
#
# A PART is one of ms, ms_sizes, ms_seeds, ms_more, ms_models, ms_gans, ms_shapes, ms_rare, ms_rare_parts,
# ms_rare_recipes, sarcoma, sarcoma_controls, sarcoma_sizes, sarcoma_larger, open_ms and open_ms_coarse. DATA
# holds `open_ms`, `sarcoma` (nnU-Net raw) and `mni152` (gm.nii.gz, wm.nii.gz). The tables of a part are
# OUT/PART-results.csv and OUT/PART-comparison.csv; benchmarks/evidence_tables.py shows them as Markdown.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${DATA:?folder of the data}" "${OUT:?folder for what comes out}"
PYTHON="${PYTHON:-.venv/bin/python}"
export OMP_NUM_THREADS=1
FOLDS=(--folds 0,1,2,3,4)

trial() { # PART, folder of its networks (shared where parts have some in common), data set, what else
  local part="$1" folder="$2" input="$3" table
  shift 3
  "$PYTHON" -m lesionsynth trial --input "$input" --output "$OUT/$folder" \
    --preset tiny -t most_patch=24 -t steps=1000 -t validate_every=200 "$@"
  for table in results comparison; do
    cp "$OUT/$folder/$table.csv" "$OUT/$part-$table.csv"
  done
}

cohort() {
  [ -f "$OUT/cohort/dataset.json" ] || "$PYTHON" benchmarks/ms_cohort.py "$OUT/cohort" \
    --masks "$DATA/open_ms/masks" --template "$DATA/mni152" --spacing 2
}

on_ms() { # PART, what else
  local part="$1"
  shift
  cohort
  trial "$part" ms_networks "$OUT/cohort" "${FOLDS[@]}" "$@"
}

on_rare() { # PART, what else
  local part="$1"
  shift
  cohort
  trial "$part" ms_rare_networks "$OUT/cohort" "${FOLDS[@]}" --rare 0.0005 --fractions 0.125 "$@"
}

on_sarcoma() { # PART, what else
  local part="$1"
  shift
  trial "$part" sarcoma_networks "$DATA/sarcoma" -t "spacing_mm=[4,4,4]" "${FOLDS[@]}" --recipes lesionmix "$@"
}

with_models() { # PART, RECIPES: their models are trained on the two training subjects
  on_ms "$1" --fractions 0.125 --seeds 1 --recipes "$2" \
    --train-model hvae.steps=1000 --train-model "hvae.widths=[16,32]" --train-model hvae.latent=32 \
    --train-model hvae.validate_every=250 --train-model hvae.held_out=0 \
    --train-model lesion-autoencoder.steps=1000 --train-model lesion-autoencoder.validate_every=250 \
    --train-model lesion-autoencoder.held_out=0 \
    --train-model translation.steps=1000 --train-model translation.validate_every=250 \
    --train-model translation.held_out=0
}

ms() { # every recipe that needs no trained model, once
  local recipes=(
    lesionmix soft_poisson carve_mix copy_paste lesion_warp intensity_bump relocate self_mix ellipsoid
    lesionmix_published carve_mix_compatible pseudo_healthy
    benchmarks/expected_load.yaml benchmarks/wide_load.yaml
  )
  local IFS=,
  on_ms ms --fractions 0.125 --seeds 1 --controls longer,lesions --recipes "${recipes[*]}"
}

ms_sizes() { # 1, 2, 4, 8 and 16 training subjects
  on_ms ms_sizes --fractions 0.0625,0.125,0.25,0.5,1 --seeds 1 --recipes lesionmix
}

ms_seeds() {
  on_ms ms_seeds --fractions 0.125 --seeds 5 --recipes lesionmix
}

ms_more() { # copies made during training, prototypes, other shares of synthetic patches
  on_ms ms_more --fractions 0.125 --seeds 1 --recipes lesionmix --on-the-fly 10 --prototype cross \
    --shares 0.25,0.75
}

ms_models() {
  with_models ms_models hvae,soft_poisson_aae,translation_spade,translation_image
}

ms_gans() {
  with_models ms_gans translation_pix2pix,translation_cyclegan
}

ms_shapes() { # 15 of the patients are the cohort; shapes come from the masks of the others
  local in="$OUT/ms_shapes_inside" count=0 mask
  if [ ! -f "$OUT/cohort15/dataset.json" ]; then
    mkdir -p "$in" "$OUT/cohort15/masks"
    for mask in "$DATA"/open_ms/masks/*.nii.gz; do
      count=$((count + 1))
      cp "$mask" "$( ((count <= 15)) && echo "$in" || echo "$OUT/cohort15/masks")"
    done
    "$PYTHON" benchmarks/ms_cohort.py "$OUT/cohort15" --masks "$in" --template "$DATA/mni152" --spacing 2
  fi
  trial ms_shapes ms_shapes_networks "$OUT/cohort15" "${FOLDS[@]}" --fractions 0.2 --seeds 1 \
    --recipes lesionmix,mask_library
}

ms_rare() {
  on_rare ms_rare --seeds 5 --controls lesions --recipes benchmarks/expected_load.yaml
}

ms_rare_parts() { # each part of the recipe off in turn
  on_rare ms_rare_parts --seeds 1 --recipes benchmarks/expected_load.yaml --ablate
}

ms_rare_recipes() { # other recipes with those loads
  on_rare ms_rare_recipes --seeds 1 --set "steps.add.load=[2,20]" \
    --recipes soft_poisson,lesion_warp,intensity_bump,ellipsoid
}

sarcoma() {
  on_sarcoma sarcoma --fractions 0.1 --seeds 5
}

sarcoma_controls() {
  on_sarcoma sarcoma_controls --fractions 0.1 --seeds 1 --controls longer,lesions
}

sarcoma_sizes() { # 2, 4, 8 and 16 training subjects
  on_sarcoma sarcoma_sizes --fractions 0.1,0.25,0.5,1 --seeds 1
}

sarcoma_larger() { # a network with four times as many weights, twice as many updates
  trial sarcoma_larger sarcoma_larger_networks "$DATA/sarcoma" -t "spacing_mm=[4,4,4]" "${FOLDS[@]}" \
    --recipes lesionmix --fractions 0.1 --seeds 3 -t steps=2000 -t "widths=[16,32,64]"
}

open_ms() {
  trial open_ms open_ms_networks "$DATA/open_ms" --set folds.strategy=per_fold \
    --recipes open_ms,lesionmix,mask_library --seeds 2 --folds 0,1
}

open_ms_coarse() { # patches of 64 mm instead of 24
  trial open_ms_coarse open_ms_coarse_networks "$DATA/open_ms" --set folds.strategy=per_fold \
    --recipes open_ms,mask_library --seeds 2 --folds 0,1 -t most_patch=32 -t "spacing_mm=[2,2,2]"
}

for part in "${@:-ms}"; do
  "$part"
done
