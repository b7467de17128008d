//! The page `/ops` in a real browser.

mod hostile;
mod layout;
mod limits;
mod operator;
mod outages;
mod publishing;
mod shows;
mod tokens;
mod warnings;

pub(crate) use self::operator::{Operator, RECORD};
