//! Random requests, to a hub and to its twin behind another process.

use proptest::prelude::*;
use proptest::sample::select;
use tokio::runtime::Builder;

use super::*;
use crate::hub::tests::turns::{take_events, turn};
use crate::hub::{CommandPasses, Start, Subscription, View};
use crate::metrics::read;

#[derive(Debug)]
enum Step {
    Request(Request),
    Open(OrgName, View),
    OpenTopic(Topic),
    /// The first of the streams ends.
    Leave,
    Wait(u64),
}

/// A hub with its streams.
struct Side {
    hub: Hub,
    streams: Vec<Subscription>,
    passes: CommandPasses,
    /// Those of its ids, in the order of their appearance: both sides draw others.
    epochs: Vec<String>,
}

// ===== impl Side =====

impl Side {
    fn new(config: HubConfig) -> Self {
        let hub = Hub::new(config);
        Self { hub, streams: Vec::new(), passes: CommandPasses::default(), epochs: Vec::new() }
    }

    fn open(&mut self, org: &OrgName, view: View, now: Time) -> String {
        let (stream, greeting) = self.hub.subscribe(org, view, None, now).expect("open");
        self.streams.push(stream);
        format!("{greeting:?}")
    }

    fn open_topic(&mut self, topic: &Topic, now: Time) -> String {
        let opened = self.hub.subscribe_topic(topic, Start::All, false, now);
        let (stream, greeting) = opened.expect("open");
        self.streams.push(stream);
        format!("{greeting:?}")
    }

    fn leave(&mut self) {
        if !self.streams.is_empty() {
            self.streams.remove(0);
        }
    }

    /// What its streams have received and its counters count, after a turn of its driver.
    fn observe(&mut self, now: Time) -> String {
        turn(&self.hub, &mut self.passes, now);
        let events: Vec<_> =
            self.streams.iter_mut().map(|stream| take_events(stream, |_| {})).collect();
        let counters = self.hub.shard_counters();
        let counted = [&counters.published, &counters.coalesced, &counters.rereads].map(read);
        let (orgs, topics) = (self.hub.channels(), self.hub.topics());
        let bytes = self.hub.topics_bytes();
        self.without_epochs(&format!("{events:?} {counted:?} {orgs} {topics} {bytes}"))
    }

    /// A text whose epochs are replaced by their numbers.
    fn without_epochs(&mut self, text: &str) -> String {
        let is_digit = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        let (bytes, mut result, mut rest) = (text.as_bytes(), String::new(), 0);
        for dash in text.match_indices('-').map(|(dash, _)| dash) {
            let Some(start) = dash.checked_sub(16) else { continue };
            if start < rest || !bytes[start..dash].iter().all(is_digit) {
                continue;
            }
            let epoch = &text[start..dash];
            let known = self.epochs.iter().position(|known| known == epoch);
            let number = known.unwrap_or_else(|| {
                self.epochs.push(epoch.into());
                self.epochs.len() - 1
            });
            result.push_str(&text[rest..start]);
            result.push_str(&format!("<{number}>"));
            rest = dash;
        }
        result + &text[rest..]
    }
}

fn an_org() -> impl Strategy<Value = OrgName> {
    select(vec!["acme", "globex"]).prop_map(org)
}

fn a_topic() -> impl Strategy<Value = Topic> {
    select(vec![("acme", "run"), ("acme", "walk"), ("globex", "run")])
        .prop_map(|(of, name)| topic(of, name))
}

/// JSON, on one line or on many.
fn written(value: &serde_json::Value, is_pretty: bool) -> String {
    if is_pretty {
        return serde_json::to_string_pretty(value).expect("JSON").replace('\n', "\r\n");
    }
    value.to_string()
}

fn keys() -> impl Strategy<Value = serde_json::Value> {
    let key = prop_oneof![
        8 => select(vec!["posts", "feed:9", "public:a", "é\"\n", "\u{1F600}", "longer-key"]).prop_map(String::from),
        // Some of these are too long, or empty: the request is refused.
        1 => "[a-z:]{0,20}",
    ];
    prop::collection::vec(key, 0..5).prop_map(|keys| serde_json::json!({ "keys": keys }))
}

