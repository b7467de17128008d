//! What `src/guide/outbox.md` shows, as it stands there but for the address of the database.

use std::process::{Command, Output, Stdio};

use super::{keys_until, next_keys};
use crate::support::markdown::blocks;
use crate::support::postgres::{Postgres, Sql};
use crate::support::programs::{POSTGRES, requires};
use crate::support::{Server, Stream, Transport, eventually};

const GUIDE: &str = include_str!("../../../src/guide/outbox.md");
const README: &str = include_str!("../../../README.md");
const ADDRESS: &str = "127.0.0.1:5432";

/// The database of the guide, which one of its users owns, and no superuser.
struct Guide {
    postgres: Postgres,
    owner: Sql,
}

// ===== impl Guide =====

impl Guide {
    /// With the tables of the application.
    fn new() -> Self {
        let postgres = Postgres::bare();
        let sql = postgres.sql();
        // Each on its own: a database is made outside of transactions.
        sql.run("CREATE ROLE owner LOGIN CREATEROLE");
        sql.run("CREATE DATABASE app OWNER owner");
        let owner = Sql::connect(&url(&postgres, "owner")).expect("a login");
        owner.run(
            "CREATE TABLE posts (id bigint PRIMARY KEY, org text NOT NULL, title text); \
             INSERT INTO posts VALUES (7, 'acme', 'Old')",
        );
        Self { postgres, owner }
    }

    /// The same, with the table and the rights of the guide.
    fn with_outbox() -> Self {
        let guide = Self::new();
        guide.shell("outbox-sql | psql");
        guide.run("CREATE ROLE app");
        guide.owner.run("GRANT SELECT, INSERT, UPDATE, DELETE ON posts TO app");
        guide
    }

    /// A session of this user.
    fn session(&self, user: &str) -> Sql {
        Sql::connect(&url(&self.postgres, user)).expect("a login")
    }

    /// Runs the block of SQL with this in it, as the owner.
    fn run(&self, part: &str) {
        self.owner.run(block("sql", part));
    }

    /// Runs the block of commands with this in it.
    fn shell(&self, part: &str) {
        let script = format!("set -e\n{}", block("sh", part));
        let output = self.command(&script).output().expect("sh(1)");
        assert!(output.status.success(), "{}", text(&output));
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Server::command_by(&["sh", "-c", script]);
        let folder = std::path::Path::new(env!("CARGO_BIN_EXE_nudged")).parent().expect("a folder");
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:/usr/lib/postgresql/15/bin:{path}", folder.display()));
        command.env("DATABASE_URL", url(&self.postgres, "owner")).stdin(Stdio::null());
        command
    }

    /// The server, as the guide starts it, and a stream, which gets what is in the table.
    fn server(&self) -> (Server, Stream) {
        // It drains before it accepts a stream.
        self.owner.run("BEGIN; SELECT FROM nudged_outbox FOR UPDATE");
        let line = block("sh", "NUDGED_OUTBOX=").trim_end();
        let line = line.replace(ADDRESS, &self.postgres.address().to_string());
        let (variable, program) = line.split_once(' ').expect("a program");
        assert_eq!(program, "nudged");
        let (name, url) = variable.split_once('=').expect("a value");
        let mut command = Server::command();
        command.env(name, url.trim_matches('\''));
        let server = Server::start_as(command, Transport::Http1, &["--coalesce", "0"]);
        let mut stream = server.stream("acme");
        stream.connected();
        self.owner.run("COMMIT");
        (server, stream)
    }
}

fn url(postgres: &Postgres, user: &str) -> String {
    format!("postgres://{user}@{}/app", postgres.address())
}

