//! What clients, the API and webhooks see of several nodes: one.

mod api;
mod channels;
mod presence;
mod users;
mod webhooks;
