//! Signals. The first asks everything to come to its end, the second ends the process at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The shell's way to say "ended by SIGINT".
const INTERRUPTED: i32 = 130;

/// A token that the first SIGINT or SIGTERM cancels. Work that is cut off by the second is safe: leases end, and a PostgreSQL of ours
/// is stopped by its guard.
///
/// # Errors
/// When the system refuses a signal handler.
pub(crate) fn shutdown_on_signal() -> std::io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        next().await;
        eprintln!("sluice: shutting down; once more to stop at once");
        token.cancel();
        next().await;
        std::process::exit(INTERRUPTED);
    });
    Ok(shutdown)
}
