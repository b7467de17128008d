#!/usr/bin/env bash
# The list of what is in the program: what cargo links, each with a licence and a checksum, and all of it reached from the
# program.
set -euo pipefail
# shellcheck source=.packaging/check/lib.sh
. "$(dirname "$0")/lib.sh"

program
python3 - "$OUT/nudged-$VERSION-$CPU.cdx.json" <<'PYTHON'
import json
import sys

sbom = json.load(open(sys.argv[1]))
listed = {one["bom-ref"]: one for one in sbom["components"]}
needs = {one["ref"]: one["dependsOn"] for one in sbom["dependencies"]}
reached, next_ones = set(), [sbom["metadata"]["component"]["bom-ref"]]
while next_ones:
    one = next_ones.pop()
    if one not in reached:
        reached.add(one)
        next_ones += needs[one]
assert reached - {sbom["metadata"]["component"]["bom-ref"]} == listed.keys(), reached ^ listed.keys()
for name, one in listed.items():
    assert one["licenses"][0]["expression"] and len(one["hashes"][0]["content"]) == 64, name
names = {one["name"] for one in listed.values()}
assert {"tokio", "rustls", "aws-lc-sys", "redis", "tokio-postgres", "async-nats", "hdrhistogram"} <= names
assert not names & {"ring", "proptest", "fantoccini", "sse-codec"}, "it lists what is only tested with"
print(f"{len(listed)} crates are listed")
PYTHON
