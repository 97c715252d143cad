//! The variables that `${NAME}` reads: the process's own, then those of the `.env` beside the configuration file.
//!
//! The process's environment is never changed: other threads may be reading it.

use std::collections::BTreeMap;
use std::path::Path;

use super::finding::Error;

/// Names and values; what is defined but empty counts as set.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The process's environment, and below it the file `.env` in `folder` if there is one.
    ///
    /// # Errors
    /// [`Error::Unreadable`] when there is a `.env` that cannot be read or parsed.
    pub fn beside(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(".env");
        let mut variables = BTreeMap::new();
        // The parser's error quotes the line, which may hold a secret; only its place in the file is said.
        let unreadable = |reason: &str| Error::Unreadable { path: path.clone(), reason: reason.to_owned() };
        match dotenvy::from_path_iter(&path) {
            Ok(lines) => {
                for line in lines {
                    let (name, value) = line.map_err(|error| unreadable(&place_of(&error)))?;
                    variables.insert(name, value);
                }
            }
            Err(error) if error.not_found() => {}
            Err(error) => return Err(unreadable(&place_of(&error))),
        }
        variables.extend(std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))));
        Ok(Self(variables))
    }

    /// The value of a variable; `Some("")` when it is defined and empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn place_of(error: &dotenvy::Error) -> String {
    match error {
        dotenvy::Error::LineParse(_, index) => {
            format!("a line is not NAME=value (at character {})", index + 1)
        }
        dotenvy::Error::Io(error) => error.to_string(),
        _ => "it is not a list of NAME=value lines".to_owned(),
    }
}
