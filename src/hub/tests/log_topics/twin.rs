//! Random records, and clients that come and go between servers that are behind each other, cut off, and forget: no
//! event that is not bulk is lost in silence, whatever happens.

use proptest::prelude::*;

use super::{Client, Cluster, HubConfig, Kind, Node, Payload, Start, config, topic};
use crate::hub::record::Lines;
use crate::ids::EventId;
use crate::wire::Greeting;

#[derive(Clone, Debug)]
enum Step {
    /// A record with these parts.
    Publish(Vec<Part>),
    /// A server applies so many records.
    Apply { node: usize, records: usize },
    /// A client takes what there is for it.
    Take(usize),
    /// It takes a keepalive, if it has nothing else to take.
    Keepalive(usize),
    /// Its connection is lost, and it comes back.
    Hop { client: usize, node: usize },
    /// The log forgets its last records, and everything before is unknown.
    Cut { forget: usize },
    /// Time passes on a server.
    Wait { node: usize, ms: u64 },
}

#[derive(Clone, Debug)]
enum Part {
    Event {
        topic: usize,
        bulk: bool,
        long: bool,
    },
    Close(usize),
    /// By a stream that is nowhere.
    Exclusive(usize),
    Other,
}

/// A client, and what it has to have.
struct Reader {
    topic: usize,
    client: Option<Client>,
    id: EventId,
    /// The number of the last event that it has, or that had been published when it last read everything.
    has: u64,
    /// So many steps of it were `resumed`.
    resumed: usize,
}

struct World {
    cluster: Cluster,
    /// Events that are not bulk, of each topic.
    published: [u64; TOPICS],
    readers: Vec<Reader>,
}

const TOPICS: usize = 2;
const NODES: usize = 3;
const READERS: usize = 6;

fn name(topic: usize) -> String {
    format!("run-{topic}")
}

fn step() -> impl Strategy<Value = Step> {
    let part = prop_oneof![
        6 => (0..TOPICS, any::<bool>(), prop::bool::weighted(0.05))
            .prop_map(|(topic, bulk, long)| Part::Event { topic, bulk, long }),
        1 => (0..TOPICS).prop_map(Part::Close),
        1 => (0..TOPICS).prop_map(Part::Exclusive),
        1 => Just(Part::Other),
    ];
    prop_oneof![
        6 => prop::collection::vec(part, 1..4).prop_map(Step::Publish),
        6 => (0..NODES, 1..5_usize).prop_map(|(node, records)| Step::Apply { node, records }),
        4 => (0..READERS).prop_map(Step::Take),
        2 => (0..READERS).prop_map(Step::Keepalive),
        4 => (0..READERS, 0..NODES).prop_map(|(client, node)| Step::Hop { client, node }),
        1 => (0..4_usize).prop_map(|forget| Step::Cut { forget }),
        1 => (0..NODES, prop_oneof![Just(100), Just(1_000), Just(200_000)])
            .prop_map(|(node, ms)| Step::Wait { node, ms }),
    ]
}

// ===== impl World =====

impl World {
    /// One server keeps little of a topic, one little of the log, and one so many bytes of a topic, which may be fewer
    /// than an event has.
    fn new(topic_bytes: usize) -> Self {
        let few = HubConfig { topic_events: 3, ..config() };
        let nodes = vec![
            Node::new(few, 1 << 20),
            Node::new(config(), 3_000),
            Node::new(HubConfig { topic_events: 5, topic_bytes, ..config() }, 1 << 20),
        ];
        let cluster = Cluster { nodes, log: Vec::new(), appended: 0 };
        let reader = |n| {
            let client = cluster.open(n % NODES, &name(n % TOPICS), Start::All);
            let id = client.id;
            Reader { topic: n % TOPICS, client: Some(client), id, has: 0, resumed: 0 }
        };
        let readers = (0..READERS).map(reader).collect();
        Self { readers, cluster, published: [0; TOPICS] }
    }

    fn run(&mut self, step: &Step) {
        let Self { cluster, published, readers } = self;
        match step {
            Step::Publish(parts) => {
                let lines = write(parts, published);
                cluster.push(Kind::Lines(lines.into_bytes()));
            }
            Step::Apply { node, records } => {
                for _ in 0..*records {
                    cluster.apply(*node);
                }
            }
            Step::Take(reader) => readers[*reader].take(published),
            Step::Keepalive(reader) => readers[*reader].keepalive(),
            Step::Hop { client, node } => {
                let reader = &mut readers[*client];
                reader.open(&cluster.nodes[*node], published);
            }
            Step::Cut { forget } => {
                cluster.log.truncate(cluster.log.len().saturating_sub(*forget));
                cluster.push(Kind::Barrier);
            }
            Step::Wait { node, ms } => cluster.nodes[*node].wait(*ms),
        }
    }

