//! Two runs side by side.

use std::path::Path;

use crate::Result;
use crate::pin;
use crate::report::Report;
use crate::table::{Table, short};

/// Prints what two files of figures have in common.
pub(crate) fn print(before: &Path, after: &Path) -> Result<()> {
    let (before, after) = (read(before)?, read(after)?);
    let pinned = before
        .setting(pin::SETTING)
        .zip(after.setting(pin::SETTING));
    let pinned = pinned.map(|(one, other)| ("choice of processors", one, other));
    let machines = [
        (
            "processor",
            &before.machine.processor,
            &after.machine.processor,
        ),
        ("system", &before.machine.system, &after.machine.system),
    ];
    for (what, one, other) in machines.into_iter().chain(pinned) {
        if one != other {
            terminal::aside(format_args!("the {what} differs: {one} and {other}"));
        }
    }
    terminal::line(compared(&before, &after).text().trim_end());
    Ok(())
}

fn read(path: &Path) -> Result<Report> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("{name}: {error}").into())
}

/// More than 1 × is better than before.
fn compared(before: &Report, after: &Report) -> Table {
    let mut rows = Vec::new();
    for new in &after.figures {
        let old = before.figures.iter().find(|old| {
            (old.backend, &old.workload, old.peer) == (new.backend, &new.workload, new.peer)
        });
        if let Some(old) = old {
            rows.push(vec![
                format!(
                    "{} · {} · {}",
                    new.backend.name(),
                    new.peer.title(),
                    new.title
                ),
                format!("{} {}", short(old.median()), old.unit.name()),
                format!("{} {}", short(new.median()), new.unit.name()),
                format!("{:.2} ×", new.ratio(old)),
            ]);
        }
    }
    Table {
        header: ["", "before", "after", "better by"]
            .map(str::to_owned)
            .to_vec(),
        rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Name;
    use crate::report::tests::report;
    use crate::workload::Unit;

    #[test]
    fn only_what_both_have_is_compared() {
        let before = report(&[
            (Name::AuraDb, Unit::Milliseconds, &[8.0]),
            (Name::Diesel, Unit::Operations, &[8.0]),
        ]);
        let after = report(&[
            (Name::AuraDb, Unit::Milliseconds, &[4.0, 4.0]),
            (Name::AuraDb, Unit::Operations, &[1.0]),
        ]);
        let rows = compared(&before, &after).rows;
        assert_eq!(
            rows,
            [["SQLite · aura-db · in ms", "8.00 ms", "4.00 ms", "2.00 ×"]]
        );
    }
}
