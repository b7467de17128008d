"""Prints the licences of all crates that the program contains: each text once, after the crates that it is of.

It reads `cargo metadata` from standard input, and the names and versions of the crates, a line each, from the file
that is its argument.
"""

import json
import pathlib
import sys

contained = set(pathlib.Path(sys.argv[1]).read_text().split("\n"))
texts = {}
for package in json.load(sys.stdin)["packages"]:
    crate = f"{package['name']} v{package['version']}"
    if crate not in contained or package["source"] is None:
        continue
    folder = pathlib.Path(package["manifest_path"]).parent
    files = [
        path for path in sorted(folder.rglob("*"))
        if path.name.upper().startswith(("LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"))
        and path.is_file() and path.suffix not in (".rs", ".py", ".go", ".c", ".h")
    ]
    named = f"{crate} ({package['license']})"
    if not files:
        texts.setdefault("(the crate has no text of its licence)", []).append(named)
    for path in files:
        texts.setdefault(path.read_text(errors="replace").strip(), []).append(named)
for text, crates in texts.items():
    print("=" * 80, *sorted(set(crates)), "-" * 80, text, "", sep="\n")
