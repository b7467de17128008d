//! Heartbeats in paused time, around a body whose frames are scripted.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::sync::Weak;
use std::time::Duration;

use http::HeaderMap;

use super::*;

const PERIOD: Duration = Duration::from_secs(15);

/// What the inner body does next.
enum Step {
    Data(&'static [u8]),
    /// It is pending until this much time has passed.
    Silence(Duration),
    Trailers,
    Fail,
}

/// Does its steps, and then ends.
struct Script {
    steps: VecDeque<Step>,
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
    /// Alive for as long as the body.
    _guard: Arc<()>,
}

impl Body for Script {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(sleep) = &mut self.sleep {
            std::task::ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
        Poll::Ready(match self.steps.pop_front() {
            None => None,
            Some(Step::Data(bytes)) => Some(Ok(Frame::data(Bytes::from_static(bytes)))),
            Some(Step::Trailers) => Some(Ok(Frame::trailers(HeaderMap::new()))),
            Some(Step::Fail) => Some(Err("the upstream failed")),
            Some(Step::Silence(length)) => {
                #[expect(clippy::disallowed_methods, reason = "the script waits, not the server")]
                let sleep = tokio::time::sleep(length);
                self.sleep = Some(Box::pin(sleep));
                return self.poll_frame(cx);
            }
        })
    }
}

fn script(steps: impl IntoIterator<Item = Step>) -> (Script, Weak<()>) {
    let guard = Arc::new(());
    let alive = Arc::downgrade(&guard);
    (Script { steps: steps.into_iter().collect(), sleep: None, _guard: guard }, alive)
}

fn event_stream<B>(body: B) -> Response<B> {
    let response = Response::builder().header("content-type", "text/event-stream");
    response.body(body).expect("a response")
}

fn around(steps: impl IntoIterator<Item = Step>, pulse: &Pulse) -> Heartbeat<Script> {
    Heartbeat::around(event_stream(script(steps).0), pulse).into_body()
}

async fn frame<B: Body + Unpin>(body: &mut B) -> Option<Result<Frame<B::Data>, B::Error>> {
    poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

/// All data of a body, as text in which each byte is a character, and what else there was.
async fn read(mut body: Heartbeat<Script>) -> String {
    let mut text = String::new();
    while let Some(frame) = frame(&mut body).await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => text.extend(data.iter().map(|byte| char::from(*byte))),
            Ok(Err(_)) => text.push_str("<trailers>"),
            Err(why) => return text + "<" + why + ">",
        }
    }
    text
}

/// Bytes as [`read`] shows them.
fn latin(pieces: &[&[u8]]) -> String {
    pieces.concat().into_iter().map(char::from).collect()
}

