//! Values with a unit: lengths of time, sizes.

use std::time::Duration;

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time: `"500ms"`, `"5s"`, `"2m"`, `"1h"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub struct Span(pub Duration);

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let span = jiff::SignedDuration::try_from(self.0).map_err(serde::ser::Error::custom)?;
        serializer.collect_str(&format_args!("{span:#}"))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let duration: jiff::SignedDuration = text.parse().map_err(D::Error::custom)?;
        Duration::try_from(duration)
            .map(Self)
            .map_err(D::Error::custom)
    }
}

/// A number of bytes: `"512kB"`, `"100MiB"`, `"4GiB"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(with = "String")]
pub struct Size(pub u64);

/// Units and their bytes, those of 1,024 first, the largest first.
const UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl Size {
    fn parse(text: &str) -> Option<Self> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = text[digits.len()..].trim();
        let (_, bytes) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let number: u64 = digits.parse().ok()?;
        number.checked_mul(*bytes).map(Self)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let whole = |bytes: u64| self.0 > 0 && self.0.is_multiple_of(bytes);
        let unit = UNITS.iter().find(|(_, bytes)| whole(*bytes));
        let (name, bytes) = unit.copied().unwrap_or(("B", 1));
        serializer.collect_str(&format_args!("{}{name}", self.0 / bytes))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            D::Error::custom(
                "a size is a whole number and kB, MB, GB, KiB, MiB or GiB, such as \"100MiB\"",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_numbers_with_a_unit() {
        for (text, bytes) in [
            ("0B", 0),
            ("7B", 7),
            ("512kB", 512_000),
            ("100 MiB", 100 << 20),
            ("4GiB", 4 << 30),
        ] {
            assert_eq!(Size::parse(text), Some(Size(bytes)), "{text}");
        }
        for text in ["", "7", "MiB", "-1kB", "1.5GB", "1mb", "99999999999GiB"] {
            assert_eq!(Size::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_size_is_written_as_it_can_be_read() {
        for bytes in [0, 1, 1_000, 1_024, 100 << 20, 3_000_000, u64::MAX] {
            let text = serde_json::to_string(&Size(bytes)).unwrap();
            assert_eq!(
                serde_json::from_str::<Size>(&text).unwrap(),
                Size(bytes),
                "{text}"
            );
        }
    }
}
