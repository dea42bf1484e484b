//! Where a path leads. Any prefix may stand before `/apps/{id}`.

use actix_http::Method;
use percent_encoding::percent_decode_str;

use crate::metrics::Endpoint;

/// A path of the API.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route<'a> {
    /// The app's id; none on the path that the Python SDK uses to terminate users.
    pub app_id: Option<String>,
    /// What is asked for.
    pub resource: Resource,
    /// The path from `/apps/` or `/users/` on, as it came.
    pub path: &'a str,
}

/// What the API has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Resource {
    /// `POST events`
    Events,
    /// `POST batch_events`
    BatchEvents,
    /// `GET channels`
    Channels,
    /// `GET channels/{name}`
    Channel(String),
    /// `GET channels/{name}/users`
    Users(String),
    /// `POST users/{id}/terminate_connections`
    Terminate(String),
    /// `POST channels/{name}/events`, deprecated
    ChannelEvents(String),
    /// `GET channels/{name}/stats`, deprecated
    ChannelStats(String),
}

impl<'a> Route<'a> {
    /// Reads a path; none if it is not of the API.
    pub fn parse(path: &'a str) -> Option<Self> {
        // The last ones, in the order of the path; empty ones stand for those that are missing.
        let mut segments = [""; 5];
        for (place, segment) in segments.iter_mut().rev().zip(path.rsplit('/')) {
            *place = segment;
        }
        // Counted from the end, so that a prefix may look like anything.
        let (depth, app_id, resource) = match segments {
            [.., "apps", app, "channels", channel, "users"] => {
                (5, Some(app), Resource::Users(decoded(channel)))
            }
            [.., "apps", app, "channels", channel, "events"] => {
                (5, Some(app), Resource::ChannelEvents(decoded(channel)))
            }
            [.., "apps", app, "channels", channel, "stats"] => {
                (5, Some(app), Resource::ChannelStats(decoded(channel)))
            }
            [.., "apps", app, "users", user, "terminate_connections"] => {
                (5, Some(app), Resource::Terminate(decoded(user)))
            }
            [.., "apps", app, "channels", channel] => (4, Some(app), Resource::Channel(decoded(channel))),
            [.., "apps", app, "channels"] => (3, Some(app), Resource::Channels),
            [.., "apps", app, "events"] => (3, Some(app), Resource::Events),
            [.., "apps", app, "batch_events"] => (3, Some(app), Resource::BatchEvents),
            [.., "users", user, "terminate_connections"] => (3, None, Resource::Terminate(decoded(user))),
            _ => return None,
        };
        let start = path.rmatch_indices('/').nth(depth - 1)?.0;
        Some(Self { app_id: app_id.map(decoded), resource, path: &path[start..] })
    }
}

impl Resource {
    /// The one method each resource has.
    pub fn method(&self) -> Method {
        match self {
            Self::Events | Self::BatchEvents | Self::Terminate(_) | Self::ChannelEvents(_) => Method::POST,
            Self::Channels | Self::Channel(_) | Self::Users(_) | Self::ChannelStats(_) => Method::GET,
        }
    }

    /// How it is called in the metrics.
    pub fn endpoint(&self) -> Endpoint {
        match self {
            Self::Events => Endpoint::Events,
            Self::BatchEvents => Endpoint::BatchEvents,
            Self::Channels => Endpoint::Channels,
            Self::Channel(_) => Endpoint::Channel,
            Self::Users(_) => Endpoint::Users,
            Self::Terminate(_) => Endpoint::Terminate,
            Self::ChannelEvents(_) | Self::ChannelStats(_) => Endpoint::Deprecated,
        }
    }
}

/// What is not UTF-8 gets characters that no name has, so it is refused as a name.
fn decoded(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, app_id: Option<&str>, resource: Resource, route: &str) {
        let expected = Route { app_id: app_id.map(str::to_owned), resource, path: route };
        assert_eq!(Route::parse(path), Some(expected), "{path}");
    }

    #[test]
    fn p70_any_prefix_may_stand_before_a_route() {
        for prefix in ["", "/hub", "/a/b/c/d/e", "/apps/1", "/apps/1/channels"] {
            let path = |route: &str| format!("{prefix}{route}");
            check(&path("/apps/3/events"), Some("3"), Resource::Events, "/apps/3/events");
            check(&path("/apps/3/batch_events"), Some("3"), Resource::BatchEvents, "/apps/3/batch_events");
            check(&path("/apps/3/channels"), Some("3"), Resource::Channels, "/apps/3/channels");
            check(
                &path("/apps/3/channels/c"),
                Some("3"),
                Resource::Channel("c".into()),
                "/apps/3/channels/c",
            );
            check(
                &path("/apps/3/channels/c/users"),
                Some("3"),
                Resource::Users("c".into()),
                "/apps/3/channels/c/users",
            );
        }
    }

    #[test]
    fn p59_terminate_has_two_paths() {
        let user = || Resource::Terminate("u@1".into());
        check(
            "/apps/3/users/u%401/terminate_connections",
            Some("3"),
            user(),
            "/apps/3/users/u%401/terminate_connections",
        );
        check("/hub/users/u@1/terminate_connections", None, user(), "/users/u@1/terminate_connections");
    }

    #[test]
    fn names_of_resources_may_name_channels() {
        check(
            "/apps/3/channels/channels",
            Some("3"),
            Resource::Channel("channels".into()),
            "/apps/3/channels/channels",
        );
        check(
            "/apps/3/channels/users/users",
            Some("3"),
            Resource::Users("users".into()),
            "/apps/3/channels/users/users",
        );
    }

    #[test]
    fn other_paths_are_none_of_ours() {
        for path in ["", "/", "/apps", "/apps/3", "/apps/3/events/", "/app/k", "/xapps/3/events"] {
            assert_eq!(Route::parse(path), None, "{path}");
        }
    }
}
