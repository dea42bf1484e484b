//! Paths and queries of hostile callers: no panic, and nobody passes without the secret.
//!
//! Input: path, a question mark, query.

#![no_main]

use std::time::SystemTime;

use fanfare::api::{Route, Signed, Unchecked};
use fanfare::app::Apps;
use fanfare::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let Some(route) = Route::parse(path) else { return };
    assert!(path.ends_with(route.path));
    let apps = Apps::new([Config::demo_app()]).expect("one app");
    let request = Unchecked { method: "GET", path, query, body: b"" };
    // The time is taken as right, so that the signature is looked at.
    let error = Signed::check(request, &route, &apps, u64::MAX, SystemTime::now())
        .expect_err("nobody can guess a signature");
    assert!(error.to_string().len() < 20_000);
});
