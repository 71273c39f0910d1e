#!/usr/bin/env bash
# The checks, then the benchmark, on a GPU machine without a network, from an archive of site packages.
#
#   bash tests/gpu/offline.sh ARCHIVE.tar.xz OUT [SECONDS]     # in the repository's root; SECONDS for the checks: 215
#
# Three lanes of checks run side by side; `sleep` and the benchmark, which read the GPU's memory, run alone afterwards.
# Where sampling fails with compiled kernels it is tried again without them, so that one call tells which of the two it
# is. OUT gets checks.jsonl, lanes.log, gpu.json and benchmark.log; each result is written as soon as it is known.
set -u
archive=$(realpath "$1") out=$(realpath "$2") seconds=${3:-215} root=$PWD start=$(date +%s)
at() { echo "[$(($(date +%s) - start)) s] $*"; }
# all of it outside the repository: there `python -m fst_bench` would find a package without its methods and streams
work=$(mktemp -d) && mkdir -p "$work"/{site,ours,eager,cwd} && cd "$work/cwd" || exit 1
nvidia-smi --query-gpu=name,memory.total,memory.used,driver_version --format=csv,noheader
python3 --version
tar xJf "$archive" -C "$work/site"
for copy in ours eager; do
  cp -r "$root/fst_bench" "$work/$copy/" && cp -r "$root/methods" "$root/streams" "$work/$copy/fst_bench/"
done
sed -i 's/enforce_eager=not cuda/enforce_eager=True/' "$work/eager/fst_bench/policy/distributed/sampler.py"
export PYTHONPATH=$work/site:$work/ours HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 PYTHONUNBUFFERED=1
at set up

checks() { # lane, names; one that comes after `seconds` has as long as run.py gives a check
  local left=$((seconds - $(date +%s) + start))
  timeout "$((left > 0 ? left : 160))" python3 "$root/tests/gpu/run.py" --out "$out/checks.jsonl" "${@:2}" \
    > "$work/lane-$1" 2>&1
  cat "$work/lane-$1" >> "$out/lanes.log"
  at "lane $1 ended"
}
checks torch agreement-zero2 agreement-zero3 torch-float32 bfloat16-zero3-positions torch-bfloat16 run-torch &
checks float32 sync-float32 run-vllm-deepspeed &
(
  checks bfloat16 kernels sync-bfloat16
  if grep -q "FAILED sync-bfloat16" "$work/lane-bfloat16"; then
    PYTHONPATH=$work/site:$work/eager checks eager sync-bfloat16 run-vllm-deepspeed
  else
    checks harness broken-syncs kill-and-resume
  fi
) &
wait
pkill -9 -f "$root/tests/gpu/checks.py" # what is left of a lane that was cut off
seconds=0 checks alone sleep
cat "$out/lanes.log"
python3 "$root/tests/gpu/benchmark.py" --out "$out/gpu.json" 2>&1 | tee "$out/benchmark.log"
at end