/// The only block of this language that has this in it.
fn block(language: &str, part: &str) -> &'static str {
    let blocks = blocks(GUIDE, language).into_iter().filter(|block| block.contains(part));
    let [block] = blocks.collect::<Vec<_>>()[..] else { panic!("one block with {part:?}") };
    block
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// The users of the guide have the rights of the guide and no others, and the statements are those of the guide.
#[test]
fn what_is_set_up_suffices_for_what_is_written() {
    requires!(POSTGRES);
    let guide = Guide::with_outbox();
    let (_server, mut stream) = guide.server();
    let app = guide.session("app");
    app.run(block("sql", "UPDATE posts"));
    assert_eq!(next_keys(&mut stream), ["posts", "post:7"]);
    app.run(block("sql", "VARIADIC ARRAY["));
    assert_eq!(next_keys(&mut stream), ["posts", "feed:9"]);
    for (user, statement) in [
        ("app", "SELECT * FROM nudged_outbox"),
        ("app", "DELETE FROM nudged_outbox"),
        ("nudged", "SELECT nudge('acme', 'a')"),
        ("nudged", "SELECT * FROM posts"),
    ] {
        let why = guide.session(user).try_run(statement).expect_err(statement);
        assert_eq!(why.code().map(|code| code.code()), Some("42501"), "{statement}: {why:?}");
    }
    // What the database itself knows.
    guide.run("min(written)");
    guide.run("n_dead_tup");
}

#[test]
fn its_triggers_publish_each_statement_once() {
    requires!(POSTGRES);
    let guide = Guide::with_outbox();
    guide.run("posts_changed()");
    let app = guide.session("app");
    let statement = |sql: &str, rows: i64| {
        app.run(sql);
        assert_eq!(guide.owner.waiting(), rows, "{sql}");
    };
    statement("INSERT INTO posts SELECT n, 'acme' FROM generate_series(100, 199) AS n", 1);
    statement("INSERT INTO posts VALUES (1, 'acme'), (2, 'other'), (3, 'acme')", 3);
    statement("UPDATE posts SET title = 'a' WHERE org = 'acme'", 4);
    statement("DELETE FROM posts WHERE id = 2", 5);
    statement("DELETE FROM posts WHERE id = 2", 5);
    statement("BEGIN; DELETE FROM posts; ROLLBACK", 5);
    let (_server, mut stream) = guide.server();
    for _ in 0..3 {
        assert_eq!(next_keys(&mut stream), ["posts"]);
    }
}

#[test]
fn its_events_reach_a_topic() {
    requires!(POSTGRES);
    let guide = Guide::with_outbox();
    guide.session("app").run(block("sql", "nudge_topic("));
    let (server, _) = guide.server();
    eventually("they are gone", || guide.owner.waiting() == 0);
    let mut stream = server.stream_with("/api/acme/topics/run-7/events", "");
    stream.connected();
    let events = [stream.next(), stream.next()];
    assert!(events[0].contains("event: state\ndata: {\"state\":"), "{events:?}");
    assert!(events[1].contains("event: output\ndata: a line\n"), "{events:?}");
}

/// Libraries send a statement with its parameters apart from it, whose types they leave to the database.
#[test]
fn the_lines_of_libraries_are_statements_that_publish() {
    requires!(POSTGRES);
    let guide = Guide::with_outbox();
    let (_server, mut stream) = guide.server();
    let app = guide.session("app");
    let mut languages = Vec::new();
    for language in ["python", "ruby", "ts"] {
        for block in blocks(GUIDE, language) {
            let (prepared, parameters) = prepared(statement(block));
            let values: Vec<_> = (1..parameters).map(|n| format!("'k{n}'")).collect();
            let values = match prepared.contains("::text[]") {
                true => "ARRAY['k1', 'k2']".into(),
                false => values.join(", "),
            };
            app.run(&format!("PREPARE line AS {prepared}"));
            app.run(&format!("EXECUTE line('acme', {values})"));
            app.run("DEALLOCATE line");
            let keys = next_keys(&mut stream);
            assert!(!keys.is_empty() && keys.iter().all(|key| key.starts_with('k')), "{keys:?}");
            languages.push(language);
        }
    }
    assert_eq!(languages, ["python", "python", "ruby", "ts", "ts"]);
}

/// The statement in a piece of code: what is quoted and begins with SELECT.
fn statement(code: &str) -> &str {
    let start = code.find("SELECT nudge(").expect("a statement");
    match code.as_bytes()[start - 1] {
        // Other templates may be in it.
        b'`' => &code[start..start + code[start..].find(")`").expect("its end") + 1],
        quote => code[start..].split(char::from(quote)).next().expect("a piece"),
    }
}

