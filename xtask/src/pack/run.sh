#!/bin/sh
# Everything Kiln wants to know of a machine with a GPU, in about eight minutes: its adapters, whether the tests
# pass, and the benchmark table beside PyTorch's. Needs no Rust; PyTorch with CUDA if there is one.
#
#   OUT=./out             where adapters.txt, tests.log, ours.jsonl, profile.txt, ladder.jsonl and theirs.jsonl go
#   SECONDS_PER_ROW=1     how long each row is measured
#   ONLY=                 a regular expression: only rows whose name matches
#   PYTHON=python3        the Python that may have torch
#   KILN_GPU=gpu          the adapter of the table, as in adapters.txt
#
# Exits with 1 if a test failed, a stage ran out of time, or a row has no figures; the stages after it run all the same.
set -u

here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-./out}
seconds=${SECONDS_PER_ROW:-1}
only=${ONLY:-}
python=${PYTHON:-python3}
gpu=${KILN_GPU:-gpu}
mkdir -p "$out"
status=0

for packed in "$here"/*.gz; do
  if [ -e "$packed" ]; then gunzip -f "$packed"; fi
done

# stage NAME LIMIT COMMAND...: runs it for at most LIMIT seconds, and remembers whether it failed.
stage() {
  name=$1 limit=$2
  shift 2
  begun=$(date +%s)
  if timeout -k 5 "$limit" "$@"; then result=passed; else result="FAILED ($?)"; status=1; fi
  echo "== $name: $result, $(($(date +%s) - begun)) s" >&2
}

stage adapters 20 "$here/table" --adapters >"$out/adapters.txt"
cat "$out/adapters.txt"

: >"$out/tests.log"
for test in "$here"/test-*; do
  [ -x "$test" ] || continue
  echo "== $(basename "$test")" >>"$out/tests.log"
  stage "$(basename "$test")" 60 env KILN_REQUIRE_GPU=1 "$test" >>"$out/tests.log" 2>&1
done
grep -E '^test result|^== .*: |FAILED$' "$out/tests.log"

stage table 130 "$here/table" --device "$gpu" --seconds "$seconds" --only "$only" --profile \
  >"$out/ours.jsonl" 2>"$out/profile.txt"
grep '^== ' "$out/profile.txt"

stage ladder 60 "$here/table" --device "$gpu" --seconds 0.2 --only '^ladder_' --profile \
  >"$out/ladder.jsonl" 2>"$out/ladder.txt"
grep '^== ' "$out/ladder.txt"

: >"$out/theirs.jsonl"
if [ -f "$here/torch_bench.py" ] && timeout 30 "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
  stage peer 130 "$python" "$here/torch_bench.py" --device cuda --seconds "$seconds" --only "$only" >"$out/theirs.jsonl"
else
  echo "== peer: skipped, no PyTorch with CUDA" >&2
fi

if command -v "$python" >/dev/null 2>&1; then
  "$python" - "$out/ours.jsonl" "$out/theirs.jsonl" <<'END' || status=1
import json, math, sys
def lines(path):
    return {r["name"]: r for r in (json.loads(l) for l in open(path) if l.startswith("{"))}
ours, theirs = map(lines, sys.argv[1:3])
print(f"{'workload':32} {'ours ms':>10} {'theirs ms':>10} {'ratio':>6} {'rate':>10} unit       {'kernels':>7} {'gpu ms':>9}")
ratios, failed = [], 0
for name, row in ours.items():
    peer = theirs.get(name, {}).get("median_ms")
    if "error" in row:
        failed += 1
        print(f"{name:32} failed: {row['error']}")
        continue
    ratio = peer / row["median_ms"] if peer else None
    if ratio: ratios.append(ratio)
    print(f"{name:32} {row['median_ms']:10.4f} {f'{peer:.4f}' if peer else '':>10} {f'{ratio:.2f}' if ratio else '':>6}"
          f" {row['rate']:10.1f} {row['unit']:10} {row['kernels']:7} {row.get('gpu_ms', ''):>9}")
if ratios:
    print(f"geometric mean of {len(ratios)} ratios: {math.exp(sum(map(math.log, ratios)) / len(ratios)):.2f}")
sys.exit(failed > 0 or not ours)
END
fi
exit $status
