//! How another server writes a value, and how that is written here.

use serde_json::Value;

use crate::config::field::Expected;

/// What a foreign value counts, so that it can be said in our units.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unit {
    /// As it is.
    Text,
    /// True or false, also 1 and 0.
    Flag,
    /// A whole number.
    Count,
    /// A whole number; a negative one is no limit, which is 0 here.
    Limit,
    /// So many per second; a negative one is no limit, which is [`RATE_UNLIMITED`] here.
    Rate,
    /// The same, where 0 is no limit too.
    RateOrNone,
    /// Seconds; a negative number is for ever.
    Ttl,
    /// Milliseconds, which become whole seconds.
    Millis,
    /// KiB, perhaps with a fraction, which become bytes.
    Kib,
    /// MiB, which become bytes.
    Mib,
    /// True is `debug`, false leaves the level as it is.
    Debug,
    /// Reverb's word for who may send client events.
    ClientEventsFrom,
    /// Origins of pages; `*` among them allows all, which is an empty list here.
    Origins,
}

/// More than a connection can send: what "no limit" becomes where a limit must be.
pub(super) const RATE_UNLIMITED: &str = "1000000";
/// More than 30 years.
const FOR_EVER_S: &str = "1000000000";

impl Unit {
    /// The value as our settings take it from the environment. None is "leave it as it is".
    pub(super) fn read(self, value: &Value) -> Result<Option<String>, Expected> {
        let text = plain(value);
        let text = text.as_deref();
        Ok(Some(match self {
            Self::Text => text.ok_or("a text")?.to_owned(),
            Self::Flag => flag(text).ok_or("true or false")?.to_string(),
            Self::Count => whole(text).filter(|number| *number >= 0).ok_or("a whole number")?.to_string(),
            Self::Limit => whole(text).ok_or("a whole number, or -1 for no limit")?.max(0).to_string(),
            Self::Rate => match whole(text).ok_or("a whole number, or -1 for no limit")? {
                number if number < 0 => RATE_UNLIMITED.to_owned(),
                number => number.to_string(),
            },
            Self::RateOrNone => match whole(text).ok_or("a whole number, or 0 for no limit")? {
                number if number <= 0 => RATE_UNLIMITED.to_owned(),
                number => number.to_string(),
            },
            Self::Ttl => match whole(text).ok_or("a whole number, or -1 for ever")? {
                number if number < 0 => FOR_EVER_S.to_owned(),
                number => number.to_string(),
            },
            Self::Millis => {
                let millis = whole(text).and_then(|millis| u64::try_from(millis).ok());
                millis.ok_or("a whole number of milliseconds")?.div_ceil(1000).to_string()
            }
            Self::Kib => bytes(text, 1024.0).ok_or("a number of KiB")?,
            Self::Mib => bytes(text, 1024.0 * 1024.0).ok_or("a number of MiB")?,
            Self::Debug => return Ok(flag(text).ok_or("true or false")?.then(|| "debug".to_owned())),
            Self::ClientEventsFrom => match text {
                Some("members" | "all") => true.to_string(),
                Some("none") => false.to_string(),
                _ => return Err("members, all or none".to_owned()),
            },
            Self::Origins => origins(value).ok_or("a list of origins, as in [\"https://a.example\"]")?,
        }))
    }
}

/// A text, a number or true or false, written out.
pub(super) fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// True or false, as environments and JSON say it.
pub(super) fn flag(text: Option<&str>) -> Option<bool> {
    match text?.to_ascii_lowercase().as_str() {
        "true" | "(true)" | "1" | "on" | "yes" => Some(true),
        "false" | "(false)" | "0" | "off" | "no" => Some(false),
        _ => None,
    }
}

fn whole(text: Option<&str>) -> Option<i64> {
    // PHP writes 10_000.
    text?.replace('_', "").parse().ok()
}

fn bytes(text: Option<&str>, of: f64) -> Option<String> {
    let number: f64 = text?.parse().ok()?;
    // Below 2^53 a float counts exactly.
    (number >= 0.0 && number * of < 9e15).then(|| format!("{:.0}", number * of))
}

fn origins(value: &Value) -> Option<String> {
    let items: Vec<&str> = match value {
        Value::String(text) => text.split(',').map(str::trim).collect(),
        _ => value.as_array()?.iter().map(Value::as_str).collect::<Option<_>>()?,
    };
    Some(if items.contains(&"*") { String::new() } else { items.join(",") })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(unit: Unit, value: &Value, ours: &str) {
        assert_eq!(unit.read(value), Ok(Some(ours.to_owned())), "{unit:?} {value}");
    }

    #[test]
    fn a_value_may_be_a_text_or_of_its_type() {
        for value in [json!(true), json!("true"), json!(1), json!("1"), json!("On")] {
            check(Unit::Flag, &value, "true");
        }
        for value in [json!(5), json!("5")] {
            check(Unit::Count, &value, "5");
        }
        check(Unit::Text, &json!(1), "1");
        check(Unit::Count, &json!("10_000"), "10000");
    }

    #[test]
    fn no_limit_and_other_units_become_ours() {
        check(Unit::Limit, &json!(-1), "0");
        check(Unit::Rate, &json!("-1"), RATE_UNLIMITED);
        check(Unit::Ttl, &json!(-1), FOR_EVER_S);
        check(Unit::Millis, &json!(2500), "3");
        check(Unit::Kib, &json!(0.5), "512");
        check(Unit::Kib, &json!("100"), "102400");
        check(Unit::Mib, &json!(100), "104857600");
        check(Unit::Origins, &json!(["*"]), "");
        check(
            Unit::Origins,
            &json!("https://a.example, https://b.example"),
            "https://a.example,https://b.example",
        );
        assert_eq!(Unit::Debug.read(&json!(false)), Ok(None));
    }

    #[test]
    fn what_is_no_such_value_is_refused() {
        for (unit, value) in [
            (Unit::Flag, json!("maybe")),
            (Unit::Count, json!(-1)),
            (Unit::Count, json!(1.5)),
            (Unit::Millis, json!("soon")),
            (Unit::Kib, json!(-1)),
            (Unit::Text, json!(["a"])),
            (Unit::Origins, json!({})),
        ] {
            assert!(unit.read(&value).is_err(), "{unit:?} {value}");
        }
    }
}
