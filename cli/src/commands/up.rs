//! `sluice up`: everything in one process, for one machine. Where no database is named it starts a PostgreSQL of its own, and stops it
//! last.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sluice_core::config::Config;
use sluice_core::db::{self, Db};
use sluice_core::postgres::{self, DataDir, Server};
use sluice_core::secrets::KeyRing;
use sluice_producer::Definitions;
use sluice_producer::capture::{self, LOCK_PATIENCE};
use sluice_producer::publish::{Error, Published};
use sluice_worker::WorkerOptions;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::commands::attach;
use crate::exit::{self, Answer};
use crate::output;
use crate::process;
use crate::publish;
use crate::session::{self, Address, Session};

/// Between two looks at whether the tables are there.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How long after an error the end of the server shows, if that was the cause.
const GONE_LIMIT: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave the schema as it is.
    #[arg(long)]
    no_migrate: bool,
    /// Batches worked on at once; without it, `[worker] concurrency`.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: Option<u16>,
}

pub(crate) async fn run(session: &Session, args: Args) -> anyhow::Result<Answer> {
    let config = session.config()?;
    let _log = session.log(&config.log, config.folder(), 0)?;
    let shutdown = process::shutdown_on_signal()?;
    KeyRing::load_or_create(&config.security, config.folder())?;
    let options = WorkerOptions { concurrency: args.concurrency.map(usize::from), name: session::host_name() };
    let (server, url, joined) = match session::address(&config) {
        Address::Configured(url) => (None, url, None),
        Address::Managed(folder) => {
            let server = start(DataDir::Folder(folder.clone())).await?;
            let url = server.url().to_owned();
            let joined = server.is_joined().then(|| (folder, url.clone()));
            (Some(server), url.into(), joined)
        }
    };
    let db = session::connect(&config, &url, "sluice up").await?;
    if server.is_some() {
        output::line("PostgreSQL runs for this folder until this ends: psql \"$(cat .sluice/url)\"")?;
    }
    let serving = serve(config, &db, Serving { no_migrate: args.no_migrate, own: server.is_some() }, options, shutdown);
    let ended = match joined {
        None => serving.await,
        Some((folder, url)) => with_its_server(serving, postgres::until_gone(&folder, &url)).await?,
    };
    db.close().await;
    if let Some(server) = server {
        server.stop().await?;
    }
    ended.map(|()| Answer::Yes)
}

/// Starts a PostgreSQL of our own, or joins the one that runs in the folder.
pub(crate) async fn start(data: DataDir) -> Result<Server, postgres::Error> {
    postgres::start(postgres::Options { data, durable: true, settings: Vec::new() }).await
}

/// Serves until that ends, or the server that was joined does: nothing can be settled without it, and what was in hand is somebody's again when its lease ends.
async fn with_its_server(
    serving: impl Future<Output = anyhow::Result<()>>,
    gone: impl Future<Output = ()>,
) -> anyhow::Result<anyhow::Result<()>> {
    const STOPPED: &str = "the PostgreSQL of this folder has stopped, with the `sluice up` that had started it and that this one had joined: start `sluice up` again";
    let mut gone = std::pin::pin!(gone);
    let ended = tokio::select! {
        ended = serving => ended,
        () = &mut gone => anyhow::bail!(STOPPED),
    };
    // whatever it was doing meets the end in its own way: a connection that breaks off, a farewell of the server's, a file that is not there
    let may_be_its_end = ended.as_ref().is_err_and(|error| !exit::is_usage(error));
    if may_be_its_end && tokio::time::timeout(GONE_LIMIT, gone).await.is_ok() {
        anyhow::bail!(STOPPED);
    }
    Ok(ended)
}

struct Serving {
    no_migrate: bool,
    /// The server is ours, and nobody can reach it but while this runs.
    own: bool,
}

async fn serve(config: Config, db: &Db, serving: Serving, options: WorkerOptions, shutdown: CancellationToken) -> anyhow::Result<()> {
    if serving.no_migrate {
        db::migrate::check(db).await?;
    } else {
        db::migrate::run(db).await?;
    }
    let published =
        if serving.own { published_in_the_end(db, &config, &shutdown).await? } else { Some(publish::publish(db, &config, false).await?) };
    let Some(published) = published else { return Ok(()) };
    publish::print(&published)?;
    let definitions = Definitions::compile(db, &config).await?;
    attach::print(&capture::attach(db, &definitions, &[], LOCK_PATIENCE).await?)?;
    let socket = listen(config.http.listen, serving.own).await?;
    both(socket, Arc::new(config), db, options, shutdown).await
}

/// Takes the address that the pages are served at. As with the database, a second `up` in a folder joins the first: where its address is
/// taken, it serves no pages there, but at an address of no meaning.
async fn listen(address: SocketAddr, joins: bool) -> anyhow::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Ok(socket) => {
            output::line(&format!("http://{address}"))?;
            Ok(socket)
        }
        Err(error) if joins && error.kind() == std::io::ErrorKind::AddrInUse => {
            output::line(&format!("{address} is in use, by another `sluice up` perhaps: this one serves no pages there"))?;
            Ok(TcpListener::bind(SocketAddr::new(address.ip(), 0)).await?)
        }
        Err(error) => Err(anyhow::Error::new(error).context(format!("listening on {address}"))),
    }
}

/// Publishes as soon as the database has what the configuration names: a server that ends because its tables lack leaves no way to make
/// them. `None`: shut down before.
async fn published_in_the_end(db: &Db, config: &Config, shutdown: &CancellationToken) -> anyhow::Result<Option<Published>> {
    let mut said = String::new();
    loop {
        match publish::publish(db, config, false).await {
            Ok(published) => return Ok(Some(published)),
            Err(error @ Error::Invalid(_)) if error.to_string() == said => {}
            Err(error @ Error::Invalid(_)) => {
                said = error.to_string();
                eprintln!("{said}\nwaiting for that, and looking again every 2 s");
            }
            Err(error) => return Err(error.into()),
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(LOOK_AGAIN)).await.is_none() {
            return Ok(None);
        }
    }
}

/// Runs producer and worker until the shutdown. When one of them ends, with an error or without, the other comes to its end as well.
pub(crate) async fn both(
    socket: TcpListener,
    config: Arc<Config>,
    db: &Db,
    options: WorkerOptions,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let stop = shutdown.child_token();
    let producer = ending(sluice_producer::run_on(socket, config.clone(), db.clone(), stop.clone()), &stop);
    let worker = ending(sluice_worker::run(config, db.clone(), options, stop.clone()), &stop);
    let (producer, worker) = tokio::join!(Box::pin(producer), Box::pin(worker));
    producer.and(worker)
}

async fn ending(role: impl Future<Output = anyhow::Result<()>>, stop: &CancellationToken) -> anyhow::Result<()> {
    let ended = role.await;
    stop.cancel();
    ended
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn an_address_that_is_taken_is_found_out_by_taking_it_and_only_who_joins_goes_on_without() {
        let first = listen(SocketAddr::from(([127, 0, 0, 1], 0)), false).await.unwrap();
        let taken = first.local_addr().unwrap();
        assert!(listen(taken, false).await.is_err());
        assert_ne!(listen(taken, true).await.unwrap().local_addr().unwrap(), taken);
    }
}