    /// Everything is delivered, and one more event of each topic shows that nothing is missing.
    fn end(&mut self) {
        let Self { cluster, published, readers } = self;
        for reader in &mut *readers {
            if reader.client.is_none() {
                reader.open(&cluster.nodes[0], published);
            }
        }
        for topic in 0..TOPICS {
            let last = [Part::Event { topic, bulk: false, long: false }];
            let lines = write(&last, published);
            cluster.push(Kind::Lines(lines.into_bytes()));
        }
        cluster.follow();
        for (topic, published) in published.iter().enumerate() {
            for node in &cluster.nodes {
                let newest = format!("e{published}");
                assert!(node.open(&name(topic), Start::All).names().ends_with(&newest), "{newest}");
            }
        }
        for reader in readers {
            while reader.has < published[reader.topic] {
                reader.take(published);
                if reader.client.is_none() {
                    reader.open(&cluster.nodes[1], published);
                }
            }
            assert_eq!(reader.has, published[reader.topic]);
        }
    }
}

/// The events that are not bulk are numbered.
fn write(parts: &[Part], published: &mut [u64; TOPICS]) -> Lines {
    let mut lines = Lines::new();
    for part in parts {
        match part {
            Part::Event { topic: of, bulk, long } => {
                let event = if *bulk {
                    "bulk".to_owned()
                } else {
                    published[*of] += 1;
                    format!("e{}", published[*of])
                };
                let text = "x".repeat(if *long { 1_000 } else { 3 });
                lines.message(&topic(&name(*of)), &event, Payload::Text(&text), *bulk);
            }
            Part::Close(of) => _ = lines.close(&topic(&name(*of)), "done"),
            Part::Exclusive(of) => _ = lines.exclusive(&topic(&name(*of)), 7),
            Part::Other => {
                lines.message(&topic("other"), "e", Payload::Text(""), true);
            }
        }
    }
    lines
}

// ===== impl Reader =====

impl Reader {
    fn open(&mut self, node: &Node, published: &[u64; TOPICS]) {
        self.client = None;
        let client = node.open(&name(self.topic), Start::After(self.id));
        match client.greeting {
            Greeting::Connected => self.has = published[self.topic],
            Greeting::Resumed => self.resumed += 1,
        }
        self.id = client.id;
        self.client = Some(client);
    }

    /// What comes after what it has comes without a gap, and nothing comes twice.
    fn take(&mut self, published: &[u64; TOPICS]) {
        let Some(client) = &mut self.client else { return };
        let (events, ended) = client.take_events();
        self.id = client.id;
        let mut before = 0;
        for event in events {
            if event.name == "connected" {
                (self.has, before) = (published[self.topic], 0);
            } else if let Some(number) = event.name.strip_prefix('e') {
                let number: u64 = number.parse().expect("a number");
                assert!(number > before, "e{number} after e{before}");
                before = number;
                if number > self.has {
                    assert_eq!(number, self.has + 1, "a gap");
                    self.has = number;
                }
            }
        }
        if ended {
            self.client = None;
        }
    }

    fn keepalive(&mut self) {
        let Some(client) = &mut self.client else { return };
        let frame = client.stream.keepalive_frame();
        if frame.payload().starts_with(b"id: ") {
            client.id = frame.id();
            self.id = client.id;
        }
    }
}

fn check(topic_bytes: usize, steps: &[Step]) -> usize {
    let mut world = World::new(topic_bytes);
    steps.iter().for_each(|step| world.run(step));
    world.end();
    world.readers.iter().map(|reader| reader.resumed).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn no_event_is_lost_in_silence(
        topic_bytes in prop_oneof![Just(10), Just(3_000)],
        steps in prop::collection::vec(step(), 1..120),
    ) {
        check(topic_bytes, &steps);
    }
}

/// Else the test above would show nothing.
#[test]
fn clients_of_random_steps_resume_now_and_then() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let steps = prop::collection::vec(step(), 100);
    let resumed: usize =
        (0..50).map(|_| check(3_000, &steps.new_tree(&mut runner).expect("steps").current())).sum();
    assert!(resumed > 100, "{resumed} of 50 runs");
}
