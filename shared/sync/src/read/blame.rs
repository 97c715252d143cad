//! On which row a condition fails: a statement over a whole page of rows says only that it does.

use std::time::Instant;

use super::fault::Fault;
use super::{Part, Reader};
use crate::definition::Definition;
use sluice_core::db::message;

/// Rows that are looked at in one go.
const PAGE: u32 = 1000;

impl Reader {
    /// The first row after `after`, in key order, on which `when` fails, and why. `None`: none was found within the [isolation limit](super::ISOLATION_LIMIT).
    ///
    /// # Errors
    /// When the database does not answer, or the table cannot be read at all.
    pub async fn failing_when(&self, definition: &Definition, after: Option<&str>) -> Result<Option<(String, String)>, sqlx::Error> {
        let started = Instant::now();
        let mut after = after.map(str::to_owned);
        loop {
            let keys = self.keys_after(definition, None, after.as_deref(), PAGE).await?;
            let Some(last) = keys.last() else { return Ok(None) };
            after = Some(last.clone());
            let mut suspects = keys.as_slice();
            let mut said = None;
            while !suspects.is_empty() {
                if started.elapsed() > self.isolation_limit {
                    return Ok(None);
                }
                // the whole page first; then the first half: if that is good, it is in the other one
                let (part, rest) = if said.is_none() { (suspects, &suspects[..0]) } else { suspects.split_at(suspects.len().div_ceil(2)) };
                match self.part(definition, Part::When, part).await {
                    Ok(_) => suspects = rest,
                    Err(error) if matches!(Fault::of(&error), Fault::Row | Fault::Elsewhere) => {
                        said = Some(message(&error));
                        if let ([only], Some(said)) = (part, &said) {
                            return Ok(Some((only.clone(), said.clone())));
                        }
                        suspects = part;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }
}