fn silence(periods: u32) -> Step {
    Step::Silence(PERIOD * periods + PERIOD / 2)
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_pinged_once_a_period_between_its_events() {
    let pulse = Pulse::new(PERIOD);
    tokio::spawn(pulse.drive());
    let steps = [silence(2), Step::Data(b"data: a\n\n"), silence(1), Step::Data(b"data: b\n\n")];
    let text = read(around(steps, &pulse)).await;
    assert_eq!(text, ": ping\n\n: ping\n\ndata: a\n\n: ping\n\ndata: b\n\n");
    assert_eq!((pulse.pings(), pulse.open(), pulse.cancelled()), (3, 0, 0));
}

/// A byte comes a little before each ping would be due.
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_never_silent_for_a_period_is_not_pinged() {
    let pulse = Pulse::new(PERIOD);
    tokio::spawn(pulse.drive());
    let almost = PERIOD * 6 / 8;
    let events = (0..50).flat_map(|_| [Step::Silence(almost), Step::Data(b"data: a\n\n")]);
    assert_eq!(read(around(events, &pulse)).await, "data: a\n\n".repeat(50));
    assert_eq!(pulse.pings(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_ping_comes_up_to_an_eighth_of_a_period_early_and_never_late() {
    let pulse = Pulse::new(PERIOD);
    tokio::spawn(pulse.drive());
    for begin_ms in [0, 1, 800, 1_874, 1_876, 7_777] {
        #[expect(clippy::disallowed_methods, reason = "the test waits, not the server")]
        tokio::time::sleep(Duration::from_millis(begin_ms)).await;
        let mut body = around([silence(9)], &pulse);
        for _ in 0..8 {
            let began = tokio::time::Instant::now();
            frame(&mut body).await.expect("a ping").expect("no error");
            let after = began.elapsed();
            // The runtime's timers have a resolution of a millisecond.
            let latest = PERIOD + Duration::from_millis(2);
            assert!((PERIOD * 7 / 8..=latest).contains(&after), "{after:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_silent_inside_an_event_is_not_pinged() {
    let pulse = Pulse::new(PERIOD);
    tokio::spawn(pulse.drive());
    for (bytes, rest) in [
        (&b"d"[..], &b"ata: a\n\n"[..]),
        (b"data: a", b"\n\n"),
        (b"data: a\n", b"\n"),
        (b"data: a\r\n", b"\r\n"),
        (b"data: a\r\n\r", b"\n"),
        (b"data: a\r\r", b"\n"),
        (b"retry: 5\n: c\n", b"\n"),
        (b"data: a\n\n\n\n: ", b"\n"),
        (b"\xef", b"\xbb\xbf"),
        (b"\xef\xbb", b"\xbf"),
    ] {
        let read = read(around([Step::Data(bytes), silence(9), Step::Data(rest)], &pulse)).await;
        assert_eq!(read, latin(&[bytes, rest]));
    }
    assert_eq!(pulse.pings(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_pinged_behind_any_empty_line_and_behind_comments_after_it() {
    let pulse = Pulse::new(PERIOD);
    tokio::spawn(pulse.drive());
    let places: [&[u8]; 11] = [
        b"",
        b"data: a\n\n",
        b"data: a\r\n\r\n",
        b"data: a\n\r\n",
        b"data: a\r\n\n",
        b"data: a\r\r\n",
        b"data: a\n\n: c\n",
        b"data: a\n\n: c\n:\r\n",
        b": c\n",
        b"\n",
        b"\xef\xbb\xbf",
    ];
    for bytes in places {
        let rest = b"data: b\n\n";
        let read = read(around([Step::Data(bytes), silence(1), Step::Data(rest)], &pulse)).await;
        assert_eq!(read, latin(&[bytes, BLOCK, rest]));
    }
    assert_eq!(pulse.pings(), places.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn once_a_stream_has_given_an_id_its_pings_end_no_block() {
    let pulse = Pulse::new(PERIOD);
    tokio::spawn(pulse.drive());
    let given: [&[&[u8]]; 6] = [
        &[b"id: 7\ndata: a\n\n"],
        &[b"i", b"d:\n\n"],
        &[b"data: a\nid\r", b"\n\r\n"],
        &[b"id", b"\n\n"],
        &[b"\xef", b"\xbb\xbf", b"id: 7\n\n"],
        &[b":\n\r\rid:\r\n\n"],
    ];
    for pieces in given {
        let steps = pieces.iter().map(|piece| Step::Data(piece)).chain([silence(1)]);
        assert_eq!(read(around(steps, &pulse)).await, latin(&[&pieces.concat(), LINE]));
    }
    let not_given: [&[u8]; 5] =
        [b"ids: 7\n\n", b"iid:\n\n", b" id: 7\n\n", b": id: 7\n\n", b"i\nd:7\n\n"];
    for bytes in not_given {
        let read = read(around([Step::Data(bytes), silence(1)], &pulse)).await;
        assert_eq!(read, latin(&[bytes, BLOCK]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_byte_order_mark_behind_a_ping_is_left_out() {
    let pulse = Pulse::new(PERIOD);
    tokio::spawn(pulse.drive());
    let cases: [(&[&[u8]], &[u8]); 7] = [
        (&[b"\xef\xbb\xbfdata: a\n\n"], b"data: a\n\n"),
        (&[b"\xef\xbb", b"\xbfdata: a\n\n"], b"data: a\n\n"),
        (&[b"\xef", b"", b"\xbb", b"\xbf", b"data: a\n\n"], b"data: a\n\n"),
        (&[b"\xef\xbb\xbf", b"\xef\xbb\xbfdata: a\n\n"], b"\xef\xbb\xbfdata: a\n\n"),
        // Not one: its first bytes are text that was withheld.
        (&[b"\xef", b"\xbf\xbd: a\n\n"], b"\xef\xbf\xbd: a\n\n"),
        (&[b"\xef", b"\xbb", b"\xbe: a\n\n"], b"\xef\xbb\xbe: a\n\n"),
        (&[b"d\xef\xbb\xbf: a\n\n"], b"d\xef\xbb\xbf: a\n\n"),
    ];
    for (pieces, expected) in cases {
        let data = pieces.iter().flat_map(|piece| [Step::Data(piece), silence(1)]);
        let received = read(around([silence(1)].into_iter().chain(data), &pulse)).await;
        let ping = latin(&[BLOCK]);
        assert!(received.starts_with(&ping), "{received:?}");
        assert!(received.ends_with(&ping), "{received:?}");
        assert_eq!(received.replace(&ping, ""), latin(&[expected]));
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_trailers_and_errors_pass_through_and_nothing_follows_them() {
    let pulse = Pulse::new(PERIOD);
    tokio::spawn(pulse.drive());
    let event = || Step::Data(b"data: a\n\n");
    assert_eq!(read(around([event()], &pulse)).await, "data: a\n\n");
    let late = [event(), Step::Trailers, silence(3)];
    assert_eq!(read(around(late, &pulse)).await, "data: a\n\n<trailers>");
    let failed = [event(), Step::Fail, silence(3)];
    assert_eq!(read(around(failed, &pulse)).await, "data: a\n\n<the upstream failed>");
    assert_eq!((pulse.open(), pulse.pings(), pulse.cancelled()), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn dropping_a_heartbeat_drops_the_inner_body_at_once_and_counts_it() {
    let pulse = Pulse::new(PERIOD);
    tokio::spawn(pulse.drive());
    let (inner, alive) = script([silence(9)]);
    let mut body = Heartbeat::around(event_stream(inner), &pulse).into_body();
    frame(&mut body).await.expect("a ping").expect("no error");
    assert_eq!((pulse.open(), alive.strong_count()), (1, 1));
    drop(body);
    assert_eq!((pulse.open(), pulse.cancelled(), alive.strong_count()), (0, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_event_stream_of_unknown_length_passes_through() {
    let pulse = Pulse::new(PERIOD);
    tokio::spawn(pulse.drive());
    let wraps = |status: u16, fields: &[(&str, &str)]| {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        let response = response.body(script([silence(1)]).0).expect("a response");
        let before = response.headers().clone();
        let response = Heartbeat::around(response, &pulse);
        assert_eq!(response.headers(), &before);
        assert_eq!(response.body().size_hint().upper(), None);
        response.body().live.is_some()
    };
    let stream = ("content-type", "text/event-stream");
    assert!(wraps(200, &[stream]));
    assert!(wraps(200, &[("content-type", "Text/Event-Stream ; charset=UTF-8")]));
    assert!(wraps(200, &[("content-type", "text/event-stream;charset=utf-8"), ("x", "y")]));

    for (status, fields) in [
        (200, &[][..]),
        (200, &[("content-type", "text/plain")]),
        (200, &[("content-type", "text/event-streams")]),
        (200, &[("content-type", "application/json; a=text/event-stream")]),
        (200, &[stream, ("content-encoding", "gzip")]),
        (200, &[stream, ("content-length", "7")]),
        (206, &[stream]),
        (404, &[stream]),
    ] {
        assert!(!wraps(status, fields), "{status} {fields:?}");
    }
    assert_eq!((pulse.open(), pulse.pings(), pulse.cancelled()), (0, 0, 3));
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_last_handle_and_the_last_stream() {
    let pulse = Pulse::new(PERIOD);
    let task = tokio::spawn(pulse.drive());
    let body = around([silence(2)], &pulse);
    drop(pulse);
    assert_eq!(read(body).await, ": ping\n\n".repeat(2));
    task.await.expect("it ends");
}

/// Without one in between, nothing is sent; the streams are pinged by the second.
#[tokio::test(start_paused = true)]
async fn another_task_may_take_over() {
    let pulse = Pulse::new(PERIOD);
    let first = tokio::spawn(pulse.drive());
    let mut body = around([silence(99)], &pulse);
    for _ in 0..3 {
        frame(&mut body).await.expect("a ping").expect("no error");
    }
    first.abort();
    _ = first.await;
    tokio::spawn(pulse.drive());
    for _ in 0..3 {
        frame(&mut body).await.expect("a ping").expect("no error");
    }
    assert_eq!(pulse.pings(), 6);
}
