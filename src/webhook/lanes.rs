//! Whose turn it is on each channel.

use std::collections::{HashMap, VecDeque};

use crate::protocol::ChannelName;
use crate::webhook::delivery::Seq;

/// A queue for each channel of a receiver. Who is first in it holds the channel.
///
/// A delivery joins the queues of all its channels at once, at their ends, so two never wait for each other.
#[derive(Debug, Default)]
pub(super) struct Lanes(HashMap<ChannelName, VecDeque<Seq>>);

impl Lanes {
    /// Puts a delivery at the end of the queues of its channels. Returns in how many it is not the first.
    pub(super) fn join(&mut self, seq: Seq, channels: &[ChannelName]) -> usize {
        let mut waits = 0;
        for channel in channels {
            let lane = self.0.entry(channel.clone()).or_default();
            waits += usize::from(!lane.is_empty());
            lane.push_back(seq);
        }
        waits
    }

    /// Takes a delivery out of the queues of its channels. Returns who has become the first, once for each channel.
    pub(super) fn leave(&mut self, seq: Seq, channels: &[ChannelName]) -> Vec<Seq> {
        let mut next = Vec::new();
        for channel in channels {
            let Some(lane) = self.0.get_mut(channel) else { continue };
            if lane.front() == Some(&seq) {
                lane.pop_front();
                next.extend(lane.front());
            } else if let Some(at) = lane.iter().position(|waiting| *waiting == seq) {
                lane.remove(at);
            }
            if lane.is_empty() {
                self.0.remove(channel);
            }
        }
        next
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
