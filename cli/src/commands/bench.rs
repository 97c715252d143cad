//! `sluice bench`: measures this installation against a simulated Zoho. It starts what it needs and leaves nothing behind.

use serde_json::Value;

use crate::bench::scenarios::{self, Arrival, Measure};
use crate::exit::Answer;
use crate::output;
use crate::session::Session;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// The ledger: worker processes against a simulated Zoho that counts arrivals.
    Budget(Args),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many worker processes; several: one run each.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,4,16")]
    replicas: Vec<u16>,
    /// Seconds of a window. Zoho's are 60; shorter ones need shorter latencies.
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=600))]
    window: u32,
    /// Calls in a window.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    cap: u32,
    /// Milliseconds that answers take, uniformly between the two.
    #[arg(long, value_name = "MS-MS", default_value = "200-1500", value_parser = range)]
    latency: Range,
    /// Windows to look at, after the first.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    windows: u32,
    /// Which scenarios.
    #[arg(long, value_enum, value_name = "NAME,…", value_delimiter = ',', default_value = "saturation,kill,lanes,crm,day")]
    scenario: Vec<Scenario>,
}

#[derive(Debug, Clone, Copy)]
struct Range([u64; 2]);

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Scenario {
    /// Work always waiting: how much of each window is used, and never more.
    Saturation,
    /// Half of the processes killed with SIGKILL while they call.
    Kill,
    /// Realtime jobs beside a saturating backfill: how long they wait.
    Lanes,
    /// Credits, calls at once and the heavy pool.
    Crm,
    /// A day's calls, spent over 24 simulated hours.
    Day,
}

fn range(text: &str) -> Result<Range, String> {
    let (low, high) = text.split_once('-').ok_or("two numbers with a dash between them")?;
    let (low, high) = (low.parse::<u64>().map_err(|e| e.to_string())?, high.parse::<u64>().map_err(|e| e.to_string())?);
    if low > high { Err("the lower one first".to_owned()) } else { Ok(Range([low, high])) }
}

pub(crate) async fn run(session: &Session, command: Command) -> anyhow::Result<Answer> {
    let Command::Budget(args) = command;
    let measure = Measure { window: args.window, cap: args.cap, latency: args.latency.0, windows: args.windows };
    let most = args.replicas.iter().copied().max().unwrap_or(1);
    for scenario in &args.scenario {
        match scenario {
            Scenario::Saturation => {
                for replicas in &args.replicas {
                    show(session, &scenarios::saturation(measure, *replicas).await?)?;
                }
            }
            Scenario::Kill => {
                for replicas in args.replicas.iter().filter(|replicas| **replicas > 1) {
                    show(session, &scenarios::kill(measure, *replicas).await?)?;
                }
            }
            Scenario::Lanes => {
                for arrival in [Arrival::Single, Arrival::Bursts, Arrival::Lossy] {
                    show(session, &scenarios::lanes(measure, most.min(4), arrival).await?)?;
                }
            }
            Scenario::Crm => show(session, &scenarios::crm(measure, most).await?)?,
            Scenario::Day => show(session, &scenarios::day(measure, most.min(4)).await?)?,
        }
    }
    Ok(Answer::Yes)
}

fn show(session: &Session, figures: &Value) -> std::io::Result<()> {
    if session.options.json { output::json(figures) } else { output::line(&output::record(figures)).and_then(|()| output::line("")) }
}
