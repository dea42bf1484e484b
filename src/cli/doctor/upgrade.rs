//! What comes in the place of a WebSocket, and why a WebSocket ends: each with its remedy.

use crate::cli::doctor::place::Credentials;
use crate::cli::doctor::report::Finding;
use crate::cli::doctor::socket::{End, Head, NoUpgrade};
use crate::protocol::cut;

/// What every proxy has to be told.
const PASS_ON: &str = "have the proxy pass WebSockets on: HTTP/1.1 and the headers Upgrade and Connection to Fanfare \
                       (nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header \
                       Connection \"upgrade\"; Apache: mod_proxy_wstunnel; a CDN: switch WebSockets on)";

/// What it means that an upgrade was answered otherwise.
pub(super) fn refused(no: &NoUpgrade) -> Finding {
    match no {
        NoUpgrade::Answered(head) => answered(head),
        NoUpgrade::Ended(error) => Finding::failed(
            format!("no answer to the upgrade: {error}"),
            format!("something on the way ends connections that ask for an upgrade: {PASS_ON}"),
        ),
        NoUpgrade::Nonsense(bytes) => Finding::failed(
            format!("no HTTP in answer to the upgrade: {bytes}"),
            "see what listens there: it is neither Fanfare nor a proxy for HTTP",
        ),
    }
}

/// Nothing has come in time.
pub(super) fn late(seconds: u64) -> Finding {
    Finding::failed(
        format!("no answer to the upgrade within {seconds} s"),
        format!("a proxy that does not know upgrades waits for the end of the answer: {PASS_ON}"),
    )
}

fn answered(head: &Head) -> Finding {
    let Head { version, status, text, .. } = head;
    let who = head.header("server").or(head.header("via")).map_or("something", |who| who);
    let who = cut(who, 40);
    let seen = format!("{who} answers the upgrade with {status}");
    if *status == 101 {
        return Finding::failed(
            format!("{who} answers with 101, but without a right Sec-WebSocket-Accept"),
            "something on the way makes its own answer to the handshake: take it out, or have it pass WebSockets on",
        );
    }
    // Fanfare's own words to a request that has lost its headers.
    let stripped = [
        "This is a WebSocket endpoint",
        "Not a WebSocket handshake",
        "Missing or malformed Sec-WebSocket-Key",
    ];
    if stripped.iter().any(|part| text.contains(part)) {
        return Finding::failed(
            format!(
                "the request arrives without its Upgrade or Connection header (Fanfare answers with {status})"
            ),
            PASS_ON,
        );
    }
    if version == "HTTP/1.0" {
        return Finding::failed(format!("{seen}, in HTTP/1.0, which has no upgrades"), PASS_ON);
    }
    match status {
        200..300 => Finding::failed(
            format!("{seen}: a page instead of a WebSocket"),
            "have the proxy pass /app/ on to Fanfare: another site, or a single-page app's fallback, answers there",
        ),
        300..400 => Finding::failed(
            format!("{seen}, a redirect to {}", cut(head.header("location").unwrap_or("elsewhere"), 100)),
            "name the address that it leads to: no SDK follows a redirect",
        ),
        401 | 403 => Finding::failed(
            seen,
            "a login, a firewall of the web or a bot check stands before Fanfare: leave /app/ and /apps/ out of it",
        ),
        400 | 426 => Finding::failed(seen, PASS_ON),
        404 => Finding::failed(
            format!("{seen}: nothing is known at /app/ there"),
            "have the proxy pass /app/ on to Fanfare with its path as it is, or with a prefix taken away or added in \
             front of /app",
        ),
        502 => Finding::failed(
            seen,
            format!(
                "the proxy does not reach Fanfare, or does not understand its answer to an upgrade: {PASS_ON}"
            ),
        ),
        503 | 504 => Finding::failed(
            seen,
            "the proxy reaches no Fanfare, or waits in vain: see that it runs, and that the proxy's route for /app/ \
             leads to it",
        ),
        _ => Finding::failed(seen, PASS_ON),
    }
}

