//! Where the server is, as clients and backends are told, and who we are to it.

use std::fmt;
use std::net::SocketAddr;

use reqwest::Url;

use crate::app::App;
use crate::cli::healthcheck::reachable;
use crate::protocol::Secret;

/// `http(s)://host[:port][/prefix]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Place {
    pub(super) is_secure: bool,
    /// Without the brackets of IPv6.
    pub(super) host: String,
    pub(super) port: u16,
    /// What stands before `/app` and `/apps`: empty, or a path without a slash at its end.
    pub(super) prefix: String,
    /// On this machine, asked for under its address: names on certificates are not those that clients use.
    pub(super) is_home: bool,
}

/// An app, and with which of its keys it is asked for.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    pub(super) app: App,
    pub(super) key: String,
    pub(super) secret: Secret,
}

impl Place {
    /// Reads what stands behind `--url`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let expected = "expected something like https://ws.example.com or http://10.0.0.1:6001/prefix";
        let url = Url::parse(text).map_err(|error| format!("{error}: {expected}"))?;
        let is_secure = match url.scheme() {
            "http" | "ws" => false,
            "https" | "wss" => true,
            _ => return Err(expected.to_owned()),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(format!(
                "no credentials stand in the address: they come from the configuration or the environment; {expected}"
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(format!("nothing stands behind the path; {expected}"));
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(expected)?;
        Ok(Self {
            is_secure,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port_or_known_default().unwrap_or(if is_secure { 443 } else { 80 }),
            prefix: url.path().trim_end_matches('/').to_owned(),
            is_home: false,
        })
    }

    /// A server of this machine that listens at `bind`.
    pub(super) fn home(bind: SocketAddr, is_secure: bool) -> Self {
        let (host, prefix) = (reachable(bind).ip().to_string(), String::new());
        Self { is_secure, host, port: bind.port(), prefix, is_home: true }
    }

    /// Host and port as they stand in a URL and in `Host`.
    pub(super) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let usual = if self.is_secure { 443 } else { 80 };
        if self.port == usual { host } else { format!("{host}:{}", self.port) }
    }

    /// The address of a path below the prefix.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{self}{path}")
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.prefix)
    }
}

impl Credentials {
    /// Those of an app: of several keys the newest, or `key`.
    pub(super) fn of(app: &App, key: Option<&str>) -> Option<Self> {
        let named = key.and_then(|key| app.keys.iter().find(|pair| pair.key == key));
        let pair = named.or(app.keys.last())?;
        Some(Self { app: app.clone(), key: pair.key.clone(), secret: pair.secret.clone() })
    }

    /// The site that the client says it is of, if the app asks for one.
    pub(super) fn origin(&self) -> Option<&str> {
        let mut origins = self.app.allowed_origins.iter();
        origins.find(|origin| !origin.contains('*')).map(String::as_str)
    }

    /// What a client sends to subscribe.
    pub(super) fn token(&self, socket_id: &str, channel: &str) -> String {
        let signature = self.secret.sign(&[socket_id.as_bytes(), b":", channel.as_bytes()]);
        format!("{}:{signature}", self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_scheme_a_host_and_perhaps_more() {
        let check = |text: &str, port: u16, shown: &str| {
            let place = Place::parse(text).expect("an address");
            assert_eq!((place.port, place.to_string().as_str()), (port, shown), "{text}");
        };
        check("https://ws.example.com", 443, "https://ws.example.com");
        check("https://ws.example.com:443/", 443, "https://ws.example.com");
        check("http://[::1]:6001/hub/", 6001, "http://[::1]:6001/hub");
        check("wss://a.example:8443", 8443, "https://a.example:8443");
        check("ws://a.example", 80, "http://a.example");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in
            ["", "ws.example.com", "ftp://a", "http://", "http://ann:hush@a", "http://a/?x", "http://a/#x"]
        {
            let said = Place::parse(text).expect_err(text);
            assert!(said.contains("expected something like") && !said.contains("hush"), "{said}");
        }
    }

    #[test]
    fn a_server_that_listens_everywhere_is_asked_at_home() {
        let asked = |bind: &str| Place::home(bind.parse().expect("an address"), false).to_string();
        assert_eq!(asked("0.0.0.0:6001"), "http://127.0.0.1:6001");
        assert_eq!(asked("[::]:6001"), "http://[::1]:6001");
        assert_eq!(asked("10.0.0.1:80"), "http://10.0.0.1");
    }
}
