//! A request, read: what its path, query and body say.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpRequest, web};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::admin::{Admin, AdminError};
use crate::app::App;
use crate::node::{AppName, StoreAway};
use crate::protocol::{ChannelName, Query, SocketId, is_user_id};

/// Items of a page, unless the call says otherwise.
const LIMIT: usize = 100;

/// Most items of a page.
const LIMIT_MAX: usize = 1000;

/// Longest body, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Seconds for a body to arrive.
const BODY_TIMEOUT_S: u64 = 15;

/// A request that has passed the gate.
pub(super) struct Call<'a> {
    request: &'a HttpRequest,
    payload: web::Payload,
    query: Query<'a>,
}

impl<'a> Call<'a> {
    /// Reads the query of a request; it may have no parameters but the known ones.
    pub(super) fn read(
        request: &'a HttpRequest,
        payload: web::Payload,
        known: &[&str],
    ) -> Result<Self, AdminError> {
        let query = Query::parse(request.query_string());
        let query = query.map_err(|error| AdminError::BadQuery(error.to_string()))?;
        if let Some(name) = query.keys().find(|name| !known.contains(name)) {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(AdminError::UnknownParameter { name: name.to_owned(), known });
        }
        Ok(Self { request, payload, query })
    }

    /// Who calls, for the log.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.request.peer_addr()
    }

    /// A parameter of the query.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.get(name)
    }

    /// How many items are wanted.
    pub(super) fn limit(&self) -> Result<usize, AdminError> {
        let Some(text) = self.parameter("limit") else { return Ok(LIMIT) };
        let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
        limit.ok_or_else(|| bad("limit", format!("a whole number from 1 to {LIMIT_MAX}")))
    }

    /// A part of the path, decoded.
    pub(super) fn segment(&self, name: &str) -> String {
        // The router decodes all but an escaped slash, plus and per cent.
        let segment = self.request.match_info().get(name).unwrap_or_default();
        percent_decode_str(segment).decode_utf8_lossy().into_owned()
    }

    /// The app in the path.
    pub(super) async fn app(&self, admin: &Admin) -> Result<Arc<App>, AdminError> {
        app(admin, &self.segment("app")).await
    }

    /// The channel in the path. Users' own channels are no channels here.
    pub(super) fn channel(&self, app: &App) -> Result<ChannelName, AdminError> {
        channel(app, &self.segment("channel"))
    }

    /// The socket id in the path.
    pub(super) fn socket_id(&self) -> Result<SocketId, AdminError> {
        let text = self.segment("socket_id");
        match SocketId::parse(&text) {
            Ok(Some(id)) => Ok(id),
            Ok(None) => Err(AdminError::UnknownConnection(text)),
            Err(error) => Err(bad("socket_id", error.to_string())),
        }
    }

    /// The body, as JSON.
    pub(super) async fn json<T: DeserializeOwned>(self, expected: &'static str) -> Result<T, AdminError> {
        let (limit_s, max) = (BODY_TIMEOUT_S, BODY_BYTES_MAX);
        let body = timeout(Duration::from_secs(limit_s), self.payload.to_bytes_limited(max)).await;
        let body = body.map_err(|_| AdminError::BodyTimeout { limit_s })?;
        let body = body.map_err(|_| AdminError::BodyTooLarge { max })?;
        let body = body.map_err(|_| AdminError::BadBody { expected })?;
        serde_json::from_slice(&body).map_err(|_| AdminError::BadBody { expected })
    }
}

/// An app by its id, of the configuration or of the store.
pub(super) async fn app(admin: &Admin, id: &str) -> Result<Arc<App>, AdminError> {
    let known = || admin.node.apps().by_id(id).cloned();
    if let Some(app) = known() {
        return Ok(app);
    }
    let asked = admin.node.look_up(AppName::Id(id.to_owned())).await;
    asked.map_err(|StoreAway| AdminError::StoreAway)?;
    known().ok_or_else(|| AdminError::UnknownApp(id.to_owned()))
}

/// A channel by its name.
pub(super) fn channel(app: &App, name: &str) -> Result<ChannelName, AdminError> {
    let channel = ChannelName::parse(name, app.channel_name_max).ok();
    channel
        .filter(|channel| !channel.kind().is_user())
        .ok_or_else(|| bad("channel", "a channel name, as in presence-room"))
}

/// The own channel of a user.
pub(super) fn user(id: &str) -> Result<ChannelName, AdminError> {
    let valid = is_user_id(id).then(|| ChannelName::of_user(id));
    valid.ok_or_else(|| bad("user", "a user id: 1 to 128 of the characters of channel names"))
}

/// A value that cannot be used.
pub(super) fn bad(name: &'static str, expected: impl Into<String>) -> AdminError {
    AdminError::BadParameter { name, expected: expected.into() }
}
