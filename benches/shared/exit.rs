//! How a benchmark ends.

use std::error::Error;
use std::process::ExitCode;

/// That of a benchmark that has found what it may find, or not, or that has failed, which it says.
pub(crate) fn exit_code(name: &str, outcome: Result<bool, Box<dyn Error>>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{name}: {why}");
            ExitCode::FAILURE
        }
    }
}
