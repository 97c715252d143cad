//! What the types cannot say: references between sections, figures within bounds, expressions that parse.
//!
//! Looks at the file alone; asks neither the database nor Zoho.

use secrecy::{ExposeSecret, SecretString};

use super::connection::Connection;
use super::finding::Finding;
use super::limits::PLANS;
use super::source::{Node, Path, Step};
use super::suggest::did_you_mean;
use super::{Config, section};

mod sync;
mod trigger;

/// All mistakes and notes. `known` are the mistakes of reading: what follows from them is not said again.
pub(super) fn check(config: &Config, file: &Node, known: &[Finding]) -> (Vec<Finding>, Vec<Finding>) {
    let mut check = Check { file, known, findings: Vec::new(), notes: Vec::new() };
    check.database(&config.database);
    check.http(&config.http);
    check.security(&config.security);
    check.limits(config);
    for (name, connection) in &config.connections {
        check.name(&["connections", name]);
        check.connection(name, connection);
    }
    for (name, sync) in &config.syncs {
        check.name(&["syncs", name]);
        check.sync(config, sync);
    }
    check.triggers(config);
    (check.findings, check.notes)
}

struct Check<'a> {
    file: &'a Node,
    known: &'a [Finding],
    findings: Vec<Finding>,
    notes: Vec<Finding>,
}

