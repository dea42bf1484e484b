//! Many nodes as one, over Redis: the only thing they share.
//!
//! ```text
//!  node ─ Call ─▶ engine ─ lanes, one for each partition ─ Invocation ─▶ servers ─▶ Redis: scripts
//!   ▲               │  ▲                                                   │
//!   └── mirrors ◀───┘  └────────────── BusEvent ◀──────────────────────────┘ ◀─ pub/sub
//! ```
//!
//! Every change of a topic is one step of one script, which gives it its place in the order, changes what is shared,
//! decides the edges (first and last of a channel, a member, a user), writes down for webhooks what happened, and
//! publishes. A partition has one step under way at a time, with a number: a step whose answer was lost is sent again and
//! done once.
//!
//! Not here: what a node knows of its topics (`mirror`), who asks (`node`), requests of webhooks (`webhook`).

mod engine;
pub mod envelope;
mod lane;
pub mod outbox;
pub mod script;
pub mod servers;

pub use engine::{Cluster, StartError, start};
