//! What was measured, as a table and as JSON.

use std::time::Duration;

use serde_json::{Map, Value, json};

/// Numbers of one phase, in the order they were noted.
pub struct Section {
    name: String,
    values: Map<String, Value>,
}

#[derive(Default)]
pub struct Report {
    sections: Vec<Section>,
    gates: Vec<Gate>,
}

/// A measured number beside what the budget asks for.
struct Gate {
    what: String,
    measured: f64,
    limit: f64,
    at_least: bool,
}

impl Section {
    #[must_use]
    pub fn new(name: &str) -> Self {
        eprintln!("{name} …");
        Self { name: name.to_owned(), values: Map::new() }
    }

    pub fn note(&mut self, name: &str, value: impl Into<Value>) {
        self.values.insert(name.to_owned(), value.into());
    }

    /// Rounded to what means anything.
    pub fn number(&mut self, name: &str, value: f64) {
        let rounded = if value.abs() >= 100.0 { value.round() } else { (value * 1000.0).round() / 1000.0 };
        self.note(name, rounded);
    }

    /// Percentiles of microseconds, in milliseconds.
    pub fn latencies(&mut self, name: &str, micros: Vec<u32>) -> Percentiles {
        let found = percentiles(micros);
        self.number(&format!("{name} p50 ms"), found.p50);
        self.number(&format!("{name} p99 ms"), found.p99);
        self.number(&format!("{name} p99.9 ms"), found.p999);
        found
    }
}

/// Milliseconds.
#[derive(Clone, Copy)]
pub struct Percentiles {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
}

/// Percentiles of microseconds; 0 of none.
#[must_use]
pub fn percentiles(mut micros: Vec<u32>) -> Percentiles {
    micros.sort_unstable();
    let at = |of_a_thousand: usize| {
        let index = (micros.len() * of_a_thousand / 1000).min(micros.len().saturating_sub(1));
        micros.get(index).map_or(0.0, |&micros| f64::from(micros) / 1000.0)
    };
    Percentiles { p50: at(500), p99: at(990), p999: at(999) }
}

impl Report {
    /// Prints the section and keeps it.
    pub fn add(&mut self, section: Section) {
        println!("\n{}", section.name);
        for (name, value) in &section.values {
            println!("  {name:<34} {value:>14}");
        }
        self.sections.push(section);
    }

    pub fn at_least(&mut self, what: &str, measured: f64, limit: f64) {
        self.gates.push(Gate { what: what.to_owned(), measured, limit, at_least: true });
    }

    pub fn at_most(&mut self, what: &str, measured: f64, limit: f64) {
        self.gates.push(Gate { what: what.to_owned(), measured, limit, at_least: false });
    }

    /// Prints the gates; says whether all are met.
    #[must_use]
    pub fn judge(&self) -> bool {
        println!("\nGates");
        for gate in &self.gates {
            let sign = if gate.at_least { "≥" } else { "≤" };
            let verdict = if gate.is_met() { "met" } else { "MISSED" };
            println!("  {:<52} {:>10.2}  {sign} {:<10} {verdict}", gate.what, gate.measured, gate.limit);
        }
        self.gates.iter().all(Gate::is_met)
    }

    #[must_use]
    pub fn to_json(&self) -> Value {
        let sections: Map<String, Value> = self
            .sections
            .iter()
            .map(|section| (section.name.clone(), Value::Object(section.values.clone())))
            .collect();
        let gates: Vec<Value> = self
            .gates
            .iter()
            .map(|gate| {
                let kind = if gate.at_least { "at_least" } else { "at_most" };
                json!({"what": gate.what, "measured": gate.measured, kind: gate.limit, "met": gate.is_met()})
            })
            .collect();
        json!({"phases": sections, "gates": gates})
    }
}

impl Gate {
    fn is_met(&self) -> bool {
        if self.at_least { self.measured >= self.limit } else { self.measured <= self.limit }
    }
}

/// `count` in a second.
#[must_use]
pub fn a_second(count: u64, span: Duration) -> f64 {
    per(count, span.as_secs_f64())
}

/// `count` for each of `of`; 0 of none.
#[must_use]
pub fn per(count: u64, of: f64) -> f64 {
    if of > 0.0 { float(count) / of } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
#[must_use]
pub fn float(count: u64) -> f64 {
    count as f64
}

#[must_use]
pub fn megabytes(bytes: u64) -> f64 {
    float(bytes) / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_read_from_the_sorted_values() {
        let mut section = Section::new("test");
        let found = section.latencies("x", (1..=1000).rev().map(|ms| ms * 1000).collect());
        assert!((found.p50 - 501.0).abs() < 0.01, "{}", found.p50);
        assert!((found.p999 - 1000.0).abs() < 0.01, "{}", found.p999);
    }

    #[test]
    fn a_missed_gate_is_a_failure() {
        let mut report = Report::default();
        report.at_least("fast", 5.0, 4.0);
        assert!(report.judge());
        report.at_most("small", 5.0, 4.0);
        assert!(!report.judge());
    }
}
