//! What is remembered between conversations, all of it bounded.

use crate::config::Source;
use crate::time::Now;

/// Tokens, the health of origins, pull budgets, and how each registry last wanted to be authenticated to.
#[derive(Debug, Default)]
pub struct UpstreamState {}

impl UpstreamState {
    pub fn new() -> Self {
        UpstreamState::default()
    }

    /// Whether few of the pulls that the registry grants are left: do nothing now that is not asked by a client.
    pub fn budget_low(&self, _source: &Source, _now: Now) -> bool {
        false
    }
}
