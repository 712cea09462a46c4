//! The figures of a run, and how they are told.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::peer::Name;
use crate::stats::{median, range, spread};
use crate::table::{Table, short};
use crate::workload::{Backend, Unit};

/// A run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    pub machine: Machine,
    /// What was measured, by name.
    pub versions: Vec<(String, String)>,
    /// How it was measured, by name.
    pub settings: Vec<(String, String)>,
    pub figures: Vec<Figure>,
}

/// What one peer came to in one workload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub backend: Backend,
    pub workload: String,
    pub title: String,
    pub unit: Unit,
    pub peer: Name,
    /// One for each round.
    pub samples: Vec<f64>,
    /// Microseconds that half of the calls took at most, one for each round.
    pub p50_us: Vec<f64>,
    /// Microseconds that 99 of 100 calls took at most, one for each round.
    pub p99_us: Vec<f64>,
}

impl Figure {
    pub(crate) fn median(&self) -> f64 {
        median(&self.samples)
    }

    /// How many times better it is than another of the same workload.
    pub(crate) fn ratio(&self, other: &Self) -> f64 {
        self.unit.ratio(self.median(), other.median())
    }

    /// Returns the least and the greatest ratio of one round, if both had their turns
    /// in the same rounds and there was more than one.
    fn ratio_range(&self, other: &Self) -> Option<(f64, f64)> {
        if self.samples.len() != other.samples.len() || self.samples.len() < 2 {
            return None;
        }
        let rounds = self.samples.iter().zip(&other.samples);
        let ratios: Vec<_> = rounds
            .map(|(ours, theirs)| self.unit.ratio(*ours, *theirs))
            .collect();
        Some(range(&ratios))
    }
}

impl Report {
    /// Returns a setting by its name.
    pub(crate) fn setting(&self, name: &str) -> Option<&String> {
        let mut settings = self.settings.iter();
        settings.find_map(|(other, value)| (other == name).then_some(value))
    }

    /// The backends that were measured.
    pub(crate) fn backends(&self) -> Vec<Backend> {
        let all = [Backend::Sqlite, Backend::Postgres];
        all.into_iter()
            .filter(|backend| self.figures.iter().any(|figure| figure.backend == *backend))
            .collect()
    }

    /// Who was measured on a backend.
    pub(crate) fn peers(&self, backend: Backend) -> Vec<Name> {
        let measured = |name: &Name| {
            let mut figures = self.figures.iter();
            figures.any(|figure| figure.backend == backend && figure.peer == *name)
        };
        Name::ALL.into_iter().filter(measured).collect()
    }

    /// The workloads of a backend with the figures of all who were measured.
    pub(crate) fn workloads(&self, backend: Backend) -> Vec<(&str, Vec<&Figure>)> {
        let mut workloads: Vec<(&str, Vec<&Figure>)> = Vec::new();
        for figure in self
            .figures
            .iter()
            .filter(|figure| figure.backend == backend)
        {
            match workloads
                .iter_mut()
                .find(|(name, _)| *name == figure.workload)
            {
                Some((_, figures)) => figures.push(figure),
                None => workloads.push((&figure.workload, vec![figure])),
            }
        }
        workloads
    }

    fn table(
        &self,
        backend: Backend,
        peers: &[Name],
        cell: impl Fn(&Figure, &[&Figure]) -> Option<String>,
    ) -> Table {
        let mut header = vec![String::new()];
        header.extend(peers.iter().map(|name| name.title().to_owned()));
        let rows = self
            .workloads(backend)
            .into_iter()
            .filter_map(|(_, figures)| {
                let title = figures.first()?.title.clone();
                let cells: Vec<_> = peers
                    .iter()
                    .map(|name| {
                        let figure = figures.iter().find(|figure| figure.peer == *name)?;
                        cell(figure, &figures)
                    })
                    .collect();
                cells.iter().any(Option::is_some).then(|| {
                    let cells = cells
                        .into_iter()
                        .map(|cell| cell.unwrap_or_else(|| "–".to_owned()));
                    std::iter::once(title).chain(cells).collect()
                })
            });
        Table {
            rows: rows.collect(),
            header,
        }
    }

    /// Medians, with half of the range.
    pub(crate) fn medians(&self, backend: Backend) -> Table {
        self.table(backend, &self.peers(backend), |figure, _| {
            let median = short(figure.median());
            let unit = figure.unit.name();
            Some(match figure.samples.len() {
                1 => format!("{median} {unit}"),
                _ => format!("{median} {unit} ±{:.0}%", spread(&figure.samples) * 100.0),
            })
        })
    }

