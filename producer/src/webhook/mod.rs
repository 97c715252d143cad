//! Webhooks: what Zoho says has changed, stored as it came and turned into reads of the records that it names.
//!
//! An event is a hint. Nothing that it carries is ever written anywhere but into `sluice.event`; whoever forges one that passes can make us read
//! a record, and no more. It is stored, with the jobs that it leads to, in one statement before it is answered 200; what is refused costs a count.

mod address;
mod channels;
mod gaps;
mod masked;
mod named;
mod receive;
mod replay;
mod store;
mod verify;
mod waiting;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use sluice_core::config::Config;
use sluice_core::config::network::Network;
use sluice_core::config::trigger::Webhook;
use sluice_sync::module::Module;
use tokio::sync::Notify;

pub use channels::want as want_channels;
pub use gaps::run as keep_gaps_swept;
pub(crate) use receive::receive;
pub use replay::{Error as ReplayError, replay};
pub use store::{prune, report, show};
pub use waiting::{decide_waiting, run as keep_decided};

/// A sync that events of a source may concern.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// What the events call its module; `None` for a source whose events all concern this sync.
    label: Option<String>,
    sync: String,
    module: Module,
}

/// One `[webhooks.NAME]`, ready to receive.
pub(crate) struct Hook {
    source: String,
    settings: Webhook,
    targets: Vec<Target>,
    flood: DefaultDirectRateLimiter,
}

/// Every webhook of the configuration, by name and by its second address.
pub(crate) struct Hooks {
    by_source: BTreeMap<String, Hook>,
    by_path: BTreeMap<String, String>,
    trusted_proxies: Vec<Network>,
    /// Told when an event was stored that is decided later.
    waiting: Arc<Notify>,
}

impl Hooks {
    pub(crate) fn new(config: &Config, waiting: Arc<Notify>) -> Self {
        let by_source: BTreeMap<_, _> =
            config.webhooks.iter().map(|(name, settings)| (name.clone(), Hook::new(config, name, settings))).collect();
        let path = |hook: &Hook| Some((hook.settings.path.clone()?, hook.source.clone()));
        let by_path = by_source.values().filter_map(path).collect();
        Self { by_source, by_path, trusted_proxies: config.http.trusted_proxies.clone(), waiting }
    }

    /// The webhook that is served at this path, if one is.
    pub(crate) fn at(&self, path: &str) -> Option<&Hook> {
        let source = path.strip_prefix("/webhook/").or_else(|| self.by_path.get(path).map(String::as_str))?;
        self.by_source.get(source)
    }

    /// Whether the path is a webhook's, known or not: such requests bring their own proof instead of a token of ours.
    pub(crate) fn is_address(&self, path: &str) -> bool {
        path.starts_with("/webhook/") || self.by_path.contains_key(path)
    }
}

impl Hook {
    fn new(config: &Config, source: &str, settings: &Webhook) -> Self {
        let per_minute = NonZeroU32::new(settings.per_minute).unwrap_or(NonZeroU32::MIN);
        Self {
            source: source.to_owned(),
            settings: settings.clone(),
            targets: targets(config, settings),
            flood: RateLimiter::direct(Quota::per_minute(per_minute)),
        }
    }
}

/// The syncs of a webhook, as the configuration names them; one that it does not know was refused when it was read.
pub(crate) fn targets(config: &Config, settings: &Webhook) -> Vec<Target> {
    let labelled = settings.syncs.iter().map(|(label, sync)| (Some(label.clone()), sync));
    let all = settings.sync.iter().map(|sync| (None, sync)).chain(labelled);
    all.filter_map(|(label, sync)| {
        let module = Module::of(&config.syncs.get(sync)?.module);
        Some(Target { label, sync: sync.clone(), module })
    })
    .collect()
}
