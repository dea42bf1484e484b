//! One client's rules: what it may say now, and what that becomes.
//!
//! A [`Connection`] judges one message at a time and answers with a [`Request`] to carry out or with what
//! to tell the client. The worker carries the request out and reports back what has come of it, so the
//! connection always knows its memberships.
//!
//! Invariant: every membership stands for exactly one place in a worker's list of listeners, and one count
//! in the hub; in a cluster it may wait for both, and counts as a subscription from the moment it was asked for.
//!
//! Not here: sockets and frames (`worker`), who else is subscribed (`hub`).

mod memberships;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::{App, WebhookEvent};
use crate::connection::memberships::Memberships;
use crate::hub::{Audience, ClientEventFact};
use crate::protocol::{
    ChannelKind, ChannelName, ClientError, ClientMessage, Frame, Member, Secret, SignIn, SocketId, Subscribe,
    Token, UserData, data_literal, is_longer, is_user_id,
};

pub use crate::connection::memberships::{Membership, Standing};

/// One client, from `connection_established` to its end.
#[derive(Debug)]
pub struct Connection {
    app: Arc<App>,
    socket_id: SocketId,
    user: Option<Box<User>>,
    /// Signed in, or was subscribed to a channel that needs authorization.
    authorized: bool,
    memberships: Memberships,
    client_events: Bucket,
}

/// Who a connection is signed in as.
#[derive(Debug)]
struct User {
    id: Box<str>,
    user_info: Box<str>,
    /// The client has subscribed to its own `#server-to-user-` channel. It gets the events all the same.
    subscribed: bool,
}

/// What a message becomes when it is allowed.
#[derive(Debug)]
pub enum Request {
    /// Nothing: a sign of life.
    Nothing,
    /// An answer.
    Reply(Frame),
    /// An answer that has to come after the one to the sign-in.
    ReplyAsUser(Frame),
    /// Join a channel.
    Subscribe {
        /// The channel.
        channel: ChannelName,
        /// Who the connection is, in a presence channel.
        member: Option<Arc<Member>>,
    },
    /// Leave what stands at this index of the memberships.
    Unsubscribe(usize),
    /// Become a user.
    SignIn(SigningIn),
    /// Send an event to the others.
    Publish {
        /// The channel.
        channel: ChannelName,
        /// The event, encoded.
        frame: Frame,
        /// The same for webhooks, if one tells of it.
        told: Option<Box<ClientEventFact>>,
    },
}

/// A sign-in that is allowed.
#[derive(Debug)]
pub struct SigningIn {
    /// The user's own channel, to be joined unless the connection is in it.
    pub channel: ChannelName,
    /// The channels of the users to watch from now on, instead of those before.
    pub watch: Vec<ChannelName>,
    /// Ids on the watchlist that can name no user, and so are never online.
    pub nobodies: Vec<String>,
    /// What to tell the client about a watchlist that was cut.
    pub complaint: Option<ClientError>,
    /// The answer.
    pub reply: Frame,
}

/// A message that is refused.
#[derive(Debug)]
pub struct Refusal {
    /// What to tell the client.
    pub error: ClientError,
    /// The channel it wanted to subscribe to, to be told as well.
    pub channel: Option<String>,
}

impl From<ClientError> for Refusal {
    fn from(error: ClientError) -> Self {
        Self { error, channel: None }
    }
}

impl Connection {
    /// A client that was just let in.
    pub fn new(app: Arc<App>, socket_id: SocketId, now: Instant) -> Self {
        let client_events = Bucket { spent: 0, since: now };
        Self {
            app,
            socket_id,
            user: None,
            authorized: false,
            memberships: Memberships::default(),
            client_events,
        }
    }

    /// The client's app.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// The app's settings have changed.
    pub fn follow(&mut self, app: Arc<App>) {
        self.app = app;
    }

    /// The client's name.
    pub fn socket_id(&self) -> SocketId {
        self.socket_id
    }

