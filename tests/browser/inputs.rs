//! Wrong options, tickets that fail, servers that are none, and browsers that lack something: the tests of `inputs/`,
//! with a clock and a network of their own, in Node.

use std::process::{Command, Output};

use serde_json::Value;

use crate::support::programs::{NODE, Program, locked, requires};

const TSC: &str = locked!("node_modules/typescript/bin/tsc");
pub(crate) static TYPESCRIPT: Program = Program::new(
    &[locked!("bin/node"), TSC, "--version"],
    "typescript is missing: .ci/run programs",
);

const SOURCE: &str = include_str!("../../src/browser/nudged.js");

fn node(arguments: &[&str]) -> Output {
    Command::new("node").args(arguments).output().expect("node starts")
}

fn run(name: &str) {
    requires!(NODE);
    let output = node(&["tests/browser/inputs/inputs.mjs", name]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
}

macro_rules! tests {
    ($($name:ident)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(#[test] fn $name() { run(stringify!($name)); })*
    };
}

tests! {
    a_callback_that_throws_is_reported_and_changes_nothing
    a_connected_after_a_position_is_not_the_first_and_is_spread
    a_hidden_page_collects_up_to_a_thousand_keys_and_then_everything
    a_hidden_page_that_wants_so_is_called
    a_page_is_called_with_keys_after_its_first_connected_only
    a_page_may_close_within_any_call
    a_page_may_open_another_one_within_a_call
    a_page_that_begins_at_a_position_need_not_read_at_first
    a_position_that_fits_into_no_header_is_not_sent
    a_url_that_is_none_is_an_error_at_once
    an_option_of_a_wrong_type_is_ignored_with_a_warning
    keys_and_user_are_part_of_the_request
    keys_are_named_once_in_one_call
    nothing_is_called_before_the_call_returns
    of_an_unknown_option_the_console_has_one_warning
    options_without_a_value_are_none
    what_is_pending_at_the_end_is_not_passed_on
    without_a_spread_all_pages_read_at_once
    a_page_that_closes_what_has_ended_is_called_once
    a_page_that_comes_back_does_not_use_the_ticket_that_was_on_its_way
    a_pause_for_a_ticket_grows_to_a_minute
    a_refused_ticket_is_replaced_at_once_and_a_fresh_one_after_a_pause
    a_stream_that_ends_with_its_ticket_goes_on_with_the_next_one
    a_ticket_function_that_never_answers_is_tried_again_after_10_s
    a_ticket_function_that_rejects_is_tried_again
    a_ticket_function_that_returns_nothing_is_tried_again
    a_ticket_function_that_throws_is_tried_again
    a_ticket_of_another_user_begins_without_the_id_of_the_first
    a_ticket_that_comes_after_the_end_opens_no_stream
    a_ticket_that_comes_too_late_opens_no_stream
    a_ticket_that_is_a_page_for_logging_in_is_tried_again
    a_ticket_that_is_empty_is_tried_again
    a_ticket_that_is_no_text_is_tried_again
    a_ticket_that_is_null_is_the_end
    a_ticket_with_a_newline_is_tried_again
    each_ticket_that_expires_is_replaced_at_once
    tickets_of_another_user_each_time_are_not_asked_for_without_a_pause
    what_a_hidden_page_collected_for_one_user_is_not_for_another
    white_space_around_a_ticket_does_no_harm
    without_a_ticket_function_401_is_the_end
    a_200_of_a_similar_type_is_tried_again
    a_200_that_is_a_page_is_tried_again
    a_200_without_a_type_is_tried_again
    a_204_is_tried_again
    a_403_404_or_410_is_the_end
    a_429_is_tried_again
    a_503_is_tried_again
    a_clock_that_jumps_changes_nothing
    a_full_server_is_asked_after_its_retry_and_then_twice_as_late
    a_network_that_fails_is_tried_again
    a_network_that_returns_ends_the_pause
    a_pause_grows_to_a_minute_and_never_ends
    a_period_beyond_reason_is_a_day
    a_retry_after_that_is_none_is_ignored
    a_retry_of_nothing_is_bounded
    a_server_that_never_sends_headers_is_given_up
    a_stream_that_ends_at_once_is_tried_again
    a_stream_with_comments_is_opened_again_as_it_was
    a_stream_without_comments_is_opened_again_with_events_for_pings
    a_topic_that_is_closed_is_the_end
    an_event_beyond_the_bound_ends_the_attempt
    an_event_resets_the_pause
    an_id_moves_without_data_too
    an_old_nudged_that_names_no_period_may_be_silent_for_45_s
    comments_that_arrived_once_are_not_expected_for_ever
    json_that_is_broken_makes_everything_stale
    retry_after_as_a_date_is_a_time_since_the_date_of_the_response
    retry_after_in_seconds_is_a_minimum
    retry_after_is_10_minutes_at_most
    silence_is_one_and_a_half_periods_unless_the_page_says_so
    the_502_of_a_proxy_in_html_is_tried_again
    a_hidden_tab_never_takes_a_stream_over
    a_lock_is_released_while_a_ticket_is_awaited
    a_lock_that_comes_after_the_end_is_returned
    a_page_that_is_left_lets_go_and_continues_when_it_is_back
    a_tab_whose_lock_is_stolen_ends_its_request_and_waits_in_line
    a_topic_has_a_stream_of_its_own
    an_event_that_no_channel_takes_is_not_lost
    opaque_tickets_with_a_number_in_the_middle_are_of_different_users
    locks_that_are_refused_leave_each_tab_its_stream
    the_tab_with_the_stream_keeps_it_when_it_is_looked_at
    the_name_of_the_lock_has_the_url_the_keys_the_user_and_what_a_ticket_says_of_it
    without_a_document_nothing_happens
    without_broadcast_channel_each_tab_has_a_stream
    without_web_locks_each_tab_has_a_stream
}

#[test]
fn all_of_them_are_run() {
    requires!(NODE);
    let output = node(&["tests/browser/inputs/inputs.mjs"]);
    let there = String::from_utf8(output.stdout).expect("names");
    let (mut there, mut run) = (there.lines().collect::<Vec<_>>(), NAMES.to_vec());
    there.sort_unstable();
    run.sort_unstable();
    assert_eq!(run, there);
}

#[test]
fn the_client_is_4096_bytes_at_most() {
    requires!(NODE);
    let script = "const { gzipSync } = require('zlib'), { readFileSync } = require('fs');
        console.log(gzipSync(readFileSync('src/browser/nudged.js'), { level: 9 }).length)";
    let length = String::from_utf8(node(&["-e", script]).stdout).expect("a number");
    assert!(length.trim().parse::<usize>().expect("a number") <= 4096, "gzip makes {length}");
}

#[test]
fn the_version_is_the_same_in_the_package_the_client_and_the_server() {
    let package: Value =
        serde_json::from_str(include_str!("../../src/browser/package.json")).expect("JSON");
    assert_eq!(package["version"], env!("CARGO_PKG_VERSION"));
    let head = format!("// nudged-client {}: ", env!("CARGO_PKG_VERSION"));
    assert!(SOURCE.starts_with(&head), "{:?}", SOURCE.lines().next());
}

#[test]
fn the_types_have_the_options_that_there_are() {
    let types = include_str!("../../src/browser/nudged.d.ts");
    let options = types.split_once("interface NudgedOptions {").expect("the options").1;
    let options = options.split_once("\n}").expect("their end").0;
    let of_types = options.lines().filter_map(|line| line.strip_prefix("  ")?.split_once('?'));
    let is_name = |name: &&str| name.chars().all(|c| c.is_ascii_lowercase());
    let mut of_types: Vec<_> = of_types.map(|(name, _)| name).filter(is_name).collect();

    let table = SOURCE.split_once("const OPTIONS = {").expect("the options").1;
    let table = table.split_once('}').expect("its end").0;
    let mut of_client: Vec<_> =
        table.split(',').filter_map(|option| Some(option.trim().split_once(':')?.0)).collect();
    of_types.sort_unstable();
    of_client.sort_unstable();
    assert_eq!(of_types, of_client);
}

#[test]
fn a_page_and_a_backend_in_typescript_compile_and_wrong_options_do_not() {
    requires!(NODE, TYPESCRIPT);
    for (module, resolution) in [("nodenext", "nodenext"), ("esnext", "bundler")] {
        let mut arguments = vec![TSC, "--noEmit", "--strict", "--target", "es2022"];
        arguments.extend(["--skipDefaultLibCheck", "--lib", "es2022,dom", "--module", module]);
        arguments.extend(["--moduleResolution", resolution]);
        arguments.extend(["tests/browser/types/page.ts", "tests/browser/types/backend.ts"]);
        let output = node(&arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn the_client_imports_nothing() {
    assert!(!SOURCE.contains("import"), "it is one file");
}
