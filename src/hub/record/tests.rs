//! What is written is read as it was meant, and bad input is skipped, whatever it is.

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;
use crate::hub::Keys;
use crate::wire::Payload;

fn org(name: &str) -> OrgName {
    name.parse().expect("a name")
}

fn topic(of: &str, name: &str) -> Topic {
    Topic { org: org(of), name: name.parse().expect("a name") }
}

fn limits() -> HubConfig {
    HubConfig { keys_max: 3, key_bytes_max: 8, topic_event_bytes_max: 200, ..HubConfig::default() }
}

/// Every line of a record, `None` for one that is unusable.
fn parse(record: &[u8]) -> Vec<Option<Line<'_>>> {
    let limits = limits();
    lines(record).map(|range| Line::parse(&record[range], &limits)).collect()
}

fn parse_one(line: &str) -> Option<Line<'_>> {
    Line::parse(line.as_bytes(), &limits())
}

fn org_text(name: &str) -> OrgText<'_> {
    OrgText(name.into())
}

fn message(name: &str, payload: Payload<'_>, bulk: bool) -> TopicLine<'static> {
    TopicLine::Message(Message::new(name, payload, bulk, usize::MAX).expect("a message"))
}

#[test]
fn every_line_that_is_written_is_read_as_it_was_meant() {
    let (acme, run) = (org("acme"), topic("acme", "run-7"));
    let keys = Keys::new(["posts", "é\"\n"], &limits()).expect("valid");
    let json: &RawValue = serde_json::from_str("{\"n\":\r\n[1]}").expect("JSON");
    let mut written = Lines::new();
    written.keys(&acme, &keys).message(&run, "output", Payload::Json(json), false);
    written.message(&run, "output", Payload::Text("a\nb"), true).close(&run, "done\n");
    written.exclusive(&run, 0xc0_ffee).reread(&acme).end(&acme);
    written.body(&acme, b" {\n\"keys\":\r\n[\"posts\"] }\n");
    written.topic_body(&run, b"{\"event\":\"x\",\n\"data\":{\"n\":\r\n[1]}}");
    written.raw(b" {\"org\":\"acme\",\"keys\":[\"a\"]}\r", None);
    let hash = StreamHash::of_topic("acme", "run-7");
    assert_eq!(written.topics(), [hash; 3]);
    assert_eq!(written.len(), written.clone().into_bytes().len());
    let record = written.into_bytes();
    let on_run = |line| Some(Line::Topic(run.clone(), line));
    let keys = |keys: &[&'static str]| {
        Some(Line::Keys(org_text("acme"), keys.iter().map(|key| (*key).into()).collect()))
    };
    assert_eq!(
        parse(&record),
        [
            keys(&["posts", "é\"\n"]),
            on_run(message("output", Payload::Json(json), false)),
            on_run(message("output", Payload::Text("a\nb"), true)),
            on_run(TopicLine::Close("done\n".into())),
            on_run(TopicLine::Exclusive(0xc0_ffee)),
            Some(Line::Reread(org_text("acme"))),
            Some(Line::End(org_text("acme"))),
            keys(&["posts"]),
            on_run(message("x", Payload::Json(json), false)),
            keys(&["a"]),
        ]
    );
}

#[test]
fn a_line_belongs_to_the_stream_that_it_is_for() {
    let keys = parse_one(r#"{"org":"acme","keys":["a"]}"#).expect("usable");
    assert_eq!(keys.stream(), StreamHash::of_members("acme"));
    let close = parse_one(r#"{"org":"acme","topic":"t","close":""}"#).expect("usable");
    assert_eq!(close.stream(), StreamHash::of_topic("acme", "t"));
}

#[test]
fn members_of_a_newer_version_are_ignored() {
    for line in [
        r#"{"org":"acme","keys":["a"],"since":{"x":[null,{}]},"since":2}"#,
        r#"{"v":2,"keys":["a"],"org":"acme"}"#,
        r#"  {"\u006frg":"\u0061cme","keys":["\u0061"]}  "#,
    ] {
        let keys = std::iter::once("a".into()).collect();
        assert_eq!(parse_one(line), Some(Line::Keys(org_text("acme"), keys)), "{line}");
    }
}

#[test]
fn what_is_beyond_a_limit_of_this_server_is_too_much() {
    for keys in [
        r#"["a","b","c","d"]"#,
        r#"["a","a","a","a"]"#,
        r#"["123456789"]"#,
        r#"["a","12345678\n"]"#,
        r#"["123456789","b","c","d","e"]"#,
    ] {
        let line = format!(r#"{{"org":"acme","keys":{keys}}}"#);
        assert_eq!(parse_one(&line), Some(Line::TooMuch(org_text("acme"))), "{line}");
    }
    for bulk in [false, true] {
        let text = "x".repeat(200);
        let line =
            format!(r#"{{"org":"a","topic":"t","event":"e","text":"{text}","bulk":{bulk}}}"#);
        let expected = Line::Topic(topic("a", "t"), TopicLine::TooLong { bulk });
        assert_eq!(parse_one(&line), Some(expected));
    }
}

#[test]
fn an_unusable_line_is_skipped_and_the_rest_counts() {
    let reason = "x".repeat(257);
    for line in [
        "garbage",
        "\u{feff}{\"org\":\"a\",\"end\":true}",
        "\0",
        "{",
        "{}",
        "[]",
        "null",
        "1",
        r#"["a",["b"]]"#,
        r#""org""#,
        r#"{"org":"a"}"#,
        r#"{"keys":["a"]}"#,
        r#"{"org":"a","keys":["a"]} {}"#,
        r#"{"org":"a","keys":["a"]"#,
        r#"{"org":"a","keys":["a"],}"#,
        // Names and keys that no server takes.
        r#"{"org":"","keys":["a"]}"#,
        r#"{"org":".a","keys":["a"]}"#,
        r#"{"org":"a/b","keys":["a"]}"#,
        r#"{"org":"é","keys":["a"]}"#,
        &format!(r#"{{"org":"{}","keys":["a"]}}"#, "a".repeat(65)),
        r#"{"org":"a","keys":[]}"#,
        r#"{"org":"a","keys":[""]}"#,
        r#"{"org":"a","keys":["","b","c","d"]}"#,
        r#"{"org":"a","keys":["b","c","d",""]}"#,
        // Values of another kind.
        r#"{"org":null,"keys":["a"]}"#,
        r#"{"org":1,"keys":["a"]}"#,
        r#"{"org":"a","keys":null}"#,
        r#"{"org":"a","keys":"a"}"#,
        r#"{"org":"a","keys":{"a":1}}"#,
        r#"{"org":"a","keys":["a",1]}"#,
        r#"{"org":"a","keys":["\ud800"]}"#,
        r#"{"org":"a","keys":["a",["b"]]}"#,
        r#"{"org":"a","reread":false}"#,
        r#"{"org":"a","reread":1}"#,
        r#"{"org":"a","end":"true"}"#,
        // Members that occur twice, or belong to several lines.
        r#"{"org":"a","org":"a","keys":["a"]}"#,
        r#"{"org":"a","keys":["a"],"keys":["a"]}"#,
        r#"{"org":"a","keys":["a"],"\u006beys":["a"]}"#,
        r#"{"org":"a","keys":["a"],"reread":true}"#,
        r#"{"org":"a","keys":["a"],"end":true}"#,
        r#"{"org":"a","end":true,"reread":true}"#,
        r#"{"org":"a","keys":["a"],"topic":"t"}"#,
        r#"{"org":"a","keys":["a"],"event":"e"}"#,
        r#"{"org":"a","keys":["a"],"bulk":true}"#,
        r#"{"org":"a","keys":["a"],"close":"c"}"#,
        r#"{"org":"a","topic":"t","end":true}"#,
        r#"{"org":"a","topic":"t","close":"c","exclusive":"0000000000000001"}"#,
        r#"{"org":"a","topic":"t","close":"c","event":"e","text":"x"}"#,
        // Events of topics, and commands to them.
        r#"{"org":"a","topic":"t"}"#,
        r#"{"org":"a","topic":"","event":"e","text":"x"}"#,
        r#"{"org":"a","topic":"a/b","event":"e","text":"x"}"#,
        r#"{"org":"a","topic":"t","event":"e"}"#,
        r#"{"org":"a","topic":"t","text":"x"}"#,
        r#"{"org":"a","event":"e","text":"x"}"#,
        r#"{"org":"a","topic":"t","event":"e","text":"x","data":1}"#,
        r#"{"org":"a","topic":"t","event":"e","text":1}"#,
        r#"{"org":"a","topic":"t","event":"e","data":}"#,
        r#"{"org":"a","topic":"t","event":"ping","text":"x"}"#,
        r#"{"org":"a","topic":"t","event":"1","text":"x"}"#,
        r#"{"org":"a","topic":"t","event":"e","text":"x","bulk":null}"#,
        &format!(r#"{{"org":"a","topic":"t","close":"{reason}"}}"#),
        r#"{"org":"a","topic":"t","close":true}"#,
        r#"{"org":"a","close":"done"}"#,
        r#"{"org":"a","topic":"t","exclusive":"1"}"#,
        r#"{"org":"a","topic":"t","exclusive":"000000000000000A"}"#,
        r#"{"org":"a","topic":"t","exclusive":"+00000000000000a"}"#,
        r#"{"org":"a","topic":"t","exclusive":1}"#,
    ] {
        assert_eq!(parse_one(line), None, "{line}");
        let record = format!("\n{line}\r\n \t\n{{\"org\":\"b\",\"end\":true}}");
        assert_eq!(parse(record.as_bytes()), [None, Some(Line::End(org_text("b")))], "{line}");
    }
    assert_eq!(
        parse(b"{\"org\":\"\xff\",\"end\":true}\n{\"org\":\"a\",\"keys\":[\"\xff\"]}"),
        [None, None]
    );
}

/// What is kept of a line is bounded by the limits, not by what the line has.
#[test]
fn a_huge_line_is_read_within_the_limits() {
    const LEN: usize = if cfg!(debug_assertions) { 1 << 20 } else { 10 << 20 };
    let many = format!(r#"{{"org":"a","keys":["b"{}]}}"#, r#","b""#.repeat(LEN / 4));
    assert_eq!(parse_one(&many), Some(Line::TooMuch(org_text("a"))));
    let limits = limits();
    let mut json = serde_json::Deserializer::from_str(&many);
    let members = MembersSeed(&limits).deserialize(&mut json).expect("JSON");
    let list = members.keys.expect("keys");
    assert_eq!((list.keys.len(), list.count), (3, LEN / 4 + 1));
    let long = format!(r#"{{"org":"a","keys":["{}"]}}"#, "x".repeat(10 << 20));
    assert_eq!(parse_one(&long), Some(Line::TooMuch(org_text("a"))));
    let deep = format!(r#"{{"org":"a","keys":["b"],"x":{}"#, "[".repeat(LEN));
    assert_eq!(parse_one(&deep), None);
    let deep = format!(
        r#"{{"org":"a","topic":"t","event":"e","data":{0}1{1}}}"#,
        "[".repeat(LEN),
        "]".repeat(LEN)
    );
    let too_long = Line::Topic(topic("a", "t"), TopicLine::TooLong { bulk: false });
    assert_eq!(parse_one(&deep), Some(too_long));
    let text = "\n".repeat(LEN);
    assert_eq!(parse(text.as_bytes()), []);
    let text = "x\n".repeat(LEN / 2);
    assert!(parse(text.as_bytes()).iter().all(Option::is_none));
}

fn any_keys() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec("\\PC{1,4}|[\u{0}-\u{7f}]{1,8}", 1..4)
        .prop_map(|keys| keys.into_iter().filter(|key| key.len() <= 8).collect::<Vec<_>>())
        .prop_filter("keys", |keys| !keys.is_empty())
}

proptest! {
    #[test]
    fn keys_survive_a_record(name in "[a-z0-9][A-Za-z0-9._-]{0,63}", texts in any_keys()) {
        let limits = limits();
        let keys = Keys::new(&texts, &limits).expect("within the limits");
        let mut written = Lines::new();
        written.keys(&org(&name), &keys);
        let record = written.into_bytes();
        let read = parse(&record);
        let Some(Line::Keys(of, read)) = &read[0] else { panic!("{read:?}") };
        prop_assert_eq!(of.as_str(), name);
        prop_assert_eq!(&Keys::new(read.iter().map(|key| &**key), &limits), &Ok(keys));
    }

    #[test]
    fn events_survive_a_record(
        name in "[a-z0-9][A-Za-z0-9._-]{0,127}",
        event in "[A-Za-z][A-Za-z0-9._:-]{0,9}",
        text in "(\\PC|[\u{0}-\u{1f}]){0,12}",
        bulk: bool,
    ) {
        prop_assume!(!Message::RESERVED.contains(&&*event));
        let run = topic("acme", &name);
        let pretty = serde_json::to_string_pretty(&serde_json::json!({ &text: [&text, 1.5] }));
        let json = RawValue::from_string(pretty.expect("JSON")).expect("JSON");
        for payload in [Payload::Text(&text), Payload::Json(&json)] {
            let mut written = Lines::new();
            written.message(&run, &event, payload, bulk);
            let record = written.into_bytes();
            let limits = HubConfig::default();
            let read = Line::parse(&record, &limits);
            prop_assert_eq!(read, Some(Line::Topic(run.clone(), message(&event, payload, bulk))));
        }
    }

    /// Nothing panics, and of every record the lines are where they are said to be.
    #[test]
    fn any_bytes_are_a_record(record: Vec<u8>, text in "([{}\\[\\]\",:]|org|keys|topic|a|1|true|\n){0,40}") {
        for record in [&record[..], text.as_bytes()] {
            parse(record);
            let found: Vec<_> = lines(record).map(|range| record[range].trim_ascii()).collect();
            let naive: Vec<_> = record.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()).collect();
            prop_assert_eq!(found, naive);
        }
    }
}