    /// Whether it has signed in or subscribed with authorization. Who waits for the answer has done its part.
    pub fn is_authorized(&self) -> bool {
        let waits = |each: &Membership| each.is_waiting() && each.channel.kind().is_authorized();
        self.authorized || self.memberships().iter().any(waits)
    }

    /// Who it is signed in as.
    pub fn user_id(&self) -> Option<&str> {
        self.user.as_ref().map(|user| &*user.id)
    }

    /// How many channels it is subscribed to.
    pub fn subscriptions(&self) -> usize {
        self.memberships.subscriptions()
    }

    /// Everything the connection listens to.
    pub fn memberships(&self) -> &[Membership] {
        self.memberships.all()
    }

    /// Judges one text message.
    ///
    /// # Errors
    /// What to tell the client; nothing has changed then.
    pub fn hear(&mut self, text: &str, now: Instant) -> Result<Request, Refusal> {
        self.judge(ClientMessage::parse(text)?, now)
    }

    /// Judges a message that was read already.
    ///
    /// # Errors
    /// What to tell the client; nothing has changed then.
    pub fn judge(&mut self, message: ClientMessage<'_>, now: Instant) -> Result<Request, Refusal> {
        match message {
            ClientMessage::Ping => Ok(Request::Reply(Frame::pong())),
            ClientMessage::Pong => Ok(Request::Nothing),
            ClientMessage::Subscribe(message) => {
                let wanted = message.channel.clone().into_owned();
                self.subscribe(message).map_err(|error| Refusal { error, channel: Some(wanted) })
            }
            ClientMessage::Unsubscribe(channel) => Ok(self.unsubscribe(&channel)?),
            ClientMessage::SignIn(message) => Ok(self.sign_in(&message)?),
            ClientMessage::ClientEvent { name, name_literal, channel, data } => {
                if !self.app.client_events {
                    return Err(ClientError::ClientEventsDisabled.into());
                }
                let (Some(channel), Some(data)) = (channel, data) else {
                    return Err(ClientError::IncompleteClientEvent.into());
                };
                let data = data_literal(data);
                Ok(self.client_event(&name, name_literal, &channel, &data, now)?)
            }
        }
    }

    fn subscribe(&mut self, message: Subscribe<'_>) -> Result<Request, ClientError> {
        let wanted = &*message.channel;
        if wanted.starts_with('#') {
            return self.subscribe_to_user(wanted);
        }
        let channel = ChannelName::parse(wanted, self.app.channel_name_max)
            .map_err(|_| ClientError::InvalidChannelName(wanted.to_owned()))?;
        if self.subscription(wanted).is_some() {
            return Err(ClientError::ExistingSubscription(wanted.to_owned()));
        }
        let max = self.app.subscriptions_max;
        if max > 0 && self.memberships.subscriptions() >= max {
            return Err(ClientError::TooManySubscriptions { max });
        }
        if !channel.kind().is_authorized() {
            return Ok(Request::Subscribe { channel, member: None });
        }
        let auth = message.auth.ok_or_else(|| ClientError::AuthRequired(wanted.to_owned()))?;
        let secret = self.secret_of(&auth)?;
        let channel_data = message.channel_data?;
        let mut signed = format!("{}:{wanted}", self.socket_id);
        if let Some(channel_data) = &channel_data {
            signed.push(':');
            signed.push_str(channel_data);
        }
        verify(secret, signed, &auth)?;
        let member = match channel.kind() {
            ChannelKind::Presence { .. } => Some(Arc::new(self.member(channel_data.as_deref())?)),
            _ => None,
        };
        Ok(Request::Subscribe { channel, member })
    }

    /// A user's own channel needs no signature but the sign-in; everything else that begins with `#` is not
    /// for clients.
    fn subscribe_to_user(&mut self, wanted: &str) -> Result<Request, ClientError> {
        let own =
            self.user.as_mut().filter(|user| wanted.strip_prefix("#server-to-user-") == Some(&*user.id));
        let user = own.ok_or_else(|| ClientError::NotAuthorized(wanted.to_owned()))?;
        if user.subscribed {
            return Err(ClientError::ExistingSubscription(wanted.to_owned()));
        }
        user.subscribed = true;
        Ok(Request::ReplyAsUser(Frame::subscription_succeeded(&ChannelName::of_user(&user.id))))
    }

