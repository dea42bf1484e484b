//! What only several settings together make wrong.

use super::Loading;
use crate::app::App;
use crate::config::{Problem, Redis};

impl Loading {
    /// Looks for all of it.
    pub(super) fn check_combinations(&mut self) {
        let mut wrong = |key: &str, message: &str| {
            let place = self.origins.get(key).map_or(key, |origin| origin).to_owned();
            self.problems.push(Problem { place, message: format!("{key}: {message}") });
        };
        let (tls, server) = (&self.config.tls, &self.config.server);
        if tls.certificate.is_empty() != tls.key.is_empty() {
            wrong("tls.certificate", "tls.certificate and tls.key belong together: set both or none");
        }
        if server.plain_bind.is_some() && tls.certificate.is_empty() {
            wrong(
                "server.plain_bind",
                "it is for plain connections beside TLS: set tls.certificate and tls.key, or use server.bind",
            );
        }
        if server.proxy_protocol && server.trusted_proxies.is_empty() {
            wrong(
                "server.proxy_protocol",
                "nobody is trusted to send it: name the proxies in server.trusted_proxies",
            );
        }
        let unreachable = |app: &&App| app.tls_only && tls.certificate.is_empty();
        if let Some(app) =
            self.config.apps.iter().find(unreachable).filter(|_| server.trusted_proxies.is_empty())
        {
            self.warnings.push(format!(
                "app {} is for TLS only, but there is neither TLS here nor a proxy in server.trusted_proxies: nobody can connect to it",
                app.id
            ));
        }
        let token = self.config.admin.token.expose().len();
        if (1..16).contains(&token) {
            wrong(
                "admin.token",
                "too easy to guess: expected at least 16 characters, as from openssl rand -hex 16",
            );
        }
        if self.config.webhooks.batch_wait_ms > 1000 {
            wrong("webhooks.batch_wait_ms", "expected at most 1000: receivers wait for a second at most");
        }
        if !self.config.webhooks.state_file.is_empty() && !self.config.redis.url.expose().is_empty() {
            wrong(
                "webhooks.state_file",
                "it is for a single node: with redis.url, Redis keeps what was not delivered and who was there; leave one of \
                 webhooks.state_file and redis.url out",
            );
        }
        check_redis(&self.config.redis, wrong);
    }
}

fn check_redis(redis: &Redis, mut wrong: impl FnMut(&str, &str)) {
    let Redis { url, sentinels, tls_ca_file, tls_cert_file, tls_key_file, prefix, .. } = redis;
    let alone = [
        ("redis.sentinels", !sentinels.expose().is_empty()),
        ("redis.tls_ca_file", !tls_ca_file.is_empty()),
        ("redis.tls_cert_file", !tls_cert_file.is_empty()),
    ];
    if url.expose().is_empty()
        && let Some((key, _)) = alone.iter().find(|(_, is_set)| *is_set)
    {
        wrong(key, "it has no effect without redis.url: set that too");
    }
    if tls_cert_file.is_empty() != tls_key_file.is_empty() {
        wrong(
            "redis.tls_cert_file",
            "redis.tls_cert_file and redis.tls_key_file belong together: set both or none",
        );
    }
    // Braces say where a key lives in a Redis Cluster, and the others are patterns in its access lists.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:/#".contains(&byte);
    if prefix.is_empty() || !prefix.bytes().all(is_plain) {
        wrong("redis.prefix", "expected letters, digits and any of _ - . : / #, as in \"fanfare\"");
    }
    if redis.timeout_ms >= redis.lease_s.saturating_mul(1000) {
        wrong(
            "redis.timeout_ms",
            "expected less than redis.lease_s: a node that waits must not lose its lease",
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Layers;

    #[track_caller]
    fn check(settings: &[(&str, &str)], problem: &str) {
        let environment =
            settings.iter().map(|(name, value)| (format!("FANFARE_REDIS_{name}"), (*value).to_owned()));
        let layers = Layers { environment: environment.collect(), ..Layers::default() };
        let problems = layers.load().map_or_else(|error| error.to_string(), |_| String::new());
        assert_eq!(problems, problem, "{settings:?}");
    }

    #[test]
    fn settings_of_redis_that_make_no_sense_together_stop_the_start() {
        const URL: (&str, &str) = ("URL", "redis://127.0.0.1:1");
        check(&[URL, ("SENTINELS", "redis://127.0.0.1:2"), ("PREFIX", "a:b-1")], "");
        check(
            &[("SENTINELS", "redis://127.0.0.1:2")],
            "FANFARE_REDIS_SENTINELS: redis.sentinels: it has no effect without redis.url: set that too",
        );
        check(
            &[URL, ("TLS_KEY_FILE", "k.pem")],
            "redis.tls_cert_file: redis.tls_cert_file: redis.tls_cert_file and redis.tls_key_file belong together: set both or none",
        );
        for prefix in ["", "a{b}", "a*", "a b"] {
            check(
                &[("PREFIX", prefix)],
                "FANFARE_REDIS_PREFIX: redis.prefix: expected letters, digits and any of _ - . : / #, as in \"fanfare\"",
            );
        }
        check(
            &[URL, ("LEASE_S", "3"), ("TIMEOUT_MS", "3000")],
            "FANFARE_REDIS_TIMEOUT_MS: redis.timeout_ms: expected less than redis.lease_s: a node that waits must not lose its lease",
        );
    }
}