/// It with the parameters of PostgreSQL, and how many there are.
fn prepared(statement: &str) -> (String, usize) {
    let (mut text, mut count) = (String::new(), 0);
    let mut rest = statement;
    while let Some(next) = rest.chars().next() {
        let taken = match next {
            '?' => 1,
            '%' => 2,
            '$' => template(rest),
            ':' if !rest.starts_with("::") && !text.ends_with(':') => {
                1 + rest[1..].find(|c: char| !c.is_alphanumeric()).expect("a parenthesis")
            }
            _ => {
                text.push(next);
                rest = &rest[next.len_utf8()..];
                continue;
            }
        };
        count += 1;
        text += &format!("${count}");
        rest = &rest[taken..];
    }
    (text, count)
}

/// The length of a `${…}`, in which there may be others.
fn template(text: &str) -> usize {
    let mut depth = 0;
    for (index, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 1 => return index + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    panic!("no end: {text}");
}

#[test]
fn a_schema_of_its_own_works_as_shown() {
    requires!(POSTGRES);
    let guide = Guide::new();
    guide.owner.run("CREATE ROLE app LOGIN; CREATE ROLE nudged LOGIN");
    guide.run("CREATE SCHEMA events");
    guide.shell("PGOPTIONS=");
    guide.owner.run("SET search_path = events");
    guide.run("min(written)");
    guide.owner.run(
        "GRANT INSERT ON nudged_outbox TO app; GRANT SELECT, UPDATE, DELETE ON nudged_outbox TO nudged",
    );
    let (_server, mut stream) = guide.server();
    guide.session("app").run("SELECT events.nudge('acme', 'posts')");
    assert_eq!(next_keys(&mut stream), ["posts"]);
}

#[test]
fn the_trigger_that_notifies_is_made_and_removed() {
    requires!(POSTGRES);
    let guide = Guide::with_outbox();
    let triggers = || {
        guide
            .owner
            .number("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'nudged_outbox'::regclass")
    };
    let app = guide.session("app");
    guide.shell("--notify");
    assert_eq!(triggers(), 1);
    app.run("SELECT nudge('acme', 'notified')");
    guide.run("DROP TRIGGER");
    assert_eq!(triggers(), 0);
    app.run("SELECT nudge('acme', 'end')");
    let (_server, mut stream) = guide.server();
    assert_eq!(keys_until(&mut stream, "end").len(), 2);
}

#[test]
fn the_commands_of_the_readme_publish() {
    requires!(POSTGRES);
    let guide = Guide::new();
    let commands = blocks(README, "sh").into_iter().find(|block| block.contains("outbox-sql"));
    let commands: Vec<_> = commands.expect("the commands").lines().collect();
    let [install, make, start] = commands[..] else { panic!("{commands:?}") };
    assert_eq!(install, "cargo install --path . --features postgres");
    // A schema without the right to make anything in it: what fails is not a success.
    let unable = guide.command(make).env("PGOPTIONS", "-c search_path=pg_catalog").output();
    assert!(!unable.expect("sh(1)").status.success());
    let output = guide.command(make).output().expect("sh(1)");
    assert!(output.status.success(), "{}", text(&output));
    let command = guide.command(&format!("exec {start} \"$@\""));
    let server = Server::start_as(command, Transport::Http1, &[]);
    let mut stream = server.stream("acme");
    stream.connected();
    let statement = blocks(README, "sql").into_iter().find(|block| block.contains("nudge("));
    guide.owner.run(statement.expect("the statement"));
    assert_eq!(next_keys(&mut stream), ["posts"]);
}

/// For migrations, whose tools have a transaction of their own.
#[test]
fn the_sql_may_be_a_part_of_another_transaction() {
    requires!(POSTGRES);
    let guide = Guide::new();
    let printed = crate::support::postgres::outbox_sql(&["--notify"]);
    let lines = printed.lines().filter(|line| !["BEGIN;", "COMMIT;"].contains(line));
    let sql = lines.collect::<Vec<_>>().join("\n");
    guide.owner.run(&format!("BEGIN;\n{sql}\nROLLBACK"));
    assert!(guide.owner.try_run("SELECT nudge('acme', 'a')").is_err());
    guide.owner.run(&format!("BEGIN;\n{sql}\nCOMMIT"));
    guide.owner.run("SELECT nudge('acme', 'a')");
}
