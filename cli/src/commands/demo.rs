//! `sluice demo`: no set-up at all. Everything it makes lies in a temporary folder that is gone when it ends.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use sluice_core::config::section::Log;
use sluice_core::postgres::{DataDir, Server};
use sluice_worker::WorkerOptions;
use tokio_util::sync::CancellationToken;

use crate::commands::up;
use crate::demo::progress::{self, Unfinished};
use crate::demo::summary::Summary;
use crate::demo::{SPEED, World, web_socket};
use crate::exit::Answer;
use crate::output;
use crate::process;
use crate::recipe::{self, Recipe};
use crate::session::Session;

/// `--once` ends within 90 seconds; what is left then is said.
const ONCE_LIMIT: Duration = Duration::from_secs(85);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which worked system; without it, the first.
    #[arg(long, value_name = "NAME")]
    recipe: Option<String>,
    /// End when everything has settled, with a summary.
    #[arg(long)]
    once: bool,
}

pub(crate) async fn run(session: &Session, args: Args) -> anyhow::Result<Answer> {
    let recipe = recipe::find(args.recipe.as_deref())?;
    let _log = session.log(&Log::default(), ".".as_ref(), -2)?; // what there is to say stands in the summary
    let shutdown = process::shutdown_on_signal()?;
    let demo = Demo { session, recipe, once: args.once, started: Instant::now(), shutdown };
    demo.say(&format!("Everything runs {SPEED} times as fast as with the real Zoho: {} calls per {} seconds.", 100, 60 / SPEED))?;
    let server = up::start(DataDir::Temporary).await?;
    let outcome = Box::pin(demo.on(&server)).await;
    server.stop().await?;
    outcome
}

struct Demo<'a> {
    session: &'a Session,
    recipe: &'static Recipe,
    once: bool,
    started: Instant,
    shutdown: CancellationToken,
}

impl Demo<'_> {
    async fn on(&self, server: &Server) -> anyhow::Result<Answer> {
        let stop = CancellationToken::new();
        let _stop_simulator = stop.clone().drop_guard();
        let socket = web_socket().await?;
        let making = World::make(self.recipe, server.url(), socket.local_addr()?, stop);
        let Some(world) = self.shutdown.run_until_cancelled(Box::pin(making)).await.transpose()? else { return Ok(Answer::No) };
        self.introduce(server, &world)?;
        let working = self.shutdown.child_token();
        let options = WorkerOptions { concurrency: None, name: "demo".to_owned() };
        let roles = up::both(socket, world.config.clone(), &world.db, options, working.clone());
        let watching = async {
            let answer = self.watch(&world, &working).await;
            working.cancel();
            answer
        };
        let (ended, answer) = tokio::join!(Box::pin(roles), Box::pin(watching));
        world.db.close().await;
        ended.and(answer)
    }

    /// Waits for everything to settle and says how it went; then, unless `--once`, for the shutdown. `working` ends early where a role fails.
    async fn watch(&self, world: &World, working: &CancellationToken) -> anyhow::Result<Answer> {
        let limit = self.once.then(|| ONCE_LIMIT.saturating_sub(self.started.elapsed()));
        let left = progress::settled(&world.db, world.enqueued.values().sum(), limit, working).await?;
        if let Some(Unfinished { changes, records, writebacks }) = left {
            if !self.once {
                return Ok(Answer::Yes); // interrupted: nobody waits for a summary
            }
            eprintln!("not settled: {records} record(s), {changes} change(s) and {writebacks} writeback(s) are left");
        }
        let summary = Summary::collect(world, self.recipe.name, left.is_none(), self.started.elapsed().as_secs()).await?;
        if self.session.options.json {
            output::json(&serde_json::to_value(&summary)?)?
        } else {
            summary.print()?
        }
        if self.once {
            return Ok(if left.is_none() { Answer::Yes } else { Answer::No });
        }
        self.say("\nEverything has settled; it keeps running until Ctrl-C.")?;
        working.cancelled().await;
        Ok(Answer::Yes)
    }

    fn introduce(&self, server: &Server, world: &World) -> std::io::Result<()> {
        let records: u64 = world.enqueued.values().sum();
        let pushed = (records > 0).then(|| format!("{records} records of {} syncs are on their way", world.enqueued.len()));
        let polled = (!world.polled.is_empty()).then(|| format!("Zoho is asked for {}", world.polled.join(", ")));
        let begun: Vec<String> = pushed.into_iter().chain(polled).collect();
        self.say(&format!(
            "Recipe {}: {}.\n  PostgreSQL      {}\n  dashboard       http://{}\n  simulated Zoho  {}/admin/stats",
            self.recipe.name,
            begun.join("; "),
            server.url(),
            world.config.http.listen,
            world.zoho
        ))?;
        if !self.once {
            self.say(&format!("Try an edit:\n  psql '{}' -c \"{}\"", server.url(), self.recipe.edit))?;
            self.say(&self.commands(&world.folder().display().to_string()))?;
        }
        Ok(())
    }

    /// The commands that work against this demo, as another terminal takes them.
    fn commands(&self, folder: &str) -> String {
        let sluice = program();
        let lines: String = self.recipe.commands.iter().map(|line| format!("\n  {sluice} {line}")).collect();
        format!("Every command works in the folder of its sluice.toml, in another terminal:\n  cd {folder}{lines}")
    }

    /// For people: with `--json` standard output belongs to the summary.
    fn say(&self, text: &str) -> std::io::Result<()> {
        if self.session.options.json {
            eprintln!("{text}");
            return Ok(());
        }
        output::line(text)
    }
}

/// How this program was called, as it is called from another folder.
fn program() -> String {
    let called = std::env::args_os().next().map(PathBuf::from).unwrap_or_else(|| "sluice".into());
    let by_path = called.components().count() > 1;
    let path = if by_path { called.canonicalize().unwrap_or(called) } else { called };
    path.display().to_string()
}
