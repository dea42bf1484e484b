//! Listening sockets handed over by whoever started the process, as systemd does (sd_listen_fds(3)).
//!
//! They stay open while the server is replaced: clients wait in them and are not refused.

use std::env::var;
use std::net::TcpListener;

use listenfd::ListenFd;

use crate::config::Config;
use crate::server::Inherited;

/// What a socket unit may name its sockets with `FileDescriptorName=`; without such names this is their order.
const NAMES: [&str; 4] = ["clients", "plain", "metrics", "admin"];

/// The sockets that were handed over; none of them for most processes.
///
/// # Errors
/// When one is no listening TCP socket, has a name that we do not know, or one that the settings have no use for.
pub(super) fn inherited(config: &Config) -> Result<Inherited, String> {
    let names = var("LISTEN_FDNAMES").unwrap_or_default();
    let mut handed = ListenFd::from_env();
    let count = handed.len();
    let mut inherited = Inherited::default();
    for (at, name) in roles(&names, count, config)?.into_iter().enumerate() {
        let listener = handed
            .take_tcp_listener(at)
            .and_then(|listener| listener.ok_or_else(|| std::io::ErrorKind::NotFound.into()))
            .map_err(|error| format!("socket {at} that was handed over is no TCP listener: {error}"))?;
        listener.set_nonblocking(true).map_err(|error| error.to_string())?;
        if let Ok(address) = listener.local_addr() {
            tracing::info!(socket = name, %address, "listening on a socket that was handed over");
        }
        *place(&mut inherited, name) = Some(listener);
    }
    Ok(inherited)
}

fn place<'a>(inherited: &'a mut Inherited, name: &str) -> &'a mut Option<TcpListener> {
    match name {
        "plain" => &mut inherited.plain,
        "metrics" => &mut inherited.metrics,
        "admin" => &mut inherited.admin,
        _ => &mut inherited.clients,
    }
}

/// What each of `count` sockets is for.
fn roles(names: &str, count: usize, config: &Config) -> Result<Vec<&'static str>, String> {
    let is_wanted = |name: &str| match name {
        "plain" => !config.tls.certificate.is_empty(),
        "metrics" => config.metrics.bind.is_some(),
        "admin" => config.admin.bind.is_some() && !config.admin.token.expose().is_empty(),
        _ => true,
    };
    // Without names systemd itself says "unknown", or the name of the unit.
    let given: Vec<&str> = names.split(':').collect();
    if !given.iter().any(|name| NAMES.contains(name)) {
        let wanted: Vec<&str> = NAMES.into_iter().filter(|name| is_wanted(name)).collect();
        return wanted.get(..count).map(<[_]>::to_vec).ok_or_else(|| {
            format!("{count} sockets were handed over, but these settings need no more than {}", wanted.len())
        });
    }
    let mut roles = Vec::new();
    for at in 0..count {
        let given = given.get(at).copied().unwrap_or_default();
        let Some(name) = NAMES.into_iter().find(|name| *name == given) else {
            return Err(format!(
                "a socket that was handed over is named {given:?}: expected one of {}",
                NAMES.join(", ")
            ));
        };
        if !is_wanted(name) {
            return Err(format!("a socket was handed over for {name}, which these settings switch off"));
        }
        if roles.contains(&name) {
            return Err(format!("two sockets were handed over for {name}: expected one of each"));
        }
        roles.push(name);
    }
    Ok(roles)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_told_apart_by_name_or_by_order() {
        let mut config = Config::default();
        let of = |config: &Config, names: &str, count| roles(names, count, config);
        assert_eq!(of(&config, "", 0), Ok(vec![]));
        assert_eq!(of(&config, "", 1), Ok(vec!["clients"]));
        assert_eq!(of(&config, "fanfare.socket:fanfare.socket", 2), Ok(vec!["clients", "metrics"]));
        assert_eq!(of(&config, "metrics:clients", 2), Ok(vec!["metrics", "clients"]));
        assert!(of(&config, "", 3).expect_err("too many").contains("no more than 2"));
        assert!(of(&config, "clients:web", 2).expect_err("a name").contains("\"web\""));
        assert!(of(&config, "clients:clients", 2).expect_err("twice").contains("two sockets"));
        assert!(of(&config, "plain", 1).expect_err("no TLS").contains("for plain"));
        config.tls.certificate = "chain.pem".to_owned();
        assert_eq!(of(&config, "", 3), Ok(vec!["clients", "plain", "metrics"]));
    }
}
