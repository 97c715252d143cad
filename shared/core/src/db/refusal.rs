//! What the database says when it refuses something: whether that passes by itself, and its words in a length that people can read.

use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// Characters of an error that are kept or logged: what an expression raises may hold a whole value, and that may be megabytes.
pub const MESSAGE_MAX: usize = 1000;

/// Whether trying again later may help whatever is asked: the connection is lost, the server shuts down or lacks resources, or somebody else was in
/// the way. Everything else is about what was asked.
///
/// A function of the user's, or a foreign server, may raise any SQLSTATE. One that ends the connection (`FATAL`) is the server's own; a foreign server
/// that is down (08 and HV, as a plain error) is not our connection, and does not pass here.
pub fn passes(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else {
        return true;
    };
    if error.try_downcast_ref::<PgDatabaseError>().is_some_and(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic)) {
        return true;
    }
    let code = error.code().unwrap_or_default();
    matches!(code.get(..2), Some("40" | "53" | "58")) || code.starts_with("57P0") || code == "55P03"
}

/// The database's own sentence, without sqlx's words around it, and no longer than [`MESSAGE_MAX`].
pub fn message(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => cut(error.message()),
        other => cut(&other.to_string()),
    }
}

/// The first [`MESSAGE_MAX`] characters, and `…` where there were more.
pub fn cut(text: &str) -> String {
    match text.char_indices().nth(MESSAGE_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = "é".repeat(MESSAGE_MAX);
        assert_eq!(cut(&long), long);
        assert_eq!(cut(&format!("{long}x")), format!("{long}…"));
    }

    #[test]
    fn an_error_that_is_not_the_databases_passes() {
        assert!(passes(&sqlx::Error::PoolTimedOut));
        assert!(passes(&sqlx::Error::Io(std::io::Error::other("reset"))));
    }
}
