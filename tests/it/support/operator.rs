//! The admin API as an operator uses it.

use std::net::SocketAddr;

use serde_json::Value;

use super::{Broker, Http, Reply};

/// The token of brokers whose admin API is on.
pub(crate) const TOKEN: &str = "an-admin-token-of-some-length";

/// Somebody with a token.
pub(crate) struct Operator {
    address: SocketAddr,
    token: String,
}

/// Settings that switch the admin API on.
pub(crate) fn admin_settings() -> String {
    format!("admin.bind = \"127.0.0.1:0\"\nadmin.token = \"{TOKEN}\"")
}

impl Operator {
    /// The operator of a broker whose admin API is on.
    #[track_caller]
    pub(crate) fn of(broker: &Broker) -> Self {
        let address = broker.admin_address().expect("a broker with an admin API");
        Self { address, token: TOKEN.to_owned() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a request below `/admin/v1`, with a body if there is one.
    #[track_caller]
    pub(crate) fn send(&self, method: &str, path: &str, body: &str) -> Reply {
        let token = &self.token;
        self.send_with(method, path, &format!("Authorization: Bearer {token}\r\n"), body)
    }

    /// The same with header lines of the story's own.
    #[track_caller]
    pub(crate) fn send_with(&self, method: &str, path: &str, headers: &str, body: &str) -> Reply {
        let mut http = Http::connect(self.address);
        let length = body.len();
        http.send(format!(
            "{method} /admin/v1/{path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        ));
        http.reply_to(method)
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Value {
        self.send("GET", path, "").ok()
    }

    /// Asserts an error in JSON whose text holds `part`.
    #[track_caller]
    pub(crate) fn expect_refusal(&self, method: &str, path: &str, body: &str, status: u16, part: &str) {
        let reply = self.send(method, path, body);
        assert_eq!(reply.status, status, "{reply:?}");
        let answer: Value = serde_json::from_str(&reply.body).expect("JSON");
        let text = answer["error"].as_str().unwrap_or_else(|| panic!("no error: {reply:?}"));
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }

    /// Reads a list page by page and gives its items in the order they came; `between` happens after each page.
    #[track_caller]
    pub(crate) fn pages(
        &self,
        path: &str,
        items: &str,
        limit: usize,
        mut between: impl FnMut(),
    ) -> Vec<Value> {
        let mut all = Vec::new();
        let mut after = String::new();
        loop {
            let joint = if path.contains('?') { '&' } else { '?' };
            let mut page = self.get(&format!("{path}{joint}limit={limit}{after}"));
            let found = page[items].as_array_mut().expect("a list");
            assert!(found.len() <= limit, "{} items", found.len());
            all.append(found);
            let Some(next) = page["next"].as_str() else { return all };
            after = format!("&after={next}");
            between();
        }
    }
}