    /// Who the connection will be in a presence channel.
    fn member(&self, channel_data: Option<&str>) -> Result<Member, ClientError> {
        match (channel_data, &self.user) {
            (Some(text), _) => Member::from_channel_data(text, self.app.presence_user_info_bytes_max),
            (None, Some(user)) => {
                let max = self.app.presence_user_info_bytes_max;
                if user.user_info.len() > max {
                    return Err(ClientError::UserInfoTooLong { max });
                }
                Ok(Member { user_id: user.id.clone(), user_info: user.user_info.clone() })
            }
            (None, None) => Err(ClientError::MissingChannelData),
        }
    }

    fn unsubscribe(&mut self, channel: &str) -> Result<Request, ClientError> {
        // The sign-in stays, and so do the user's events: there is no sign-out.
        if let Some(user) = &mut self.user
            && channel.strip_prefix("#server-to-user-") == Some(&*user.id)
        {
            user.subscribed = false;
            return Ok(Request::Nothing);
        }
        let none = || ClientError::NoSubscription(channel.to_owned());
        self.subscription(channel).map(Request::Unsubscribe).ok_or_else(none)
    }

    fn sign_in(&mut self, message: &SignIn<'_>) -> Result<Request, ClientError> {
        let token = Token::parse(&message.auth).map_err(|_| ClientError::InvalidAuthFormat)?;
        let user = UserData::parse(&message.user_data)?;
        let secret =
            self.app.secret(token.key).ok_or_else(|| ClientError::InvalidKey(token.key.to_owned()))?;
        verify(secret, format!("{}::user::{}", self.socket_id, message.user_data), &message.auth)?;
        if !is_user_id(&user.id) {
            return Err(ClientError::InvalidUserId);
        }
        if self.user.as_ref().is_some_and(|before| *before.id != *user.id) {
            return Err(ClientError::DifferentUser);
        }
        let max = self.app.watchlist_users_max;
        let too_long = self.app.watchlist && user.watchlist.len() > max;
        let watched = user.watchlist.into_iter().take(if self.app.watchlist { max } else { 0 });
        let (users, nobodies): (Vec<_>, Vec<_>) = watched.partition(|id| is_user_id(id));
        let channel = ChannelName::of_user(&user.id);
        let subscribed = self.user.as_ref().is_some_and(|before| before.subscribed);
        self.user = Some(Box::new(User { id: user.id.into(), user_info: user.user_info.into(), subscribed }));
        self.authorized = true;
        Ok(Request::SignIn(SigningIn {
            channel,
            watch: users.iter().map(|id| ChannelName::of_user(id)).collect(),
            nobodies,
            complaint: too_long.then_some(ClientError::WatchlistTooLong { max }),
            reply: Frame::signin_success(&message.user_data),
        }))
    }

    fn client_event(
        &mut self,
        name: &str,
        name_literal: &str,
        channel: &str,
        data: &str,
        now: Instant,
    ) -> Result<Request, ClientError> {
        let app = &self.app;
        if !(channel.starts_with("private-") || channel.starts_with("presence-")) {
            return Err(ClientError::ClientEventOnPublicChannel);
        }
        // Whoever waits for a subscription is told nothing by others, and tells them nothing.
        let Some(at) = self.subscription(channel).filter(|at| !self.memberships()[*at].is_waiting()) else {
            return Err(ClientError::ClientEventWithoutSubscription(channel.to_owned()));
        };
        let mut bucket = self.client_events;
        if !bucket.take(app.client_events_per_s, now) {
            return Err(ClientError::ClientEventRate { per_s: app.client_events_per_s });
        }
        let len = name.chars().count();
        if len > app.event_name_max {
            return Err(ClientError::EventNameTooLong { len, max: app.event_name_max });
        }
        if is_longer(data, app.event_data_bytes_max) {
            return Err(ClientError::DataTooLong { max: app.event_data_bytes_max });
        }
        self.client_events = bucket; // only what is accepted costs budget
        let membership = &self.memberships.all()[at];
        let user_id = membership.member.as_ref().map(|member| &*member.user_id);
        let frame = Frame::client_event(&membership.channel, name_literal, data, user_id);
        let told = app.tells(WebhookEvent::ClientEvent, channel).then(|| {
            Box::new(ClientEventFact {
                event: name_literal.into(),
                data: data.into(),
                socket_id: self.socket_id,
                user_id: user_id.map(Box::from),
            })
        });
        Ok(Request::Publish { channel: membership.channel.clone(), frame, told })
    }

