//! What of a stream outlives the process, see [`hub::state`](crate::hub::state).

use std::net::IpAddr;

use minicbor::{Decode, Encode};

use crate::hub::state::SeatState;

/// An open stream.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct StreamState {
    #[n(0)]
    pub(crate) seat: SeatState,
    /// If its end is to be logged.
    #[n(1)]
    pub(crate) record: Option<RecordState>,
}

/// What the access log will have of it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct RecordState {
    /// For how long it has been open, in milliseconds.
    #[n(0)]
    pub(crate) open_ms: u64,
    #[n(1)]
    pub(crate) client: Option<IpAddr>,
    /// Events that it has delivered.
    #[n(2)]
    pub(crate) events: u64,
}
