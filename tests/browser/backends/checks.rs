//! What the tools of each language say of the files.

use std::process::Command;

use super::backend::{NODE_FILE, PYTHON_FILE, go, go_command};
use crate::support::programs::{GO, NODE, PYTHON, requires};

fn succeed(command: &mut Command) {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{command:?}");
}

#[test]
fn node_parses_the_file_as_a_module() {
    requires!(NODE);
    succeed(Command::new("node").args(["--check", NODE_FILE]));
}

#[test]
fn python_parses_the_file_as_one_for_python_3_9() {
    requires!(PYTHON);
    let parse = "import ast, sys; ast.parse(sys.stdin.read(), feature_version=(3, 9))";
    let file = std::fs::File::open(PYTHON_FILE).expect("the file");
    succeed(Command::new("python3").args(["-W", "error", "-c", parse]).stdin(file));
}

#[test]
fn go_vets_and_formats_the_file_as_it_is() {
    requires!(GO);
    go_command(go(), &["vet", "./..."]);
    let files = ["nudged/nudged.go", "main.go"];
    let output = Command::new("gofmt").arg("-l").args(files).current_dir(go()).output();
    let output = output.expect("gofmt runs");
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
}