/// Why the server has ended the connection, by its code. `text` are its own words.
pub(super) fn goodbye(code: Option<u16>, text: &str, credentials: &Credentials) -> Finding {
    let Credentials { key, app, .. } = credentials;
    let id = &app.id;
    let text = cut(text, 123);
    let failed = |detail: String, remedy: &str| Finding::failed(detail, remedy);
    match code {
        Some(4000) => failed(
            format!("app {id} is for TLS only, and the server has seen a connection without (4000)"),
            "use the https:// address; if TLS ends at a proxy, name the proxy in server.trusted_proxies and have it send \
             X-Forwarded-Proto: https",
        ),
        Some(4001) => failed(
            format!("the server knows no key {key} (4001)"),
            "compare the key with the server's configuration (fanfare app list); it may also be the address of another \
             server",
        ),
        Some(4003) => {
            failed(format!("app {id} is disabled (4003)"), "enable it: enabled = true, or fanfare app enable")
        }
        Some(4004) => failed(
            format!("app {id} has as many connections as it may have (4004)"),
            "raise its connections_max, or find out who connects so often: fanfare connections",
        ),
        Some(4005) => failed(
            "the path has changed on its way: the server has seen none that ends with /app/KEY (4005)"
                .to_owned(),
            "have the proxy pass the path on as it is, or with a prefix taken away or added in front of /app as a whole",
        ),
        Some(4006..=4008) => failed(
            format!("the query has changed on its way: {text}"),
            "have the proxy pass the query on: it has the version of the protocol",
        ),
        Some(4009) if text.contains("Origin") => failed(
            format!("app {id} does not allow this origin (4009)"),
            "name one of its allowed_origins with --origin, as browsers do by themselves",
        ),
        Some(4009) => failed(
            format!("app {id} has ended the connection (4009): {text}"),
            "raise its authorized_timeout_s if that was too short",
        ),
        Some(4100) => failed(
            format!("the server takes no more connections (4100): {text}"),
            "raise server.connections_max, server.address_connections_max or the limit of open files, or add a node; if \
             every client seems to have the address of a proxy, name it in server.trusted_proxies",
        ),
        Some(4200) => failed(
            format!("the server is stopping (4200): {text}"),
            "ask again when it runs; clients come back by themselves",
        ),
        Some(4201) => failed(
            "the server has waited in vain for an answer to its ping (4201)".to_owned(),
            "something on the way swallows pings of WebSocket: have it pass them on",
        ),
        Some(code @ 4000..5000) => {
            failed(format!("the server ends the connection with {code}: {text}"), "see what its words say")
        }
        Some(code) => failed(
            format!("the connection was closed with {code}: {text}"),
            "that is no code of Fanfare's: a proxy on the way has ended the connection, see its log",
        ),
        None => failed(
            "the connection was closed without a reason".to_owned(),
            "a proxy on the way has ended the connection, see its log",
        ),
    }
}

/// How a connection has ended that should not have.
pub(super) fn ended(end: &End, credentials: &Credentials) -> Finding {
    match end {
        End::Closed(code, text) => goodbye(*code, text, credentials),
        End::Cut(how) => Finding::failed(
            how.clone(),
            "a proxy or firewall on the way has cut it, see its log; if it was Fanfare, its log says so",
        ),
        End::Nonsense(what) => Finding::failed(
            format!("what comes is no WebSocket: {what}"),
            "something on the way changes what passes: switch compression, rewriting and inspection off for /app/",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::protocol::CloseReason;

    fn credentials() -> Credentials {
        Credentials::of(&Config::demo_app(), None).expect("a key")
    }

    #[test]
    fn every_goodbye_of_the_server_has_a_remedy_of_its_own() {
        use CloseReason::*;
        let mut remedies = Vec::new();
        for reason in [
            TlsOnly,
            UnknownApp,
            AppDisabled,
            OverQuota,
            UnknownPath,
            MissingVersion,
            OriginNotAllowed,
            OverCapacity,
        ] {
            let finding = goodbye(Some(reason.code()), &reason.to_string(), &credentials());
            remedies.push(finding.remedy.expect("a remedy"));
        }
        let count = remedies.len();
        remedies.sort();
        remedies.dedup();
        assert_eq!(remedies.len(), count);
        for reason in [ShuttingDown, PongMissing, Terminated, NotAuthorizedInTime] {
            let finding = goodbye(Some(reason.code()), &reason.to_string(), &credentials());
            assert!(finding.detail.contains(&reason.code().to_string()), "{finding:?}");
        }
        assert!(goodbye(Some(1006), "", &credentials()).remedy.is_some_and(|it| it.contains("proxy")));
    }
}
