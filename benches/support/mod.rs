//! What the modes of `compare` share.

pub(crate) mod chart;
pub(crate) mod churn;
pub(crate) mod fairness;
pub(crate) mod measure;
pub(crate) mod metric;
pub(crate) mod page;
pub(crate) mod peer;
pub(crate) mod publishing;
pub(crate) mod record;
pub(crate) mod servers;
