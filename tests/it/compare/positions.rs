//! The clients of each server: their first request, what they remember of a response, and the request with which they
//! come back.

use nudged::bench::Publish;

use super::protocol::{Client, Notice, Position, Protocol, Request};
use super::recorded::{
    CENTRIFUGO, CENTRIFUGO_LOST, CENTRIFUGO_RECOVERED, DURABLE_STREAMS, DURABLE_STREAMS_RESUMED,
    MERCURE, MERCURE_LOST, MERCURE_RESUMED, NCHAN,
};
use super::response::Response;
use crate::support::Server;

/// A client of the organisation `acme`.
struct Visitor {
    protocol: Protocol,
    client: Client,
    position: Position,
}

// ===== the requests =====

#[test]
fn the_first_request_has_no_position() {
    for protocol in all() {
        let first = protocol.resume("acme", Client::EventSource, &Position::default());
        assert_eq!(first, Request { path: protocol.stream("acme"), last_event_id: None });
        assert_eq!(protocol.resume("acme", Client::Own, &Position::default()), first);
    }
    let paths = all().map(|protocol| protocol.stream("acme"));
    assert_eq!(
        paths,
        [
            "/api/acme/events",
            "/api/acme/events",
            "/.well-known/mercure?match=acme",
            // {"subs":{"acme":{}}}
            "/connection/uni_sse?cf_connect=%7B%22subs%22%3A%7B%22acme%22%3A%7B%7D%7D%7D",
            "/api/acme/events?offset=now&live=sse",
        ]
    );
}

#[test]
fn a_publish_has_a_place_for_its_number_and_the_credential_of_the_server() {
    let publishes = all().map(|protocol| protocol.publish("http://h", "acme"));
    for Publish { body, .. } in &publishes {
        assert_eq!(body.matches("{n}").count(), 1, "{body}");
    }
    let urls = publishes.each_ref().map(|publish| publish.url.as_str());
    let [nudged, mercure] = ["http://h/api/acme/events", "http://h/.well-known/mercure"];
    assert_eq!(urls, [nudged, "http://p/publish/", mercure, "http://h/api/publish", nudged]);
    let [nudged, pushpin, mercure, centrifugo, _] = publishes;
    assert!(nudged.headers.is_empty() && pushpin.headers.is_empty());
    let field = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    assert_eq!(mercure.headers, field("authorization", "Bearer t"));
    assert_eq!(mercure.content_type, "application/x-www-form-urlencoded");
    assert_eq!(centrifugo.headers, field("x-api-key", "k"));
}

#[test]
fn only_durable_streams_are_created_before_they_are_read() {
    let created = all().map(|protocol| protocol.creates("acme"));
    assert_eq!(created, [None, None, None, None, Some("/api/acme/events".to_owned())]);
}

#[test]
fn a_server_without_a_client_of_its_own_is_asked_the_same_by_both() {
    for protocol in all().into_iter().filter(|protocol| !protocol.has_own_client()) {
        let position =
            Position { last_event_id: "7".into(), offset: Some("1".into()), epoch: None };
        let [plain, own] = [Client::EventSource, Client::Own]
            .map(|client| protocol.resume("acme", client, &position));
        assert_eq!(plain, own);
        assert_eq!(plain.last_event_id.as_deref(), Some("7"));
    }
}

// ===== what each server states =====

#[test]
fn a_client_of_mercure_comes_back_with_the_id_and_the_head_states_from_where() {
    const ID: &str = "urn:uuid:01a22882-2200-7865-a3de-3f812465d591";
    for client in [Client::EventSource, Client::Own] {
        let mut visitor = Visitor::new(mercure(), client);
        assert_eq!(visitor.receive(MERCURE), None);
        let back = visitor.request();
        assert_eq!(back.path, "/.well-known/mercure?match=acme");
        assert_eq!(back.last_event_id.as_deref(), Some(ID));
        let states = |notice| Some(notice).filter(|_| client == Client::Own);
        assert_eq!(visitor.receive(MERCURE_LOST), states(Notice::Reread));
        assert_eq!(visitor.request().last_event_id.as_deref(), Some(ID));

        visitor.position.last_event_id = "urn:uuid:01a22883-554e-7c99-a676-7c65f1c72be8".into();
        assert_eq!(visitor.receive(MERCURE_RESUMED), states(Notice::Complete));
        let newest = "urn:uuid:01a22883-555a-7c99-ba8f-2121b90445fd";
        assert_eq!(visitor.request().last_event_id.as_deref(), Some(newest));
    }
    // A server that does not answer the question.
    let mut visitor = Visitor::new(mercure(), Client::Own);
    visitor.position.last_event_id = ID.into();
    assert_eq!(visitor.receive(MERCURE), Some(Notice::Reread));
}