    fn secret_of(&self, auth: &str) -> Result<&Secret, ClientError> {
        let token = Token::parse(auth).map_err(|_| ClientError::InvalidAuthFormat)?;
        self.app.secret(token.key).ok_or_else(|| ClientError::InvalidKey(token.key.to_owned()))
    }

    /// The index of the client's subscription to a channel.
    fn subscription(&self, channel: &str) -> Option<usize> {
        self.memberships.subscription(channel)
    }

    /// Whether the connection is in the user's channel already, as after an earlier sign-in, or waits to be.
    pub fn listens_to(&self, channel: &ChannelName) -> bool {
        self.subscription(channel.as_str()).is_some()
    }

    /// Whether the connection waits to be let into a channel.
    pub fn waits_for(&self, channel: &ChannelName) -> bool {
        self.subscription(channel.as_str()).is_some_and(|at| self.memberships()[at].is_waiting())
    }

    /// The indices of the users being watched, highest first, so that they can be left one by one.
    pub fn watched(&self) -> Vec<usize> {
        let watching = |(at, membership): (usize, &Membership)| {
            (membership.audience == Audience::Watchers).then_some(at)
        };
        self.memberships().iter().enumerate().filter_map(watching).rev().collect()
    }

    /// A membership has begun. Returns its index.
    pub fn joined(&mut self, membership: Membership) -> usize {
        self.authorized |= membership.channel.kind().is_authorized();
        self.memberships.push(membership)
    }

    /// A membership has been asked for. Returns its index.
    pub fn asked(&mut self, membership: Membership) -> usize {
        self.memberships.push(membership)
    }

    /// A membership that was asked for has begun. `name` is the channel's, to be shared rather than kept twice.
    pub fn granted(&mut self, at: usize, name: &ChannelName) {
        self.authorized |= name.kind().is_authorized();
        self.memberships.share_name(at, name);
    }

    /// A membership has ended. The last one takes its index.
    pub fn left(&mut self, at: usize) -> Membership {
        self.memberships.swap_remove(at)
    }

    /// The worker has moved a membership to another seat of its list.
    pub fn seated(&mut self, at: usize, seat: u32) {
        self.memberships.set_standing(at, Standing::on(seat));
    }
}

fn verify(secret: &Secret, signed: String, auth: &str) -> Result<(), ClientError> {
    let signature = Token::parse(auth).map(|token| token.signature).unwrap_or_default();
    if secret.verifies(&[signed.as_bytes()], signature) {
        return Ok(());
    }
    Err(ClientError::InvalidSignature { signed, got: signature.to_owned() })
}

/// A budget of so many events at once, refilled at the same number per second.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// What is used up, in thousandths of an event.
    spent: u32,
    since: Instant,
}

impl Bucket {
    fn take(&mut self, per_s: u32, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.since).min(Duration::from_secs(2));
        let refilled = u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX).saturating_mul(per_s);
        if refilled > 0 {
            self.spent = self.spent.saturating_sub(refilled);
            self.since = now;
        }
        let after = self.spent.saturating_add(1000);
        let room = after <= per_s.saturating_mul(1000);
        if room {
            self.spent = after;
        }
        room
    }
}
