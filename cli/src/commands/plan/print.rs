//! A plan as people read it. Pure.

use std::fmt::Write;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sluice_producer::plan::finish::{Bottleneck, Unit};
use sluice_producer::plan::{Bulk, Finish, Plan, Range, Rows, Standing};

use crate::output::{self, text};

/// The whole plan.
pub(super) fn shown(plan: &Plan, now: DateTime<Utc>) -> String {
    let mut out = String::new();
    let what = match (plan.command, plan.force) {
        ("backfill", true) => format!("backfill of {}: every row and every field, in lane {}", plan.sync, plan.lane),
        ("backfill", false) => format!("backfill of {}: every row, in lane {}", plan.sync, plan.lane),
        (_, true) => format!("sluice trigger {} --force, in lane {}", plan.sync, plan.lane),
        (_, false) => format!("sluice trigger {}, in lane {}", plan.sync, plan.lane),
    };
    let condition = plan.condition.as_ref().map(|sql| format!(", where {sql}")).unwrap_or_default();
    let _ = writeln!(out, "{what}{condition}. This is a plan: nothing was changed, and Zoho was not asked.");
    if let Some(stopped) = &plan.stopped {
        let _ = writeln!(out, "{stopped}.");
    }
    if !plan.published {
        let _ = writeln!(out, "The file's sync is not published (or is published otherwise): `sluice attach` comes first.");
    }
    rows(&mut out, plan);
    letters(&mut out, plan);
    calls(&mut out, plan);
    bulk(&mut out, &plan.bulk);
    if !plan.budgets.is_empty() {
        out.push_str("\nBUDGET\n");
    }
    for budget in &plan.budgets {
        standing(&mut out, budget);
    }
    finish(&mut out, plan, now);
    out
}

fn rows(out: &mut String, plan: &Plan) {
    let Rows { looked_at, excluded, not_due, due, create, update, delete, void, mark, unchanged, held, unmappable, .. } = plan.rows;
    let Rows { waiting, read_first, under_way, with_dead_letter, .. } = plan.rows;
    if !plan.pushes {
        out.push_str("\nThe sync only pulls: it is polled, and no row is looked at.\n");
        return;
    }
    out.push_str("\nROWS\n");
    let parents: Vec<String> = plan
        .parents
        .iter()
        .filter(|(_, parent)| parent.waiting > 0)
        .map(|(sync, parent)| match parent.pushed {
            0 => format!("{} for {sync}", number(parent.waiting)),
            pushed => format!("{} for {sync}, of which {} are pushed too", number(parent.waiting), number(pushed)),
        })
        .collect();
    let deeper: Vec<String> = plan
        .parents
        .iter()
        .filter(|(_, parent)| parent.waiting == 0 && parent.pushed > 0)
        .map(|(sync, parent)| format!("{} of {sync} come before those", number(parent.pushed)))
        .collect();
    let parents = parents.into_iter().chain(deeper).collect::<Vec<_>>().join("; ");
    let not_due_means = "nothing is asked for them: synced already, under way, held by a brake, or not to be created";
    let lines = [
        (true, looked_at, "looked at", String::new()),
        (false, excluded, "excluded by `when`", String::new()),
        (false, not_due, "not due", not_due_means.to_owned()),
        (true, due, "due", String::new()),
        (false, create, "  created", String::new()),
        (false, update, "  updated", if read_first > 0 { format!("{} read in Zoho first", number(read_first)) } else { String::new() }),
        (false, delete, "  deleted", String::new()),
        (false, void, "  voided", String::new()),
        (false, mark, "  marked", String::new()),
        (false, unchanged, "  unchanged", "no call".to_owned()),
        (false, held, "  held", "the Zoho record is left as it is".to_owned()),
        (false, unmappable, "  cannot be sent", "dead letters at once".to_owned()),
        (false, waiting, "wait for a parent first", parents),
        (false, under_way, "have work waiting already", String::new()),
        (false, with_dead_letter, "have an open dead letter", String::new()),
    ];
    let shown: Vec<_> = lines.iter().filter(|(always, count, _, _)| *always || *count > 0).collect();
    let width = shown.iter().map(|(_, count, _, _)| number(*count).len()).max().unwrap_or(0);
    for (_, count, name, note) in shown {
        let note = if note.is_empty() { String::new() } else { format!(" ({note})") };
        let _ = writeln!(out, "  {:>width$}  {name}{note}", number(*count));
    }
}

