//! What the modes of `compare` share.

pub(crate) mod bars;
pub(crate) mod chart;
pub(crate) mod churn;
pub(crate) mod comparison;
pub(crate) mod fairness;
pub(crate) mod measure;
pub(crate) mod metric;
pub(crate) mod peer;
pub(crate) mod process;
pub(crate) mod publishing;
pub(crate) mod record;
pub(crate) mod servers;
