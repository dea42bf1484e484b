//! What goes wrong, while a load goes on that checks everything.

mod any;
mod bus;
mod cut_off;
mod nodes;
mod redis;
mod servers;
mod unready;
