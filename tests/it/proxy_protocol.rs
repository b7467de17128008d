//! The PROXY protocol, version 2. The proxies are at 127.0.0.2, and everything else at 127.0.0.1 is an ordinary client.

pub(crate) mod balancer;
mod floods;
mod limits;
mod programs;
mod refused;
mod wire;
