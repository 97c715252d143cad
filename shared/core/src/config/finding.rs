//! What is wrong with a configuration file: all of it at once, each with its place and what to do.

use std::fmt;
use std::path::PathBuf;

/// One mistake (or, in [`super::Config::notes`], one thing worth a look).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The key, such as `syncs.customers.module`; empty for the whole file.
    pub path: String,
    /// The line in the file, from 1, where it is known.
    pub line: Option<usize>,
    /// What is wrong and what to do. Never holds a secret's value.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No file was named and none lies in the folder or above it.
    #[error("no sluice.toml in {from} or above it; write one (sluice.example.toml is a start) or name it with --config")]
    NotFound {
        /// Where the search began.
        from: PathBuf,
    },
    /// The file, or the `.env` beside it, cannot be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's or the parser's words.
        reason: String,
    },
    /// The file is read but says something impossible.
    #[error("{}", list(file, findings))]
    Invalid {
        /// The file's name, as shown.
        file: String,
        /// Every mistake that was found, in the order of the file.
        findings: Vec<Finding>,
    },
}

fn list(file: &str, findings: &[Finding]) -> String {
    let count = findings.len();
    let mut text = format!("{file} has {count} mistake{}:", if count == 1 { "" } else { "s" });
    for finding in findings {
        text.push_str(&format!("\n  {finding}"));
    }
    text
}