impl Check<'_> {
    fn wrong(&mut self, path: &[&str], message: impl Into<String>) {
        let finding = self.finding(path, message.into());
        let related = |one: &str, other: &str| one.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        let follows = |known: &Finding| related(&finding.path, &known.path) || related(&known.path, &finding.path);
        if !self.known.iter().any(follows) {
            self.findings.push(finding);
        }
    }

    fn note(&mut self, path: &[&str], message: impl Into<String>) {
        let finding = self.finding(path, message.into());
        self.notes.push(finding);
    }

    /// The line is the key's or, where the key is absent, that of what should hold it.
    fn finding(&self, path: &[&str], message: String) -> Finding {
        let line = (1..=path.len()).rev().find_map(|length| self.file.find(&steps(&path[..length]))).map(|node| node.line);
        Finding { path: steps(path).to_string(), line, message }
    }

    fn wrong_if(&mut self, wrong: bool, path: &[&str], message: &str) {
        if wrong {
            self.wrong(path, message);
        }
    }

    fn in_file(&self, path: &[&str]) -> bool {
        self.file.find(&steps(path)).is_some()
    }

    /// Names appear in keys, references, addresses and metrics.
    fn name(&mut self, path: &[&str]) {
        let name = path.last().copied().unwrap_or_default();
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        let fits = (1..=60).contains(&name.len());
        self.wrong_if(!(plain && fits), path, "a name has 1 to 60 letters, digits, `_` or `-`");
    }

    /// `name` must be a key of `[section]`, in the file as written (one with mistakes of its own counts).
    fn reference(&mut self, path: &[&str], section: &str, name: &str, known: Vec<&str>) {
        if self.in_file(&[section, name]) {
            return;
        }
        let suggestion = did_you_mean(name, known.iter().copied());
        let list = if known.is_empty() { format!("there is no [{section}.…] yet") } else { format!("known are {}", known.join(", ")) };
        self.wrong(path, format!("there is no [{section}.{name}]{suggestion}; {list}"));
    }

    fn filled(&mut self, path: &[&str], text: &str) {
        self.wrong_if(text.trim().is_empty(), path, "must not be empty");
    }

    fn filled_secret(&mut self, path: &[&str], secret: Option<&SecretString>, advice: &str) {
        if secret.is_some_and(|secret| secret.expose_secret().trim().is_empty()) {
            self.wrong(path, format!("is empty; {advice}"));
        }
    }

    fn web_address(&mut self, path: &[&str], address: &str) {
        let parsed = url::Url::parse(address);
        let fine = parsed.is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        self.wrong_if(!fine, path, "is not an address that begins with http:// or https://");
    }

    fn cron(&mut self, path: &[&str], expression: &str) {
        if let Err(error) = expression.parse::<croner::Cron>() {
            self.wrong(path, format!("`{expression}` is not a cron expression ({error}); for example \"*/15 * * * *\", every 15 minutes"));
        }
    }

    fn database(&mut self, database: &section::Database) {
        for (key, url) in [("url", &database.url), ("listen_url", &database.listen_url)] {
            let Some(url) = url else { continue };
            let text = url.expose_secret();
            let fine = text.starts_with("postgres://") || text.starts_with("postgresql://");
            let place = if self.in_file(&["database", key]) { "" } else { "(from DATABASE_URL) " };
            self.wrong_if(!fine, &["database", key], &format!("{place}is not an address that begins with postgres://"));
        }
        self.wrong_if(database.max_connections == 0, &["database", "max_connections"], "must be at least 1");
        if let Some(role) = &database.expression_role {
            self.filled(&["database", "expression_role"], role);
        }
    }

    fn http(&mut self, http: &section::Http) {
        self.filled_secret(&["http", "admin_token"], http.admin_token.as_ref(), "remove the key to have one made");
        if let Some(address) = &http.public_url {
            self.web_address(&["http", "public_url"], address);
        }
        for origin in &http.cors {
            if origin != "*" {
                self.web_address(&["http", "cors"], origin);
            }
        }
        self.wrong_if(http.hosts.iter().any(|host| host.trim().is_empty()), &["http", "hosts"], "must not hold an empty name");
    }

    fn security(&mut self, security: &section::Security) {
        let advice = "is not 32 bytes in base64; `openssl rand -base64 32` makes one";
        let place = if self.in_file(&["security", "key"]) { "" } else { "(from SLUICE_KEY) " };
        let bad = |key: &SecretString| !crate::secrets::is_key(key);
        self.wrong_if(security.key.as_ref().is_some_and(bad), &["security", "key"], &format!("{place}{advice}"));
        self.wrong_if(security.old_keys.iter().any(bad), &["security", "old_keys"], advice);
    }

    fn limits(&mut self, config: &Config) {
        let Config { worker, retry, retention, log, .. } = config;
        let at_least_one_second = |duration: std::time::Duration| duration.as_secs() >= 1;
        self.wrong_if(worker.concurrency == 0, &["worker", "concurrency"], "must be at least 1");
        self.wrong_if(!at_least_one_second(worker.lease), &["worker", "lease"], "must be at least 1s");
        self.wrong_if(!at_least_one_second(worker.request_timeout), &["worker", "request_timeout"], "must be at least 1s");
        self.wrong_if(retry.max_failures == 0, &["retry", "max_failures"], "must be at least 1: a job is tried once in any case");
        self.wrong_if(retry.max_failures > 1000, &["retry", "max_failures"], "must be at most 1000");
        self.wrong_if(retry.base.is_zero(), &["retry", "base"], "must be longer than 0s");
        self.wrong_if(retry.cap < retry.base, &["retry", "cap"], "must not be shorter than `base`");
        self.wrong_if(retention.days == 0, &["retention", "days"], "must be at least 1");
        self.wrong_if(log.keep == 0, &["log", "keep"], "must be at least 1");
    }

    fn connection(&mut self, name: &str, connection: &Connection) {
        let at = |key| ["connections", name, key];
        self.filled(&at("client_id"), &connection.client_id);
        self.filled_secret(&at("client_secret"), Some(&connection.client_secret), "Zoho's API console shows it");
        let advice = "remove the key and run `sluice auth`, which stores one";
        self.filled_secret(&at("refresh_token"), connection.refresh_token.as_ref(), advice);
        for (key, address) in [("accounts_url", &connection.accounts_url), ("api_url", &connection.api_url)] {
            if let Some(address) = address {
                self.web_address(&at(key), address);
            }
        }
        if let Some(organization) = &connection.organization_id {
            self.filled(&at("organization_id"), organization);
            let digits = (1..=20).contains(&organization.len()) && organization.bytes().all(|byte| byte.is_ascii_digit());
            self.wrong_if(
                !organization.is_empty() && !digits,
                &at("organization_id"),
                "must be the digits that Zoho shows under Settings, Organization Profile",
            );
        }
        for (budget_name, budget) in &connection.budget {
            let at = |key| ["connections", name, "budget", budget_name.as_str(), key];
            if !Connection::BUDGETS.contains(&budget_name.as_str()) {
                let suggestion = did_you_mean(budget_name, Connection::BUDGETS);
                let known = Connection::BUDGETS.join(", ");
                self.wrong(&at("")[..4], format!("there is no budget of this name{suggestion}; one of {known}"));
            }
            let figures = [
                ("per_minute", Some(budget.per_minute)),
                ("per_day", budget.per_day),
                ("in_flight", budget.in_flight),
                ("heavy_in_flight", budget.heavy_in_flight),
                ("window_seconds", Some(budget.window_seconds)),
            ];
            for (key, figure) in figures {
                self.wrong_if(figure == Some(0), &at(key), "must be at least 1; `sluice pause` stops a connection");
            }
            if let Some(plan) = budget.plan.as_deref().filter(|plan| !PLANS.contains(plan)) {
                self.wrong(&at("plan"), format!("there is no plan of this name{}; one of {}", did_you_mean(plan, PLANS), PLANS.join(", ")));
            }
            for (key, set) in [("users", budget.users.is_some()), ("heavy_in_flight", budget.heavy_in_flight.is_some())] {
                self.wrong_if(set && budget_name != "crm", &at(key), "belongs to the budget `crm` alone");
            }
            self.wrong_if(!budget.shared && budget_name != "finance", &at("shared"), "belongs to the budget `finance` alone");
        }
    }
}

fn steps(path: &[&str]) -> Path {
    Path(path.iter().map(|key| Step::Key((*key).to_owned())).collect())
}
