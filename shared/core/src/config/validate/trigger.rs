//! Webhooks, schedules, alerts and rules.

use std::collections::BTreeMap;

use secrecy::ExposeSecret;
use serde_json::{Map, Value};

use super::super::Config;
use super::super::suggest::did_you_mean;
use super::super::trigger::{Alert, ScheduledJob, Verify, Webhook};
use super::Check;

/// Job kind → the arguments it needs and those it may have. `apply` is absent: its event is not known in advance.
const KINDS: [(&str, &[&str], &[&str]); 6] = [
    ("push", &["sync", "key"], &[]),
    ("pull", &["sync", "zoho_id"], &[]),
    ("poll", &["sync"], &["full"]),
    ("backfill", &["sync"], &["where"]),
    ("reconcile", &["sync"], &[]),
    ("call", &["connection", "product", "method", "path"], &["query", "body"]),
];

/// What the web server serves itself: no webhook's second address.
const OWN_PATHS: [&str; 8] = ["/", "/style.css", "/health", "/ready", "/metrics", "/logs", "/docs", "/openapi.json"];
const OWN_FOLDERS: [&str; 3] = ["/webhook/", "/sync/", "/api/v1/"];

impl Check<'_> {
    pub(super) fn triggers(&mut self, config: &Config) {
        let mut paths = BTreeMap::new();
        for (name, webhook) in &config.webhooks {
            self.name(&["webhooks", name]);
            self.webhook(config, name, webhook);
            if let Some(path) = &webhook.path
                && let Some(other) = paths.insert(path.as_str(), name)
            {
                self.wrong(&["webhooks", name, "path"], format!("is also the path of [webhooks.{other}]; each needs its own"));
            }
        }
        for (name, schedule) in &config.schedules {
            self.name(&["schedules", name]);
            self.cron(&["schedules", name, "cron"], &schedule.cron);
            self.job(config, &["schedules", name, "job"], &schedule.job);
        }
        for (name, alert) in &config.alerts {
            self.name(&["alerts", name]);
            self.alert(name, alert);
        }
        for (name, rule) in &config.rules {
            self.name(&["rules", name]);
            self.filled(&["rules", name, "sql"], &rule.sql);
            self.cron(&["rules", name, "cron"], &rule.cron);
        }
    }

    fn webhook(&mut self, config: &Config, name: &str, webhook: &Webhook) {
        let at = |key| ["webhooks", name, key];
        self.reference(&at("connection"), "connections", &webhook.connection, config.connections.keys().map(String::as_str).collect());
        self.filled_secret(&at("secret"), Some(&webhook.secret), "anybody could send events");
        let syncs = || config.syncs.keys().map(String::as_str).collect();
        match (&webhook.sync, webhook.syncs.is_empty()) {
            (Some(sync), true) => self.reference(&at("sync"), "syncs", sync, syncs()),
            (Some(_), false) => self.wrong(&at("syncs"), "give `sync` or `syncs`, not both"),
            (None, true) => self.wrong(&at("sync"), "is required: the sync that the events concern; or syncs = { Deals = \"contracts\" }"),
            (None, false) => {
                for (module, sync) in &webhook.syncs {
                    self.reference(&["webhooks", name, "syncs", module], "syncs", sync, syncs());
                }
            }
        }
        self.webhook_syncs(config, name, webhook);
        self.webhook_secret(&at("secret"), webhook);
        if webhook.verify == Verify::CrmToken && config.http.public_url.is_none() {
            self.note(&at("verify"), "opens no notification channel, since [http] public_url does not say where Zoho reaches us");
        }
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let named = !webhook.header.is_empty() && webhook.header.chars().all(token);
        let used = matches!(webhook.verify, Verify::SecretHeader | Verify::SecretQuery);
        self.wrong_if(used && !named, &at("header"), "is not the name of a header or parameter");
        if let Some(path) = &webhook.path {
            let fine = path.starts_with('/') && path.len() > 1 && !path.contains(['?', '#', '{', '}', ' ']);
            self.wrong_if(!fine, &at("path"), "is not a path, such as \"/api/zoho/products\"");
            let taken = OWN_PATHS.contains(&path.as_str()) || OWN_FOLDERS.iter().any(|folder| path.starts_with(folder));
            self.wrong_if(taken, &at("path"), "is served by Sluice itself; choose another");
        }
        self.wrong_if(webhook.per_minute == 0, &at("per_minute"), "must be at least 1");
        self.wrong_if(webhook.max_body == 0, &at("max_body"), "must be at least 1B");
    }

    /// Events of one organisation say nothing about another's records, and a sync that only pushes reads nothing.
    fn webhook_syncs(&mut self, config: &Config, name: &str, webhook: &Webhook) {
        for named in webhook.sync.iter().chain(webhook.syncs.values()) {
            let Some(sync) = config.syncs.get(named) else { continue };
            if sync.connection != webhook.connection {
                self.wrong(
                    &["webhooks", name, "connection"],
                    format!("is `{}`, but [syncs.{named}] uses `{}`", webhook.connection, sync.connection),
                );
            }
            if !sync.direction.pulls() {
                self.note(
                    &["webhooks", name],
                    format!("[syncs.{named}] only pushes, so events are stored and lead to nothing; perhaps direction = \"both\""),
                );
            }
        }
    }

    fn webhook_secret(&mut self, at: &[&str], webhook: &Webhook) {
        let secret = webhook.secret.expose_secret();
        match webhook.verify {
            Verify::CrmToken => {
                self.wrong_if(secret.chars().count() > 50, at, "is longer than the 50 characters that a CRM channel's token may have")
            }
            Verify::ZohoSignature if !(12..=50).contains(&secret.len()) || !secret.chars().all(|c| c.is_ascii_alphanumeric()) => {
                self.note(at, "is none that Zoho takes as a webhook's secret: 12 to 50 letters and digits");
            }
            Verify::ZohoSignature | Verify::SecretHeader | Verify::SecretQuery => {}
        }
    }

    fn job(&mut self, config: &Config, at: &[&str], job: &ScheduledJob) {
        let Some((_, needed, allowed)) = KINDS.iter().find(|(kind, ..)| *kind == job.kind) else {
            return self.unknown_kind(at, &job.kind);
        };
        for name in *needed {
            match job.args.get(*name) {
                Some(Value::String(text)) if !text.is_empty() => {}
                Some(_) => self.wrong(at, format!("`{name}` must be a text that is not empty")),
                None => self.wrong(at, format!("a job of kind `{}` needs `{name}`", job.kind)),
            }
        }
        let known: Vec<&str> = needed.iter().chain(*allowed).copied().chain(["kind", "lane"]).collect();
        for name in job.args.keys().filter(|name| !known.contains(&name.as_str())) {
            let suggestion = did_you_mean(name, known.iter().copied());
            self.wrong(at, format!("a job of kind `{}` has no `{name}`{suggestion}; known are {}", job.kind, known.join(", ")));
        }
        let full = job.args.get("full").is_some_and(|full| !full.is_boolean());
        self.wrong_if(full, at, "`full` must be true or false");
        self.named_in(at, &job.args, "sync", "syncs", config.syncs.keys().map(String::as_str).collect());
        self.named_in(at, &job.args, "connection", "connections", config.connections.keys().map(String::as_str).collect());
    }

    fn named_in(&mut self, at: &[&str], args: &Map<String, Value>, key: &str, section: &str, known: Vec<&str>) {
        if let Some(Value::String(name)) = args.get(key) {
            self.reference(&[at, &[key]].concat(), section, name, known);
        }
    }

    /// A kind that we do not have may be one that a service defines in Rust; a near miss is a slip.
    fn unknown_kind(&mut self, at: &[&str], kind: &str) {
        let suggestion = did_you_mean(kind, KINDS.map(|(kind, ..)| kind));
        if kind == "apply" {
            self.wrong(at, "an `apply` job acts on one stored event; a schedule cannot name it");
        } else if suggestion.is_empty() && !kind.is_empty() {
            self.note(at, format!("`{kind}` is no job kind of Sluice's own; a service that defines it must be running"));
        } else {
            self.wrong(at, format!("unknown job kind `{kind}`{suggestion}; one of {}", KINDS.map(|(kind, ..)| kind).join(", ")));
        }
    }

    fn alert(&mut self, name: &str, alert: &Alert) {
        let at = |key| ["alerts", name, key];
        match (&alert.url, &alert.smtp) {
            (Some(url), None) => self.web_address(&at("url"), url.expose_secret()),
            (None, Some(smtp)) => {
                let incomplete = smtp.host.trim().is_empty() || smtp.from.trim().is_empty() || smtp.to.is_empty();
                self.wrong_if(incomplete, &at("smtp"), "`host`, `from` and `to` must not be empty");
            }
            (Some(_), Some(_)) => self.wrong(&at("smtp"), "give `url` or `smtp`, not both"),
            (None, None) => self.note(&at("url"), "is not set (perhaps its variable is not), so this alert reaches nobody"),
        }
        self.wrong_if(alert.on.is_empty(), &at("on"), "must not be empty: remove it to be told of everything");
    }
}
