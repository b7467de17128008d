//! The npm package of the client, in a project that installs it.

use std::path::Path;
use std::process::Command;

use crate::inputs::TYPESCRIPT;
use crate::support::programs::{LOCKED_NODE, locked, requires};
use crate::support::temp_dir::TempDir;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// All that is in the package, folders too.
const FILES: &str = "LICENSE-APACHE LICENSE-MIT README.md adapters.d.ts adapters.js examples examples/posts \
    examples/posts/README.md examples/posts/page.css examples/posts/page.js examples/posts/server.js nudged.d.ts \
    nudged.js package.json server.d.ts server.go server.js server.py\n";

const RENDERED: &str = "import { nudged } from 'nudged-client';
    import { query, swr, dom, cache } from 'nudged-client/adapters';
    import { publisher, ticket } from 'nudged-client/server';
    console.log([nudged('/').id, typeof publisher, ticket('0'.repeat(32), 'acme').split('.').length].join());";

const TYPED: &str = "import { nudged, type Nudged } from 'nudged-client';
    import { cache, dom } from 'nudged-client/adapters';
    import { publisher, type Publisher } from 'nudged-client/server';
    export const stream: Nudged = nudged('/api/acme/events', { ...dom(), ...cache(new Map()) });
    export const server: Publisher = publisher({ url: 'http://10.0.0.5:6835' });
    // @ts-expect-error it is a text
    nudged(7);";

/// Runs Node in a folder, and returns what it prints.
fn node(folder: &TempDir, arguments: &[&str]) -> String {
    let mut command = Command::new(locked!("bin/node"));
    command.current_dir(folder.path()).env("npm_config_cache", folder.file("cache"));
    let output = command.args(arguments).output().expect("node");
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8"));
    assert!(output.status.success(), "{arguments:?}: {stdout}{stderr}");
    stdout
}

#[test]
fn a_project_that_installs_the_package_has_its_modules_its_types_and_no_other_file() {
    requires!(LOCKED_NODE, TYPESCRIPT);
    let project = TempDir::new();
    std::fs::write(project.file("package.json"), r#"{ "type": "module" }"#).expect("a file");
    let program = Path::new(locked!("bin/node")).canonicalize().expect("a file");
    let npm = program.with_file_name("../lib/node_modules/npm/bin/npm-cli.js");
    let npm = npm.to_str().expect("UTF-8");
    let package = format!("{ROOT}/src/browser");
    node(
        &project,
        &[npm, "install", "--install-links", "--offline", "--no-audit", "--no-fund", &package],
    );
    let list = "fs.readdirSync('node_modules/nudged-client', { recursive: true }).sort().join(' ')";
    assert_eq!(node(&project, &["-p", list]), FILES);
    for file in ["LICENSE-APACHE", "LICENSE-MIT"] {
        let texts = [ROOT.to_owned(), package.clone()]
            .map(|folder| std::fs::read(Path::new(&folder).join(file)).expect("a file"));
        assert_eq!(texts[0], texts[1], "{file}");
    }

    std::fs::write(project.file("rendered.js"), RENDERED).expect("a file");
    assert_eq!(node(&project, &["rendered.js"]), ",function,3\n");
    std::fs::write(project.file("typed.ts"), TYPED).expect("a file");
    for (module, resolution) in [("node16", "node16"), ("esnext", "bundler")] {
        let mut arguments =
            vec![locked!("node_modules/typescript/bin/tsc"), "--noEmit", "--strict"];
        arguments.extend(["--target", "es2022", "--lib", "es2022,dom", "--module", module]);
        arguments.extend(["--moduleResolution", resolution, "typed.ts"]);
        node(&project, &arguments);
    }
}
