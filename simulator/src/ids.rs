//! Made-up identifiers in Zoho's shapes: record ids as digits, tokens as `1000.<hex>.<hex>`.
//!
//! Everything is drawn from the scenario's seed, so that a run can be repeated; nothing here is a secret.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// The first record id less one; 18 digits, the leading ones an organisation's prefix
/// (finance fact 2.4: strings of 15 to 19 digits, one prefix for all modules).
const FIRST_ID: u64 = 460_000_000_000_026_000;

/// The source of ids, tokens and chances.
#[derive(Debug)]
pub(crate) struct Ids {
    last: u64,
    random: StdRng,
}

impl Ids {
    pub(crate) fn new(seed: u64) -> Self {
        Self { last: FIRST_ID, random: StdRng::seed_from_u64(seed) }
    }

    /// A fresh record id. Ids rise by three, so that an off-by-one guess never hits a record.
    pub(crate) fn record(&mut self) -> String {
        self.last += 3;
        self.last.to_string()
    }

    /// `1000.<32 hex>.<32 hex>`.
    pub(crate) fn token(&mut self) -> String {
        format!("1000.{}.{}", self.hex(32), self.hex(32))
    }

    /// `1000.<30 letters and digits>`.
    pub(crate) fn client_id(&mut self) -> String {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
        let tail: String = (0..30).map(|_| char::from(LETTERS[self.random.random_range(0..LETTERS.len())])).collect();
        format!("1000.{tail}")
    }

    pub(crate) fn hex(&mut self, digits: usize) -> String {
        (0..digits).map(|_| char::from_digit(self.random.random_range(0..16), 16).unwrap_or('0')).collect()
    }

    /// True with the given probability, which is clamped to 0..=1.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.random.random_bool(probability.clamp(0.0, 1.0))
    }

    /// A value of the closed range, uniformly.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        self.random.random_range(low..=high.max(low))
    }
}
