//! Logs: where lines go, which are kept, and what is hidden in them.
//!
//! Lines go to standard error, so that what a command prints can be piped, or to files with rotation. No secret may reach a line:
//! secrets are of a type that does not print, and addresses pass through [`mask_url`].

use std::path::Path;

use tracing::Subscriber;
use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_appender::rolling;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::section::{Log, LogFormat, Rotation};

/// Keep it until the program ends: dropping it writes what is still buffered.
#[derive(Debug)]
#[must_use = "dropping the guard stops the log file"]
pub struct Guard {
    _file: Option<WorkerGuard>,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder or the file cannot be made.
    #[error("cannot write the log to {file}: {reason}; change [log] file")]
    File {
        /// As configured.
        file: String,
        /// The system's words.
        reason: String,
    },
    /// RUST_LOG holds something that is no filter.
    #[error("RUST_LOG is not a filter ({0}); for example RUST_LOG=info,sluice=debug")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Something else already receives this process's lines.
    #[error("logging was already set up")]
    Twice,
}

/// Sets up the process's log, once. `folder` is the configuration's, for a relative `[log] file`; `verbosity` is the count of `-v` less
/// that of `-q`, and RUST_LOG stands above it.
///
/// # Errors
/// [`Error`]; nothing is set up then.
pub fn init(log: &Log, folder: &Path, verbosity: i8) -> Result<Guard, Error> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => EnvFilter::try_new(directives)?,
        _ => EnvFilter::try_new(directives(verbosity))?,
    };
    let (subscriber, guard) = subscriber(log, folder, filter)?;
    subscriber.try_init().map_err(|_| Error::Twice)?;
    Ok(guard)
}

/// Our own crates speak at the level asked for; the libraries one below, until everything is asked for.
fn directives(verbosity: i8) -> &'static str {
    match verbosity {
        ..=-2 => "error",
        -1 => "warn",
        0 => "warn,sluice=info",
        1 => "info,sluice=debug",
        2 => "debug,sluice=trace",
        3.. => "trace",
    }
}

type BoxedSubscriber = Box<dyn Subscriber + Send + Sync>;

fn subscriber(log: &Log, folder: &Path, filter: EnvFilter) -> Result<(BoxedSubscriber, Guard), Error> {
    let (writer, guard, colours) = match log.file.as_deref().filter(|file| !file.as_os_str().is_empty()) {
        Some(file) => {
            let (writer, guard) = file_writer(log, &folder.join(file))?;
            (BoxMakeWriter::new(writer), Some(guard), false)
        }
        None => (BoxMakeWriter::new(std::io::stderr), None, std::io::IsTerminal::is_terminal(&std::io::stderr())),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours);
    let registry = tracing_subscriber::registry().with(filter);
    let subscriber: BoxedSubscriber = match log.format {
        LogFormat::Text => Box::new(registry.with(lines)),
        LogFormat::Json => Box::new(registry.with(lines.json().flatten_event(true))),
    };
    Ok((subscriber, Guard { _file: guard }))
}

/// `logs/sluice.log` becomes `logs/sluice.2026-01-31.log` with a daily rotation.
fn file_writer(log: &Log, file: &Path) -> Result<(NonBlocking, WorkerGuard), Error> {
    let failed = |reason: String| Error::File { file: file.display().to_string(), reason };
    let folder = file.parent().unwrap_or(Path::new("."));
    let name = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    std::fs::create_dir_all(folder).map_err(|error| failed(error.to_string()))?;
    let rotation = match log.rotate {
        Rotation::Daily => rolling::Rotation::DAILY,
        Rotation::Hourly => rolling::Rotation::HOURLY,
        Rotation::Never => rolling::Rotation::NEVER,
    };
    let mut builder = rolling::Builder::new().rotation(rotation).max_log_files(log.keep.max(1));
    builder = builder.filename_prefix(name(file.file_stem()).unwrap_or_else(|| "sluice".to_owned()));
    if let Some(suffix) = name(file.extension()) {
        builder = builder.filename_suffix(suffix);
    }
    let appender = builder.build(folder).map_err(|error| failed(error.to_string()))?;
    Ok(tracing_appender::non_blocking(appender))
}