fn event() -> impl Strategy<Value = serde_json::Value> {
    let payload = prop_oneof![
        "[ -~\r\né]{0,30}".prop_map(|text| ("text", serde_json::Value::from(text))),
        select(vec!["null", "0.10", r#"{"n":[1,{"é":"\n"}]}"#, "[]"])
            .prop_map(|json| ("data", serde_json::from_str(json).expect("JSON"))),
    ];
    let name = select(vec!["output", "a.b:c", "connected", "é"]);
    (name, payload, prop::option::of(any::<bool>())).prop_map(|(name, (kind, value), bulk)| {
        let mut event = serde_json::json!({ "event": name, kind: value });
        if let Some(bulk) = bulk {
            event["bulk"] = bulk.into();
        }
        event
    })
}

fn a_line() -> impl Strategy<Value = String> {
    let of_org = (an_org(), keys()).prop_map(|(org, mut line)| {
        line["org"] = org.as_str().into();
        line
    });
    let of_topic = (a_topic(), event()).prop_map(|(topic, mut line)| {
        line["org"] = topic.org.as_str().into();
        line["topic"] = topic.name.as_str().into();
        line
    });
    let space = select(vec!["", " ", "\r", "\n"]);
    (prop_oneof![of_org, of_topic], space).prop_map(|(line, space)| format!("{line}{space}\n"))
}

fn a_request() -> impl Strategy<Value = Request> {
    let written =
        |value| (value, any::<bool>()).prop_map(|(value, pretty)| written(&value, pretty));
    let lines = prop::collection::vec(a_line(), 0..5);
    let reason = select(vec!["", "{}", r#"{"reason":"done\n"}"#, r#"{ "reason" : "é" }"#, "[]"]);
    prop_oneof![
        6 => (an_org(), written(keys().boxed())).prop_map(|(org, body)| Request::Org(org, body)),
        6 => (a_topic(), written(event().boxed())).prop_map(|(topic, body)| Request::Topic(topic, body)),
        4 => lines.prop_map(|lines| Request::Lines(lines.concat())),
        1 => (a_topic(), reason).prop_map(|(topic, body)| Request::Close(topic, body.into())),
        1 => an_org().prop_map(|org| Request::Command(Command::Reread(org))),
        1 => an_org().prop_map(|org| Request::Command(Command::EndMembers(org))),
        1 => Just(()).prop_map(|()| Request::Command(Command::RereadAll)),
    ]
}

fn a_step() -> impl Strategy<Value = Step> {
    let view = select(vec![View::Member, View::Public]);
    prop_oneof![
        8 => a_request().prop_map(Step::Request),
        2 => (an_org(), view).prop_map(|(org, view)| Step::Open(org, view)),
        2 => a_topic().prop_map(Step::OpenTopic),
        1 => Just(()).prop_map(|()| Step::Leave),
        2 => (0..2_000u64).prop_map(Step::Wait),
    ]
}

fn config(coalesce_ms: u64) -> HubConfig {
    HubConfig {
        coalesce: Duration::from_millis(coalesce_ms),
        history_events: 6,
        keys_max: 3,
        key_bytes_max: 16,
        topic_events: 4,
        topic_event_bytes_max: 120,
        ..HubConfig::default()
    }
}

/// Status, fields and body.
async fn shown(response: Response<Full<Bytes>>) -> String {
    let (status, headers) = (response.status(), response.headers().clone());
    let mut fields: Vec<_> = headers.iter().collect();
    fields.sort_by_key(|(name, _)| name.as_str());
    format!("{status} {fields:?} {}", text(response).await)
}

async fn compare(coalesce_ms: u64, steps: Vec<Step>) {
    let (mut direct, mut behind) = (Side::new(config(coalesce_ms)), Side::new(config(coalesce_ms)));
    // That of the old process, which has nothing to do with it any more.
    let old = Hub::new(config(coalesce_ms));
    let now = Arc::new(AtomicU64::new(10_000));
    let successor = OnceLock::from(loopback(&behind.hub, &now));
    for step in steps {
        let time = Time(now.load(Ordering::Relaxed));
        match &step {
            Step::Request(request) => {
                let response = respond(Publisher::unlimited(&direct.hub), request, time).await;
                let expected = direct.without_epochs(&shown(response).await);
                let response = respond(publisher(&old, &successor), request, time).await;
                assert_eq!(behind.without_epochs(&shown(response).await), expected, "{step:?}");
            }
            Step::Open(org, view) => {
                assert_eq!(behind.open(org, *view, time), direct.open(org, *view, time));
            }
            Step::OpenTopic(topic) => {
                assert_eq!(behind.open_topic(topic, time), direct.open_topic(topic, time));
            }
            Step::Leave => [&mut direct, &mut behind].into_iter().for_each(Side::leave),
            Step::Wait(ms) => _ = now.fetch_add(*ms, Ordering::Relaxed),
        }
        if let Step::Request(Request::Command(Command::RereadAll)) = &step {
            // Which org's streams come first is drawn by each hub.
            let window = u64::try_from(WINDOW.as_millis()).expect("short");
            now.fetch_add(window + 1, Ordering::Relaxed);
        }
        let time = Time(now.load(Ordering::Relaxed));
        assert_eq!(behind.observe(time), direct.observe(time), "{step:?}");
    }
    assert_eq!((old.channels(), old.topics(), read(&old.shard_counters().published)), (0, 0, 0));
}

proptest! {
    #[test]
    fn a_successor_does_what_the_hub_would_have_done(
        coalesce_ms in select(vec![0, 50]),
        steps in prop::collection::vec(a_step(), 1..60),
    ) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(compare(coalesce_ms, steps));
    }
}