fn letters(out: &mut String, plan: &Plan) {
    if plan.unmappable.is_empty() {
        return;
    }
    out.push_str("\nCANNOT BE SENT");
    let more = plan.rows.unmappable.saturating_sub(plan.unmappable.len().try_into().unwrap_or(u64::MAX));
    let _ = writeln!(out, "{}", if more > 0 { format!(" (the first; {} more)", number(more)) } else { String::new() });
    let rows: Vec<Value> =
        plan.unmappable.iter().map(|one| json!({"key": one.key, "class": one.class, "field": one.field, "reason": one.reason})).collect();
    let columns = [text("KEY", "key"), text("CLASS", "class"), text("FIELD", "field"), text("REASON", "reason")];
    indent(out, &output::table(&columns, &rows, ""));
}

fn calls(out: &mut String, plan: &Plan) {
    out.push_str("\nCALLS\n");
    if plan.calls.is_empty() {
        out.push_str("  none\n");
        return;
    }
    let credits = plan.credits.is_some();
    let mut rows: Vec<Value> = plan
        .calls
        .iter()
        .map(|call| {
            let per_call = if call.records_per_call > 1 { number(call.records_per_call) } else { String::new() };
            let calls = call.estimate.map_or_else(|| range(call.calls), |about| format!("about {}", number(about)));
            json!({"for": call.purpose.replace('_', " "), "sync": call.sync, "request": format!("{} {}", call.method, call.path), "per": per_call,
                "calls": calls, "credits": call.credits.map(range)})
        })
        .collect();
    rows.push(json!({"for": "all", "calls": range(plan.total), "credits": plan.credits.map(range)}));
    let mut columns = vec![text("FOR", "for"), text("SYNC", "sync"), text("REQUEST", "request")];
    columns.extend(plan.calls.iter().any(|call| call.records_per_call > 1).then(|| text("RECORDS A CALL", "per")));
    columns.push(text("CALLS", "calls"));
    columns.extend(credits.then(|| text("CREDITS", "credits")));
    indent(out, &output::table(&columns, &rows, ""));
}

/// Only where there is something to know: what is read in bulk, and what Zoho's bulk write would save.
fn bulk(out: &mut String, bulk: &[Bulk]) {
    for Bulk { records, credits, calls, credits_by_calls, .. } in bulk.iter().filter(|one| one.what == "read" && one.used) {
        let _ = writeln!(
            out,
            "  After 50 pages the rest of about {} records is read by one bulk job: {} credits and about {} calls; by pages all would cost {} credits.",
            number(*records),
            number(*credits),
            number(*calls),
            number(*credits_by_calls)
        );
    }
    let cheaper: Vec<&Bulk> = bulk.iter().filter(|one| one.what == "write" && one.cheaper).collect();
    if !cheaper.is_empty() {
        let sum = |of: fn(&Bulk) -> u64| number(cheaper.iter().map(|one| of(one)).sum());
        let _ = writeln!(
            out,
            "  CRM's bulk write, which Sluice does not use, would take {} credits instead of {} for {} records, and about {} calls.",
            sum(|one| one.credits),
            sum(|one| one.credits_by_calls),
            sum(|one| one.records),
            sum(|one| one.calls)
        );
    }
}

fn standing(out: &mut String, budget: &Standing) {
    let pace = &budget.pace;
    let name = format!("{} {}", budget.connection, budget.product);
    let measured = if budget.answers_measured { "as measured" } else { "assumed" };
    let _ = writeln!(
        out,
        "  {name}: {} calls in {} s and {} at once; with answers of {:.1} s ({measured}) that is {:.0} a minute",
        number(pace.per_window.into()),
        pace.window_seconds,
        pace.in_flight,
        pace.answer_seconds,
        pace.rate() * 60.0
    );
    if !budget.known {
        let _ = writeln!(out, "  {name}: not published, so it is not known what is used of the budget, nor when this would be over");
        return;
    }
    match &pace.meter {
        None => {
            let _ = writeln!(out, "  {name}: nobody has said yet what a day allows, so no limit of the day is reckoned with");
        }
        Some(meter) => {
            let unit = if meter.unit == Unit::Calls { "calls of the day" } else { "credits of 24 hours" };
            let kept = u64::try_from(meter.kept).unwrap_or(0);
            let kept = if kept > 0 { format!(", {} of them kept for more urgent lanes", number(kept)) } else { String::new() };
            let ends = if meter.unit == Unit::Calls { format!("; the day ends in {}", length(meter.resets_in)) } else { String::new() };
            let left = u64::try_from(meter.left).unwrap_or(0);
            let _ = writeln!(out, "  {name}: {} of {} {unit} left{kept}{ends}", number(left), number(meter.cap.into()));
        }
    }
    for one in &budget.waiting {
        let _ = writeln!(out, "  {name}: {} jobs wait in lane {} (about {} calls)", number(one.jobs), one.lane, number(one.calls));
    }
    if let Some(stopped) = &budget.stopped {
        let _ = writeln!(out, "  {name}: {stopped}");
    }
}

