"""Prints what is linked into the program, as CycloneDX 1.5.

It reads `cargo metadata` from standard input, and has three arguments: a file with the names and versions of the linked
crates, a line each; Cargo.lock; and the time of the release, in seconds.
"""

import datetime
import json
import pathlib
import re
import sys
import tomllib

crates, lock, epoch = sys.argv[1:]
linked = set(pathlib.Path(crates).read_text().split("\n"))
metadata = json.load(sys.stdin)
sums = {
    (one["name"], one["version"]): one["checksum"]
    for one in tomllib.loads(pathlib.Path(lock).read_text())["package"] if "checksum" in one
}
packages = {one["id"]: one for one in metadata["packages"] if f"{one['name']} v{one['version']}" in linked}


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package):
    made = {
        "type": "application" if package["source"] is None else "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "purl": purl(package),
        # An old way to write OR.
        "licenses": [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}],
    }
    if (package["name"], package["version"]) in sums:
        made["hashes"] = [{"alg": "SHA-256", "content": sums[package["name"], package["version"]]}]
    if package["repository"]:
        made["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return made


[program] = [one for one in packages.values() if one["source"] is None]
time = datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
others = sorted((one for one in packages.values() if one is not program), key=purl)
needs = [
    {
        "ref": purl(packages[node["id"]]),
        "dependsOn": sorted({
            purl(packages[one["pkg"]]) for one in node["deps"]
            if one["pkg"] in packages and any(kind["kind"] is None for kind in one["dep_kinds"])
        }),
    }
    for node in metadata["resolve"]["nodes"] if node["id"] in packages
]
json.dump(
    {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"timestamp": time, "component": component(program)},
        "components": [component(one) for one in others],
        "dependencies": sorted(needs, key=lambda one: one["ref"]),
    },
    sys.stdout,
    indent=1,
)
