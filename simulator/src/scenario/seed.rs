//! Records that a scenario, or an admin call, makes in one go.

use std::time::Duration;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Most records of one seeding.
const MOST: u64 = 1_000_000;

/// Records of one module, made as a person in Zoho would have made them: unchecked and uncounted.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Seed {
    /// `inventory`, `billing` or `crm`.
    pub product: String,
    /// The module, as the admin API calls it.
    pub module: String,
    /// The finance organisation; absent: the only one that there is, or that the scenario names.
    #[serde(default)]
    pub organization: Option<String>,
    /// Fields; `{n}` in a text becomes the record's number.
    pub record: Map<String, Value>,
    /// How many.
    #[serde(default = "one")]
    pub count: u64,
    /// The first one's number.
    #[serde(default = "one")]
    pub first: u64,
    /// How old the first one is, in seconds of Zoho's calendar.
    #[serde(default)]
    pub age_seconds: f64,
    /// By how much each next one is younger.
    #[serde(default)]
    pub step_seconds: f64,
    /// Whether webhooks are told.
    #[serde(default)]
    pub notify: bool,
}

fn one() -> u64 {
    1
}

impl Seed {
    /// Checks what the types cannot say.
    pub(crate) fn validate(&self) -> Result<(), String> {
        if self.count > MOST {
            return Err(format!("at most {MOST} records at once"));
        }
        self.times().map(drop)
    }

    /// The first one's age, and the step.
    pub(crate) fn times(&self) -> Result<(TimeDelta, TimeDelta), String> {
        let length = |name: &str, seconds: f64| {
            let length = Duration::try_from_secs_f64(seconds).ok().and_then(|length| TimeDelta::from_std(length).ok());
            length.ok_or_else(|| format!("`{name}` must be a number of at least 0"))
        };
        Ok((length("age_seconds", self.age_seconds)?, length("step_seconds", self.step_seconds)?))
    }

    /// The records, in their order.
    pub(crate) fn made(&self) -> impl Iterator<Item = Map<String, Value>> {
        let numbers = self.first..self.first.saturating_add(self.count);
        numbers.map(|number| self.record.iter().map(|(name, value)| (name.clone(), numbered(value, number))).collect())
    }
}

/// A value of the template with its number put in for `{n}`.
fn numbered(value: &Value, number: u64) -> Value {
    match value {
        Value::String(text) if text.contains("{n}") => text.replace("{n}", &number.to_string()).into(),
        Value::Array(values) => values.iter().map(|value| numbered(value, number)).collect(),
        Value::Object(values) => Value::Object(values.iter().map(|(name, value)| (name.clone(), numbered(value, number))).collect()),
        other => other.clone(),
    }
}
