//! Servers, browsers, backends and a broker that fails, all in one thread and on virtual time, drawn from a seed.
//!
//! The backends write versions of keys to a database, and publish. The browsers keep the contract: `connected`, read
//! everything; `invalidate`, read these keys; come back to any server with the last id. When everything has come to rest,
//! every browser holds every version whose publish was acknowledged. Where nothing was lost, no browser re-reads everything.
//! At any time a browser has what the log has up to its id.
//! Without the comparison of tags in the hub's tail, of identities or of positions, without the beat, or without a guard
//! of the keepalive (for what a window holds, for streams that have still to re-read), one of these tests fails, in enough
//! worlds; so it does, in some of a thousand worlds, if a barrier for a loss forgets what its server knew before, or if one
//! that is ignored makes up for it. The follower's own tests cover these too, and its comparison of tags, which these do not.
//!
//! All of it is run with the semantics of NATS JetStream and with those of Redis Streams (`redis`), whose promise after a
//! loss is the same but for what only dead servers had read from an old primary.
//! With those of Redis these tests also fail, in some of a hundred worlds, if a barrier for what an old primary had is
//! ignored where the new one was adopted before, if a server that cannot compare what it had read there with a log that
//! was trimmed since appends none, or if one appends a barrier for an identity that its broker no longer has. The reader's
//! look at a log that is quiet and the beat each make up for the other: without both, these tests fail at once.
//!
//! A seed repeats what is drawn here; the order in which the hub visits orgs is not drawn, and may be another one.
//!
//! ```sh
//! cargo test --lib simulation                                       # some seconds
//! NUDGED_SIMULATION_STEPS=5000000 cargo test --release --lib simulation
//! NUDGED_SIMULATION_SEED=1234 cargo test --lib simulation           # a seed that failed
//! ```

mod backends;
mod browser;
mod faults;
mod node;
mod redis;
mod visits;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use self::world::{Profile, World};
use super::scripted::Semantics;

/// Steps of one world.
const STEPS: u64 = 1_500;

/// Steps in all, unless the environment says otherwise.
const STEPS_SHORT: u64 = 12_000;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Runs worlds from one seed after the other.
fn run(name: &str, semantics: Semantics, profile: Profile) {
    let seed = variable("NUDGED_SIMULATION_SEED");
    let steps = variable("NUDGED_SIMULATION_STEPS").unwrap_or(STEPS_SHORT);
    let first = seed.unwrap_or_else(|| fastrand::u64(..1 << 40));
    let worlds = if seed.is_some() { 1 } else { steps.div_ceil(STEPS) };
    for seed in first..first + worlds {
        let run = catch_unwind(AssertUnwindSafe(|| World::run(seed, semantics, profile, STEPS)));
        if let Err(why) = run {
            eprintln!("{name}: repeat it with NUDGED_SIMULATION_SEED={seed}");
            resume_unwind(why);
        }
    }
    eprintln!("{name}: {worlds} worlds of {STEPS} steps, from seed {first}");
}

/// The same tests with each broker.
macro_rules! tests {
    ($($broker:ident = $semantics:expr,)*) => {$(
        mod $broker {
            use super::*;

            #[test]
            fn no_browser_keeps_a_stale_copy_whatever_fails() {
                let name = concat!(stringify!($broker), "::no_browser_keeps_a_stale_copy_whatever_fails");
                run(name, $semantics, Profile::Hostile);
            }

            #[test]
            fn no_browser_re_reads_everything_where_nothing_is_lost() {
                let name = concat!(stringify!($broker), "::no_browser_re_reads_everything_where_nothing_is_lost");
                run(name, $semantics, Profile::Benign);
            }

            #[test]
            fn an_id_is_of_what_its_browser_has_whatever_has_it_re_read() {
                let name = concat!(stringify!($broker), "::an_id_is_of_what_its_browser_has_whatever_has_it_re_read");
                run(name, $semantics, Profile::Commanded);
            }
        }
    )*};
}

tests! {
    jet_stream = Semantics::JetStream,
    redis_streams = Semantics::RedisStreams,
}