    /// How many times better aura-db is than each, by the medians of the rounds, and in
    /// the worst and the best round.
    pub(crate) fn ratios(&self, backend: Backend) -> Table {
        let mut peers = self.peers(backend);
        peers.retain(|name| *name != Name::AuraDb);
        self.table(backend, &peers, |figure, figures| {
            let ours = figures.iter().find(|figure| figure.peer == Name::AuraDb)?;
            let mut cell = format!("{:.2} ×", ours.ratio(figure));
            if let Some((least, greatest)) = ours.ratio_range(figure) {
                let _ = write!(cell, " ({least:.2}–{greatest:.2})");
            }
            Some(cell)
        })
    }

    /// How long one call takes: the median and the 99th of 100.
    pub(crate) fn latencies(&self, backend: Backend) -> Table {
        self.table(backend, &self.peers(backend), |figure, _| {
            if figure.p99_us.is_empty() {
                return None;
            }
            let time = |samples: &[f64]| {
                let micros = median(samples);
                match micros {
                    _ if micros >= 1000.0 => format!("{} ms", short(micros / 1000.0)),
                    _ => format!("{} µs", short(micros)),
                }
            };
            Some(format!(
                "{} / {}",
                time(&figure.p50_us),
                time(&figure.p99_us)
            ))
        })
    }

    /// All of it, for the terminal.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.settings {
            let _ = writeln!(text, "{name}: {value}");
        }
        for backend in self.backends() {
            let name = backend.name();
            let parts = [
                ("medians, ± half of the range", self.medians(backend)),
                (
                    "times that aura-db is better than (worst–best round)",
                    self.ratios(backend),
                ),
                (
                    "time of a call, median / 99th percentile",
                    self.latencies(backend),
                ),
            ];
            for (what, table) in parts {
                if table.header.len() > 1 && !table.rows.is_empty() {
                    let _ = write!(text, "\n{name}: {what}\n\n{}", table.text());
                }
            }
        }
        text
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A report of one workload.
    pub(crate) fn report(figures: &[(Name, Unit, &[f64])]) -> Report {
        Report {
            machine: Machine::default(),
            versions: Vec::new(),
            settings: Vec::new(),
            figures: figures
                .iter()
                .map(|(peer, unit, samples)| Figure {
                    backend: Backend::Sqlite,
                    workload: unit.name().to_owned(),
                    title: format!("in {}", unit.name()),
                    unit: *unit,
                    peer: *peer,
                    samples: samples.to_vec(),
                    p50_us: Vec::new(),
                    p99_us: Vec::new(),
                })
                .collect(),
        }
    }

    #[test]
    fn ratios_say_how_much_better_it_is() {
        let report = report(&[
            (Name::AuraDb, Unit::Operations, &[30.0, 20.0, 10.0]),
            (Name::TypeOrm, Unit::Operations, &[10.0]),
            (Name::AuraDb, Unit::Mebibytes, &[10.0]),
            (Name::TypeOrm, Unit::Mebibytes, &[25.0]),
            (Name::Diesel, Unit::Mebibytes, &[5.0]),
            (Name::AuraDb, Unit::Milliseconds, &[2.0, 1.0, 4.0]),
            (Name::Diesel, Unit::Milliseconds, &[8.0, 3.0, 10.0]),
        ]);
        let table = report.ratios(Backend::Sqlite);
        assert_eq!(table.header, ["", "diesel", "TypeORM"]);
        assert_eq!(table.rows[0], ["in /s", "–", "2.00 ×"]);
        assert_eq!(table.rows[1], ["in MiB", "0.50 ×", "2.50 ×"]);
        assert_eq!(table.rows[2], ["in ms", "4.00 × (2.50–4.00)", "–"]);
        assert_eq!(report.medians(Backend::Sqlite).rows[0][1], "20.0 /s ±50%");
        assert!(report.latencies(Backend::Sqlite).rows.is_empty());
        assert!(report.text().contains("SQLite: medians"));
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let written = report(&[(Name::SeaOrm, Unit::Rows, &[1.5])]);
        let text = serde_json::to_string(&written).unwrap();
        let read: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert!(text.contains(r#""peer":"seaorm""#));
    }
}
