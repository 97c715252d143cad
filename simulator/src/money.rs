//! Exact amounts: Zoho sends money as JSON numbers, and sums must not pick up binary rounding.
//!
//! Must never go through a float.

use serde_json::{Number, Value};

/// Units per whole: amounts are kept in ten-thousandths, two digits more than any currency here needs.
const SCALE: i128 = 10_000;

/// An amount of money in ten-thousandths of the currency's unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Money(i128);

impl Money {
    pub(crate) const ZERO: Self = Self(0);

    /// Reads a JSON number, or a string holding one; `None` for anything else, for exponents, and for more than
    /// four decimals or fifteen digits.
    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => Self::parse(&number.to_string()),
            Value::String(text) => Self::parse(text.trim()),
            _ => None,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let fraction = fraction.trim_end_matches('0');
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || whole.len() > 15 || fraction.len() > 4 || !all_digits(whole) || !all_digits(fraction) {
            return None;
        }
        let units = whole.parse::<i128>().ok()? * SCALE + format!("{fraction:0<4}").parse::<i128>().ok()?;
        Some(Self(if negative { -units } else { units }))
    }

    pub(crate) fn is_negative(self) -> bool {
        self.0 < 0
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }

    /// Price times quantity (or a share), rounded half up to the cent.
    pub(crate) fn times(self, other: Self) -> Self {
        Self(round_to_cent(self.0 * other.0, SCALE))
    }

    /// `percent` hundredths of this, rounded half up to the cent.
    pub(crate) fn percent(self, percent: Self) -> Self {
        Self(round_to_cent(self.0 * percent.0, SCALE * 100))
    }

    /// As a JSON number without needless zeros: `100`, `19.99`.
    pub(crate) fn to_json(self) -> Value {
        let sign = if self.0 < 0 { "-" } else { "" };
        let units = self.0.unsigned_abs();
        let (whole, rest) = (units / SCALE.unsigned_abs(), units % SCALE.unsigned_abs());
        let fraction = format!("{rest:04}");
        let fraction = fraction.trim_end_matches('0');
        let text = if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") };
        text.parse::<Number>().map_or(Value::Null, Value::Number)
    }

    /// With two decimals, as the transactions list prints amounts.
    pub(crate) fn to_text(self) -> String {
        let cents = round_to_cent(self.0, 1) / 100;
        let sign = if cents < 0 { "-" } else { "" };
        format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100)
    }
}

/// `value / divisor`, rounded half away from zero to a multiple of a cent (100 units).
fn round_to_cent(value: i128, divisor: i128) -> i128 {
    let step = divisor * 100;
    let half = if value < 0 { -step / 2 } else { step / 2 };
    (value + half) / step * 100
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Money;

    fn money(text: &str) -> Money {
        Money::from_json(&json!(text)).expect("an amount")
    }

    #[test]
    fn amounts_survive_reading_and_writing_without_a_float() {
        for text in ["0", "100", "19.99", "-3.5", "0.1", "999999999999.99"] {
            assert_eq!(money(text).to_json().to_string(), text);
        }
        assert_eq!(money("10.00").to_json().to_string(), "10");
        assert_eq!(money("20.5").to_text(), "20.50");
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for value in [json!("abc"), json!(""), json!("1e3"), json!("1.23456"), json!(null), json!([])] {
            assert_eq!(Money::from_json(&value), None, "{value}");
        }
    }

    #[test]
    fn sums_and_products_are_rounded_to_the_cent_once() {
        assert_eq!(money("0.1").plus(money("0.2")), money("0.3"));
        assert_eq!(money("3.333").times(money("3")), money("10"));
        assert_eq!(money("19.99").percent(money("12.5")), money("2.5"));
    }
}
