//! Reads `docs/alerts.yaml`, and evaluates the part of PromQL that it uses over two scrapes of one worker.
//!
//! As in Prometheus, `increase` needs a series in both scrapes. A series that first appears with its first count has
//! no increase.

#![expect(clippy::float_arithmetic, reason = "samples of Prometheus are floats; no amount is among them")]

use std::collections::BTreeMap;

/// An alert of `docs/alerts.yaml`.
pub struct Rule {
    /// The name of the alert.
    pub name: &'static str,
    /// The PromQL expression.
    pub expression: &'static str,
}

/// Reads every rule of the file.
pub fn rules() -> Vec<Rule> {
    let text = include_str!("../../../docs/alerts.yaml");
    let mut rules: Vec<Rule> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("- alert: ") {
            rules.push(Rule { name, expression: "" });
        } else if let Some(expression) = line.strip_prefix("expr: ") {
            rules.last_mut().expect("an alert before its expression").expression = expression;
        }
    }
    assert!(rules.iter().all(|rule| !rule.expression.is_empty()));
    rules
}

impl Rule {
    /// Says whether the alert fires after the second scrape.
    pub fn fires(&self, first: &str, last: &str) -> bool {
        let (first, last) = (samples(first), samples(last));
        // `and` binds closer than `or`. All series in the operands of `and` have the same labels here: none.
        self.expression.split(" or ").any(|either| {
            either.split(" and ").all(|comparison| !compared(comparison.trim(), &first, &last).is_empty())
        })
    }
}

type Samples = BTreeMap<String, f64>;

fn samples(scrape: &str) -> Samples {
    let lines = scrape.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').expect("a series and its value"))
        .map(|(series, value)| (series.to_owned(), value.parse().expect("a number")))
        .collect()
}

/// Returns the series for which a comparison is true.
fn compared(comparison: &str, first: &Samples, last: &Samples) -> Vec<String> {
    let mut parts = comparison.rsplitn(3, ' ');
    let (number, operator, term) = (parts.next(), parts.next(), parts.next());
    let number: f64 = number.and_then(|number| number.parse().ok()).expect("a number at the end");
    let holds = |value: &f64| match operator {
        Some(">") => *value > number,
        Some("<") => *value < number,
        Some("==") => (*value - number).abs() < f64::EPSILON,
        other => panic!("{comparison}: the operator {other:?} is not evaluated here"),
    };
    let term = term.expect("a term in front of the operator").trim();
    let values: Samples = match term.strip_prefix("increase(").and_then(|term| term.strip_suffix("])")) {
        Some(range) => {
            let (selector, _) = range.split_once('[').expect("a range");
            let increase = |(series, value): (String, f64)| {
                first.get(&series).map(|before| (series.clone(), value - before))
            };
            selected(selector, last).into_iter().filter_map(increase).collect()
        }
        None => selected(term, last),
    };
    values.into_iter().filter(|(_, value)| holds(value)).map(|(series, _)| series).collect()
}

fn selected(selector: &str, samples: &Samples) -> Samples {
    let (name, matchers) = selector.split_once('{').unwrap_or((selector, "}"));
    assert!(name.starts_with("payout_links_"), "{selector}: is not evaluated here");
    let matchers: Vec<&str> =
        matchers.trim_end_matches('}').split(',').filter(|one| !one.is_empty()).collect();
    let matches = |labels: &str| {
        matchers.iter().all(|matcher| {
            let (label, wanted) = matcher.split_once('=').expect("a matcher");
            let (is_pattern, wanted) = match wanted.strip_prefix('~') {
                Some(pattern) => (true, pattern.trim_matches('"')),
                None => (false, wanted.trim_matches('"')),
            };
            let has = |value: &str| labels.split(',').any(|own| own == format!("{label}=\"{value}\""));
            if is_pattern { wanted.split('|').any(has) } else { has(wanted) }
        })
    };
    samples
        .iter()
        .filter(|(series, _)| {
            let (own, labels) = series.split_once('{').unwrap_or((series, "}"));
            own == name && matches(labels.trim_end_matches('}'))
        })
        .map(|(series, value)| (series.clone(), *value))
        .collect()
}
