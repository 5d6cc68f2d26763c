//! Who may have what of the Worker.

#[path = "../access/budget.rs"]
mod budget;
#[path = "../access/closed.rs"]
mod closed;
#[path = "../access/cost.rs"]
mod cost;
#[path = "../access/crossing.rs"]
mod crossing;
#[path = "../access/guarded.rs"]
mod guarded;
#[path = "../access/isolation.rs"]
mod isolation;
#[path = "../access/known.rs"]
mod known;
#[path = "../access/manifests.rs"]
mod manifests;
#[path = "../access/negative.rs"]
mod negative;
#[path = "../access/negotiation.rs"]
mod negotiation;
#[path = "../access/public.rs"]
mod public;
#[path = "../access/realm.rs"]
mod realm;
#[path = "../access/sizes.rs"]
mod sizes;