fn finish(out: &mut String, plan: &Plan, now: DateTime<Utc>) {
    let Some(finish) = &plan.finish else { return };
    out.push_str("\nFINISH\n");
    let when = match (finish.earliest_seconds, finish.latest_seconds) {
        (Some(first), Some(last)) if last <= first.saturating_add(first / 20).max(first + 5) => {
            format!("in {} ({})", length(real(last)), at(finish.latest, now))
        }
        (Some(first), Some(last)) => {
            format!("in {} to {} ({} to {})", length(real(first)), length(real(last)), at(finish.earliest, now), at(finish.latest, now))
        }
        (Some(first), None) => {
            format!(
                "in {} ({}) at the earliest, and not within a year if others need what is kept for them",
                length(real(first)),
                at(finish.earliest, now)
            )
        }
        (None, _) => "not within a year under this budget".to_owned(),
    };
    let _ = writeln!(out, "  {when}");
    let holds = match finish.bottleneck {
        Bottleneck::Minute => "the calls of a minute",
        Bottleneck::InFlight => "the calls at once, and how long answers take",
        Bottleneck::Day => "the calls of a day",
        Bottleneck::Credits => "the credits of 24 hours",
    };
    let _ = writeln!(out, "  held up by {holds}{}", days(finish));
    let _ = writeln!(
        out,
        "  reckoned with full batches, no call refused or repeated, nobody editing the same records meanwhile{}",
        if plan.rows.read_first > 0 { ", in Zoho either" } else { "" }
    );
    if finish.estimated {
        out.push_str(
            "  how long Zoho's lists are is estimated by the number of linked records; what a poll shows to differ is read besides\n",
        );
    }
}

fn days(finish: &Finish) -> String {
    if finish.today {
        return String::new();
    }
    let days = |seconds: u64| seconds.div_ceil(86_400);
    match (finish.earliest_seconds.map(days), finish.latest_seconds.map(days)) {
        (Some(first), Some(last)) if first < last => format!("; not over within this day: {first} to {last} days"),
        (Some(1), Some(1)) => "; not over within this day".to_owned(),
        (Some(first), Some(_)) => format!("; not over within this day: {first} days"),
        (Some(first), None) => format!("; {first} {} at least", if first == 1 { "day" } else { "days" }),
        (None, _) => String::new(),
    }
}

fn at(time: Option<DateTime<Utc>>, now: DateTime<Utc>) -> String {
    let Some(time) = time else { return "unknown".to_owned() };
    if time.date_naive() == now.date_naive() { time.format("%H:%M UTC").to_string() } else { time.format("%Y-%m-%d %H:%M UTC").to_string() }
}

fn range(range: Range) -> String {
    match (range.at_least, range.at_most) {
        (least, Some(most)) if least == most => number(least),
        (least, Some(most)) => format!("{} to {}", number(least), number(most)),
        (least, None) => format!("{} or more", number(least)),
    }
}

fn indent(out: &mut String, table: &str) {
    for line in table.lines() {
        let _ = writeln!(out, "  {line}");
    }
}

/// How long, to two figures that matter.
fn length(seconds: f64) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most a year of seconds")]
    let seconds = seconds.max(0.0).round() as u64;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds.div_ceil(60)),
        7_200..172_800 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[allow(clippy::cast_precision_loss, reason = "at most a year of seconds")]
fn real(seconds: u64) -> f64 {
    seconds as f64
}

/// 1,234,567.
fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_short_and_ranges_say_what_is_not_known() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([61.5, 3_690.0, 90_000.0, 900_000.0].map(length), ["62 s", "62 min", "25 h 0 min", "10 d 10 h"]);
        assert_eq!(range(Range::exactly(7)), "7");
        assert_eq!(range(Range::between(1, 2_000)), "1 to 2,000");
        assert_eq!(range(Range::between(3, None)), "3 or more");
    }
}
