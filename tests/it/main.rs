//! Stories about the real binary, told from outside: what goes in on a socket and what comes out.
//!
//! With `IT_REDIS_URL` in the environment every broker that is one of its own otherwise becomes the only node of a
//! cluster on that Redis. Then answers of different channels come in any order, a node is ready a moment later, and what
//! is kept over a restart is kept in Redis: stories about that fail, all others must not. `IT_SEED` repeats the faults of
//! the story that draws them.

mod admin;
mod admin_cli;
mod admin_openapi;
mod api_auth;
mod api_batch;
mod api_events;
mod api_reads;
mod app_cli;
mod architecture;
mod auth;
mod cache;
mod channels;
mod client_events;
mod cluster;
mod config_cli;
mod connection;
mod counts;
mod doctor;
mod drain;
mod drips;
mod garbage;
mod health;
mod http_requests;
mod http_robustness;
mod limits;
mod logs;
mod manual;
mod metrics;
mod migration;
mod models;
mod names;
mod order;
mod presence;
mod protocol;
mod proxies;
mod races;
mod reload;
mod shutdown;
mod slow_readers;
mod stores;
mod support;
mod tls;
mod users;
mod webhooks;
mod websocket;