const MASK: &str = "***";
const SECRET_PARAMETERS: [&str; 10] =
    ["password", "passwd", "secret", "client_secret", "token", "access_token", "refresh_token", "code", "key", "authtoken"];

/// An address as it may be shown: without its password and without query parameters that carry secrets. What is no address, and so
/// might be anything, is hidden whole.
pub fn mask_url(address: &str) -> String {
    let Ok(mut url) = url::Url::parse(address) else {
        return mask_by_hand(address);
    };
    if url.password().is_some() && url.set_password(Some(MASK)).is_err() {
        return MASK.to_owned();
    }
    let is_secret = |name: &str| SECRET_PARAMETERS.iter().any(|secret| name.eq_ignore_ascii_case(secret));
    if url.query_pairs().any(|(name, _)| is_secret(&name)) {
        let pairs: Vec<_> = url.query_pairs().into_owned().collect();
        let mut masked = url.query_pairs_mut();
        masked.clear();
        for (name, value) in &pairs {
            masked.append_pair(name, if is_secret(name) { MASK } else { value });
        }
        drop(masked);
    }
    url.into()
}

/// For addresses that the URL standard does not know, such as PostgreSQL's with several hosts.
fn mask_by_hand(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else {
        return MASK.to_owned();
    };
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, _)| (rest, "?***"));
    match rest.rsplit_once('@') {
        Some((user, hosts)) => {
            let user = user.split_once(':').map_or_else(|| user.to_owned(), |(user, _)| format!("{user}:{MASK}"));
            format!("{scheme}://{user}@{hosts}{query}")
        }
        None => format!("{scheme}://{rest}{query}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn no_password_and_no_secret_parameter_is_shown() {
        for (address, shown) in [
            ("postgres://app:pa%40ss@db:5432/crm?sslmode=require", "postgres://app:***@db:5432/crm?sslmode=require"),
            ("postgres://app@db/crm", "postgres://app@db/crm"),
            ("postgres://app@db/crm?password=hush&user=app", "postgres://app@db/crm?password=***&user=app"),
            ("postgres://app:hush@one:5432,two:5432/crm", "postgres://app:***@one:5432,two:5432/crm"),
            ("postgres://app:hu@sh@one:1,two:2/crm?password=hush", "postgres://app:***@one:1,two:2/crm?***"),
            (
                "https://accounts.example.com/oauth/v2/token?client_secret=hush",
                "https://accounts.example.com/oauth/v2/token?client_secret=***",
            ),
            ("host=db password=hush", "***"),
        ] {
            assert_eq!(mask_url(address), shown);
            assert!(!mask_url(address).contains("hush"));
        }
    }

    #[test]
    fn lines_go_to_the_file_as_json_and_the_filter_holds() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log { format: LogFormat::Json, file: Some("logs/sluice.log".into()), ..Log::default() };
        let (subscriber, guard) = subscriber(&log, folder.path(), EnvFilter::new(directives(0))).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "sluice_queue", job = 7, "claimed");
            tracing::debug!(target: "sluice_queue", "too fine");
            tracing::info!(target: "hyper", "a library's chatter");
        });
        drop(guard);
        let files: Vec<_> = std::fs::read_dir(folder.path().join("logs")).unwrap().map(|entry| entry.unwrap().path()).collect();
        let [file] = files.as_slice() else { panic!("one file, found {files:?}") };
        assert!(file.file_name().unwrap().to_str().unwrap().starts_with("sluice.20"), "{file:?}");
        let text = std::fs::read_to_string(file).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 1, "{text}");
        assert_eq!((lines[0]["message"].as_str(), lines[0]["job"].as_i64()), (Some("claimed"), Some(7)));
    }

    #[test]
    fn a_log_that_cannot_be_written_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("taken"), "").unwrap();
        let log = Log { file: Some("taken/sluice.log".into()), ..Log::default() };
        let error = subscriber(&log, folder.path(), EnvFilter::new("info")).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("taken/sluice.log"), "{error}");
    }

    #[test]
    fn every_verbosity_is_a_filter() {
        for verbosity in -4..=4 {
            EnvFilter::try_new(directives(verbosity)).unwrap();
        }
    }
}
