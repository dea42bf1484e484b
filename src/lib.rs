//! Fanfare: a self-hosted Pusher Channels server.
//!
//! The modules in reading order; each uses only those above it.
//!
//! ```text
//!  ws frames ─▶ connection ─ Request ─┐                    ┌─ Publish ◀─ api ◀─ POST /events
//!                                     ▼                    ▼
//!                        node ──▶ hub: command → answer and effects
//!                                     │
//!         worker: frames out ◀────────┘
//! ```
//!
//! `protocol`, `app`, `hub`, `mirror` and `connection` are pure: no sockets, clocks, randomness or locks. Time and
//! ids come in as values, what must happen goes out as values.

pub mod protocol;

pub mod app;

pub mod config;

pub mod store;

pub mod metrics;

pub mod rate;

pub mod tls;

pub mod hub;

pub mod mirror;

pub mod connection;

pub mod inspect;

pub mod node;

pub mod control;

pub mod directory;

pub mod worker;

pub mod cluster;

pub mod webhook;

pub mod health;

pub mod guard;

pub mod ws;

pub mod api;

pub mod admin;

pub mod server;

pub mod cli;
