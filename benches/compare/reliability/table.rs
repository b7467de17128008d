//! The record: a table of the answers in few words, and below it each question with the whole answers.

use std::fmt::Write as _;

use super::Answers;
use crate::peer::Peer;
use crate::shared::record::heading;

/// Questions of one table.
const COLUMNS: usize = 5;

/// `present` has the servers that were asked, with their versions, and `absent` those that were not, with the reason.
pub(crate) fn markdown(
    mode: &str,
    present: &[(Peer, String)],
    all: &[Answers],
    absent: &[(Peer, String)],
) -> String {
    let mut text = heading(mode);
    text.push_str(
        "Each answer is what was observed, by trying, with servers and clients on one machine. Each question has \
         servers of its own. Servers with a setting for it use one worker.\n\n",
    );
    overview(&mut text, present, all);
    for Answers { question, answers } in all {
        let _ = write!(text, "## {}\n\n{}\n\n", question.title, question.how);
        for ((peer, _), answer) in present.iter().zip(answers) {
            let answer = match answer {
                Ok(answer) => answer.clone(),
                Err(why) => format!("**not answered**: {why}"),
            };
            let _ = writeln!(text, "* {}: {answer}", peer.name());
        }
        text.push('\n');
    }
    text.push_str("## Servers\n\n");
    for (peer, version) in present {
        let _ = writeln!(text, "* {}: {version}", peer.name());
    }
    for (peer, why) in absent {
        let _ = writeln!(text, "* {}: not asked: {why}", peer.name());
    }
    text
}

/// Rows are servers, columns are questions: tables of few columns, which fit the width of a page.
fn overview(text: &mut String, present: &[(Peer, String)], all: &[Answers]) {
    for some in all.chunks(COLUMNS) {
        text.push_str("| |");
        some.iter().for_each(|answers| text.extend([" ", answers.question.short, " |"]));
        let _ = writeln!(text, "\n|---|{}", "---|".repeat(some.len()));
        for (at, (peer, _)) in present.iter().enumerate() {
            let _ = write!(text, "| {} |", peer.name());
            for Answers { answers, .. } in some {
                let answer = answers[at].as_deref().map_or("not answered", in_few_words);
                let _ = write!(text, " {} |", answer.replace('|', "\\|"));
            }
            text.push('\n');
        }
        text.push('\n');
    }
}

/// What precedes the first `: `.
fn in_few_words(answer: &str) -> &str {
    answer.split_once(": ").map_or(answer, |(few, _)| few)
}
