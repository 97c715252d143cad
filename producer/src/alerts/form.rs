//! The body that an address understands. Pure.

use serde_json::{Value, json};

use super::Told;

/// Discord refuses longer ones (2,000 characters).
const DISCORD_MAX: usize = 1900;

/// A body and its content type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) text: String,
    pub(super) content_type: &'static str,
}

/// By the template if there is one, else by the host.
pub(super) fn body(host: &str, template: Option<&str>, told: &Told) -> Body {
    if let Some(template) = template {
        return filled(template, told);
    }
    let value = match host {
        "hooks.slack.com" | "hooks.slack-gov.com" => json!({ "text": line(told) }),
        "discord.com" | "discordapp.com" | "canary.discord.com" | "ptb.discord.com" => {
            json!({ "content": line(told).chars().take(DISCORD_MAX).collect::<String>(), "allowed_mentions": { "parse": [] } })
        }
        _ => json!({
            "id": told.id, "occasion": told.occasion, "subject": told.subject, "message": told.message,
            "raised_at": told.raised_at.to_rfc3339(),
        }),
    };
    Body { text: value.to_string(), content_type: "application/json" }
}

/// One line for people.
pub(super) fn line(told: &Told) -> String {
    format!("Sluice, {}: {}", told.occasion.replace('_', " "), told.message)
}

/// Replaces `{id} {occasion} {subject} {message} {raised_at}`. In a template that is JSON what comes in is escaped as JSON text is.
pub(super) fn filled(template: &str, told: &Told) -> Body {
    let values = [
        ("{id}", told.id.to_string()),
        ("{occasion}", told.occasion.clone()),
        ("{subject}", told.subject.clone()),
        ("{message}", told.message.clone()),
        ("{raised_at}", told.raised_at.to_rfc3339()),
    ];
    let emptied = values.iter().fold(template.to_owned(), |text, (name, _)| text.replace(name, "0"));
    let is_json = serde_json::from_str::<Value>(&emptied).is_ok_and(|value| value.is_object() || value.is_array());
    // In one pass: what comes in may itself look like a placeholder.
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        match values.iter().find(|(name, _)| rest.starts_with(name)) {
            Some((name, value)) => {
                text.push_str(&if is_json { escaped(value) } else { value.clone() });
                rest = &rest[name.len()..];
            }
            None => {
                text.push('{');
                rest = &rest[1..];
            }
        }
    }
    text.push_str(rest);
    Body { text, content_type: if is_json { "application/json" } else { "text/plain; charset=utf-8" } }
}

/// As it stands between the quotes of a JSON text.
fn escaped(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(message: &str) -> Told {
        let raised_at = "2026-01-31T12:00:00Z".parse().expect("a time");
        Told { id: 7, occasion: "dead_letter".to_owned(), subject: "customers".to_owned(), message: message.to_owned(), raised_at }
    }

    #[test]
    fn each_host_gets_the_form_that_it_understands() {
        for (host, expected) in [
            ("hooks.slack.com", json!({ "text": "Sluice, dead letter: a" })),
            ("discord.com", json!({ "content": "Sluice, dead letter: a", "allowed_mentions": { "parse": [] } })),
            (
                "alerts.example",
                json!({ "id": 7, "occasion": "dead_letter", "subject": "customers", "message": "a", "raised_at": "2026-01-31T12:00:00+00:00" }),
            ),
        ] {
            assert_eq!(body(host, None, &told("a")).text, expected.to_string(), "{host}");
        }
    }

    #[test]
    fn a_template_is_filled_once_and_stays_json_whatever_comes_in() {
        let message = "a \"quoted\" {subject}\nline \\";
        let json = body("mail.example", Some(r#"{"to": "ops", "text": "{occasion}: {message}", "x": {"y": 1}}"#), &told(message));
        let value: Value = serde_json::from_str(&json.text).expect("JSON");
        assert_eq!((value["text"].as_str(), json.content_type), (Some(format!("dead_letter: {message}").as_str()), "application/json"));
        let plain = body("mail.example", Some("{subject} {unknown} {message}"), &told("\"a\""));
        assert_eq!((plain.text.as_str(), plain.content_type), ("customers {unknown} \"a\"", "text/plain; charset=utf-8"));
    }
}
