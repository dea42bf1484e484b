//! Headers of the PROXY protocol: no panic, and the same header in one piece and byte by byte.

#![no_main]

use fanfare::guard::proxy::{HEADER_MAX, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    let in_drips = (0..=bytes.len()).map(|length| parse(&bytes[..length])).find(|parsed| *parsed != Ok(None));
    assert_eq!(in_drips.unwrap_or(Ok(None)), whole);
    if let Ok(Some((_, length))) = whole {
        assert!(length <= bytes.len() && length <= HEADER_MAX);
    }
});
