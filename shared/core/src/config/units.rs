//! Durations, sizes and limits as people write them in the configuration: `"200ms"`, `"1h30m"`, `"1MiB"`, `"20%"`.
//!
//! Every parser here has a printer that gives back what it would accept, so that `sluice config show` prints a file that loads.

use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const SIZES: [(&str, u64); 7] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000), ("B", 1)];

/// Reads `"2s"`, `"200ms"`, `"1h30m"`: whole numbers, each with one of the units `ms s m h d`.
///
/// # Errors
/// A sentence that says which forms are understood.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration: write a whole number and a unit (ms, s, m, h, d), such as \"30s\" or \"1h30m\"");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (amount, after) = leading_number(rest).ok_or_else(wrong)?;
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, next) = after.split_at(letters);
        let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        total = amount.checked_mul(*millis).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        rest = next;
    }
    Ok(Duration::from_millis(total))
}

/// The shortest text that [`parse_duration`] reads as `duration`, to the millisecond.
pub fn format_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, millis) in UNITS {
        if rest >= millis {
            text.push_str(&format!("{}{unit}", rest / millis));
            rest %= millis;
        }
    }
    text
}

/// Reads a size in bytes: `"1MiB"`, `"512 kB"`, `"100B"`.
///
/// # Errors
/// A sentence that says which forms are understood.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size: write a whole number and a unit (B, kB, KiB, MB, MiB, GB, GiB), such as \"1MiB\"");
    let (amount, unit) = leading_number(text.trim()).ok_or_else(wrong)?;
    let (_, bytes) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim())).ok_or_else(wrong)?;
    amount.checked_mul(*bytes).ok_or_else(wrong)
}

/// The largest unit that gives back `bytes` exactly, in the form [`parse_size`] reads.
pub fn format_size(bytes: u64) -> String {
    let exact = SIZES.iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    exact.map_or_else(|| format!("{bytes}B"), |(name, unit)| format!("{}{name}", bytes / unit))
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    Some((number.parse().ok()?, rest))
}

/// So many records, or such a share of all records of the sync: `50` or `"20%"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// At most this many records.
    Count(u64),
    /// At most this share of all records, in percent (1 to 100).
    Percent(u8),
}

impl Limit {
    /// How many of `total` records the limit allows; a share is rounded up, so that it never forbids everything.
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => (total / 100) * u64::from(percent) + ((total % 100) * u64::from(percent)).div_ceil(100),
        }
    }
}

impl Limit {
    /// A share stands for at least so many records in a brake, so that a table of three rows is not braked by its first edit.
    pub const SHARE_MIN: u64 = 20;

    /// How many of `total` records a brake lets through: a share is [`Self::SHARE_MIN`] at least.
    pub fn braked(self, total: u64) -> u64 {
        match self {
            Self::Count(count) => count,
            Self::Percent(_) => self.of(total).max(Self::SHARE_MIN),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u64(*count),
            Self::Percent(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LimitVisitor)
    }
}

struct LimitVisitor;

impl Visitor<'_> for LimitVisitor {
    type Value = Limit;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a count such as 50 or a share such as \"20%\"")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Limit, E> {
        Ok(Limit::Count(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Limit, E> {
        u64::try_from(value).map(Limit::Count).map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Limit, E> {
        match value.trim().strip_suffix('%') {
            Some(share) => match share.trim().parse() {
                Ok(percent @ 1..=100) => Ok(Limit::Percent(percent)),
                _ => Err(E::custom(format!("`{value}`: a share is a whole number from 1% to 100%"))),
            },
            None => value.trim().parse().map(Limit::Count).map_err(|_| E::invalid_value(de::Unexpected::Str(value), &self)),
        }
    }
}

impl JsonSchema for Limit {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Limit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "integer", "minimum": 0 }, { "type": "string", "pattern": "^(100|[1-9][0-9]?)%$" }] })
    }
}

/// For `#[serde(with)]`: a [`Duration`] written as [`parse_duration`] reads it.
pub(crate) mod duration {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_duration(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        parse_duration(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// For `#[serde(with)]`: an optional [`Duration`].
pub(crate) mod optional_duration {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        value.map(format_duration).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| parse_duration(&text)).transpose().map_err(de::Error::custom)
    }
}

/// For `#[serde(with)]`: bytes written as [`parse_size`] reads them.
pub(crate) mod size {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_size(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        parse_size(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn durations_are_read_and_printed_back() {
        for (text, millis) in [("2s", 2_000), ("5m", 300_000), ("200ms", 200), ("1h30m", 5_400_000), ("7d", 604_800_000), ("0s", 0)] {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(millis), "{text}");
            assert_eq!(format_duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn a_duration_without_a_known_unit_is_refused() {
        for text in ["", "5", "s", "5 minutes", "1.5s", "-2s", "99999999999999999999s", "18446744073709551615d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_and_printed_back() {
        for (text, bytes) in [("1MiB", 1 << 20), ("512KiB", 512 << 10), ("3MB", 3_000_000), ("100B", 100), ("1025B", 1025)] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
            assert_eq!(format_size(bytes), text);
        }
        assert_eq!(parse_size("1 mib").unwrap(), 1 << 20);
        assert!(parse_size("1").is_err() && parse_size("MiB").is_err() && parse_size("99999999999GiB").is_err());
    }

    #[test]
    fn a_share_of_few_records_still_allows_one() {
        assert_eq!(Limit::Percent(20).of(3), 1);
        assert_eq!(Limit::Percent(20).of(1000), 200);
        assert_eq!(Limit::Percent(100).of(u64::MAX), u64::MAX);
        assert_eq!(Limit::Count(50).of(3), 50);
    }

    #[test]
    fn a_limit_is_a_count_or_a_share_between_1_and_100_percent() {
        let read = |json: &str| serde_json::from_str::<Limit>(json);
        assert_eq!(read("\"20%\"").unwrap(), Limit::Percent(20));
        assert_eq!(read("50").unwrap(), Limit::Count(50));
        assert_eq!(serde_json::to_string(&Limit::Percent(20)).unwrap(), "\"20%\"");
        for bad in ["\"0%\"", "\"101%\"", "\"some\"", "-1", "1.5", "true"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        for bad in ["\"0%\"", "\"5.5%\"", "\"101%\"", "\"-3%\"", "\"%\""] {
            let said = read(bad).unwrap_err().to_string();
            assert!(said.contains("a whole number from 1% to 100%"), "{said}");
        }
    }
}
