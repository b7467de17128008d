//! Larger events.

/// As keys are quoted within the bodies of publishes: in JSON within JSON, in JSON, and in a form.
const QUOTES: [&str; 3] = [r#"\""#, "\"", "%22"];
/// What is added: with these, the key, and what is around them, an event has about a KiB. A key of nudged may have 512
/// bytes.
const KEYS: usize = 2;
const KEY_BYTES: usize = 480;

/// The body of a publish with further keys beside the key `{n}`; `None` if it has no such key.
pub(crate) fn padded(body: &str) -> Option<String> {
    QUOTES.iter().find_map(|quote| {
        let key = format!("{quote}{{n}}{quote}");
        let more = format!(",{quote}{}{quote}", "x".repeat(KEY_BYTES)).repeat(KEYS);
        body.contains(&key).then(|| body.replace(&key, &format!("{key}{more}")))
    })
}
