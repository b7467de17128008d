//! The systemd units, as far as they can be tried without systemd. (`.ci/run units` lets systemd verify them.)

use std::path::Path;

use crate::support::Server;
use crate::support::temp_dir::TempDir;
use crate::support::transport::Transport;

/// SCENARIO: nudged is installed with its units.
/// BUG: it had no secret, unless the administrator put one into a variable.
/// FIX: the unit loads the secret from a file (`LoadCredential=`), and without this file the service does not start.
#[test]
fn a_server_with_the_settings_of_its_unit_is_closed() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join(".systemd/nudged.service");
    let unit = std::fs::read_to_string(unit).expect("the unit");
    let values = |key: &str| {
        let key = format!("{key}=");
        let lines: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix(&key)).collect();
        assert!(!lines.is_empty(), "the unit has no {key}");
        lines
    };
    // What systemd does with them: copies of the files in a folder, which is %d, and a folder in %S.
    let folder = TempDir::new();
    for state in values("StateDirectory") {
        std::fs::create_dir(folder.path().join(state)).expect("a folder");
    }
    for credential in values("LoadCredential") {
        let (name, _source) = credential.split_once(':').expect("a name and a path");
        std::fs::write(folder.path().join(name), [b'k'; 44]).expect("a file");
    }
    let mut command = Server::command();
    for variable in values("Environment") {
        let (name, value) = variable.split_once('=').expect("a name and a value");
        let path = folder.path().display().to_string();
        command.env(name, value.replace("%d", &path).replace("%S", &path));
    }
    let server = Server::start_as(command, Transport::Http1, &[]);
    assert_eq!(server.get("/api/acme/events").status(), 401);
}
