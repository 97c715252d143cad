//! `sluice bench budget`, scaled down: real worker processes against a simulated Zoho that counts arrivals. How much of a window is used depends on the
//! machine and is not asserted; that the limits hold does not.

use serde_json::{Value, json};

use crate::sluice::Folder;

fn bench(scenario: &str, replicas: &str) -> Value {
    let arguments = ["bench", "budget", "--json", "--scenario", scenario, "--replicas", replicas];
    let scaled = ["--window", "2", "--cap", "40", "--latency", "5-50", "--windows", "2"];
    Folder::empty().run(&[&arguments[..], &scaled[..]].concat()).json()
}

#[test]
fn three_processes_never_make_more_calls_than_the_cap_in_any_window() {
    let figures = bench("saturation", "3");
    assert!(figures["most_in_window_by_simulator"].as_u64().unwrap() <= 40, "{figures}");
    assert!(figures["most_in_flight"].as_u64().unwrap() <= 10, "{figures}");
    assert_eq!(figures["refused"], 0, "{figures}");
    assert!(figures["calls"].as_u64().unwrap() > 40, "more than a window's calls were made: {figures}");
}

#[test]
fn nor_do_they_when_half_of_them_are_killed_while_they_call() {
    let figures = bench("kill", "4");
    assert!(figures["most_in_window"].as_u64().unwrap() <= 40, "{figures}");
    assert_eq!((&figures["killed"], &figures["refused"]), (&json!(2), &json!(0)), "{figures}");
    assert!(figures["windows"].as_array().unwrap().iter().all(|calls| calls.as_u64().unwrap() > 0), "the others went on: {figures}");
}

#[test]
fn crm_credits_calls_at_once_and_heavy_calls_stay_within_their_limits_and_a_refusal_costs_no_failure() {
    let figures = bench("crm", "4");
    assert!(figures["most_credits"].as_u64() <= figures["credits"].as_u64(), "{figures}");
    assert!(figures["most_heavy_in_flight"].as_u64().unwrap() <= 10 && figures["most_in_flight"].as_u64().unwrap() <= 15, "{figures}");
    assert_eq!(
        (&figures["refused"], &figures["violations"], &figures["failures_counted"]),
        (&json!(0), &json!({}), &json!(0)),
        "{figures}"
    );
    assert!(figures["calls_at_once_after_refusals"].as_u64().unwrap() < 15, "{figures}");
}