#[test]
fn a_client_of_centrifugo_comes_back_with_offset_and_epoch_in_its_connect_request() {
    let mut visitor = Visitor::new(centrifugo(), Client::Own);
    // Before an event there is a position already: nothing but later events will be missed.
    let connected = CENTRIFUGO.split("56\r\n").next().unwrap();
    assert_eq!(visitor.receive(connected), None);
    assert_eq!(visitor.position, position("0"));

    assert_eq!(visitor.receive(CENTRIFUGO), None);
    assert_eq!(visitor.position, position("1"));
    let back = visitor.request();
    let connect = r#"{"subs":{"acme":{"recover":true,"offset":1,"epoch":"FPSpRceg"}}}"#;
    let decoded = percent_encoding::percent_decode_str(&back.path).decode_utf8().unwrap();
    assert_eq!(decoded, format!("/connection/uni_sse?cf_connect={connect}"));
    assert_eq!(back.last_event_id, None);

    assert_eq!(visitor.receive(CENTRIFUGO_RECOVERED), Some(Notice::Complete));
    assert_eq!(visitor.position, position("3"), "that of the last event that was recovered");
    assert_eq!(visitor.receive(CENTRIFUGO_LOST), Some(Notice::Reread));
    assert_eq!(visitor.position, position("3"));

    // It gives no ids.
    let mut plain = Visitor::new(centrifugo(), Client::EventSource);
    plain.receive(CENTRIFUGO);
    assert_eq!(plain.request(), Request { path: centrifugo().stream("acme"), last_event_id: None });

    fn position(offset: &str) -> Position {
        let [offset, epoch] = [offset, "FPSpRceg"].map(|text| Some(text.to_owned()));
        Position { last_event_id: String::new(), offset, epoch }
    }
}

#[test]
fn a_client_of_durable_streams_comes_back_with_the_offset_behind_the_last_event() {
    let mut visitor = Visitor::new(Protocol::DurableStreams, Client::Own);
    let begun = DURABLE_STREAMS.split("9a\r\n").next().unwrap();
    assert_eq!(visitor.receive(begun), None);
    let at = |offset| format!("/api/acme/events?offset={offset}&live=sse");
    assert_eq!(visitor.request().path, at("0000000000000000_0000000000000000"));
    assert_eq!(visitor.receive(DURABLE_STREAMS_RESUMED), Some(Notice::Complete));
    assert_eq!(visitor.request().path, at("0000000000000000_0000000000000015"));
    assert_eq!(visitor.receive("HTTP/1.1 410 Gone\r\n\r\n"), Some(Notice::Reread));
    assert_eq!(visitor.receive("HTTP/1.1 404 Not Found\r\n\r\n"), None);

    // It gives no ids, and the URL stays: what comes meanwhile is missed.
    let mut plain = Visitor::new(Protocol::DurableStreams, Client::EventSource);
    assert_eq!(plain.receive(DURABLE_STREAMS), None);
    assert_eq!(plain.request(), Request { path: at("now"), last_event_id: None });
}

#[test]
fn a_client_of_nchan_comes_back_with_the_id_and_nothing_is_stated() {
    let mut visitor = Visitor::new(Protocol::Nudged, Client::EventSource);
    assert_eq!(visitor.receive(NCHAN), None);
    assert_eq!(visitor.request().last_event_id.as_deref(), Some("1795976190:1"));
    assert_eq!(visitor.receive(NCHAN), None);
}

#[test]
fn a_client_of_nudged_comes_back_with_the_id_and_the_first_event_states_whether_all_follows() {
    let server = Server::start(&["--coalesce", "0"]);
    let mut visitor = Visitor::new(Protocol::Nudged, Client::EventSource);
    assert_eq!(visitor.visit(&server, "event: connected\n"), Some(Notice::Reread));
    let missed = server.publish("acme", &["a"]).expect("it is kept");
    assert_eq!(visitor.visit(&server, "\"a\""), Some(Notice::Complete));
    assert_eq!(visitor.position.last_event_id, missed);
    assert_eq!(visitor.visit(&server, "event: resumed\n"), Some(Notice::Complete));
    let restarted = Server::start(&["--coalesce", "0"]);
    assert_eq!(visitor.visit(&restarted, "event: connected\n"), Some(Notice::Reread));
}

fn all() -> [Protocol; 5] {
    let pushpin = Protocol::Pushpin { publish_url: "http://p/publish/".into() };
    [Protocol::Nudged, pushpin, mercure(), centrifugo(), Protocol::DurableStreams]
}

fn mercure() -> Protocol {
    Protocol::Mercure { token: "t".into() }
}

fn centrifugo() -> Protocol {
    Protocol::Centrifugo { key: "k".into() }
}

// ===== impl Visitor =====

impl Visitor {
    fn new(protocol: Protocol, client: Client) -> Self {
        Self { protocol, client, position: Position::default() }
    }

    fn request(&self) -> Request {
        self.protocol.resume("acme", self.client, &self.position)
    }

    /// Takes the response to its request; returns what it states.
    fn receive(&mut self, bytes: &str) -> Option<Notice> {
        let came_from = self.position.clone();
        let mut response = Response::resume(&came_from.last_event_id);
        let mut notices = Vec::new();
        let mut read = |event| notices.extend(self.protocol.read(&event, &mut self.position));
        response.push(bytes.as_bytes(), &mut read).expect("a good response");
        let head = response.head().expect("it is complete");
        if self.client == Client::Own {
            notices.extend(self.protocol.read_head(head, &came_from));
        }
        self.position.last_event_id = response.last_event_id().to_owned();
        assert!(notices.len() <= 1, "{notices:?}");
        notices.pop()
    }

    /// Opens a stream, and leaves it after the event with this text.
    fn visit(&mut self, server: &Server, text: &str) -> Option<Notice> {
        let Request { path, last_event_id } = self.request();
        let id = last_event_id.map_or(String::new(), |id| format!("last-event-id: {id}\r\n"));
        let mut client = server.connect();
        client.send(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{id}\r\n"));
        let begun = client.read_until(text.as_bytes());
        let rest = client.read_until(b"\n\n");
        self.receive(&String::from_utf8([begun, rest].concat()).expect("text"))
    }
}
