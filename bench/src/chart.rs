//! Bars, as SVG that is legible on light and dark pages.

use std::fmt::Write;

use crate::peer::Name;
use crate::report::Figure;
use crate::table::short;

const WIDTH: f64 = 860.0;
const LABELS: f64 = 130.0;
const BARS: f64 = 590.0;
const BAR: f64 = 15.0;
const GAP: f64 = 4.0;

fn colour(peer: Name) -> &'static str {
    match peer {
        Name::AuraDb => "#e4572e",
        Name::SeaOrm => "#5b8db8",
        Name::Rusqlite | Name::TokioPostgres => "#8a8f98",
        Name::Sqlx => "#6a9a5b",
        Name::Diesel | Name::DieselAsync => "#b08bc9",
        Name::TypeOrm | Name::GraphileWorker => "#d9a441",
        Name::Drizzle | Name::PgBoss => "#a3a847",
    }
}

/// A group of bars for each workload; the longest is its greatest figure.
pub(crate) fn chart(title: &str, workloads: &[(&str, Vec<&Figure>)]) -> String {
    let mut body = String::new();
    let mut y = 34.0;
    for (_, figures) in workloads {
        let Some(first) = figures.first() else {
            continue;
        };
        y += 16.0;
        let less = first.unit.ratio(1.0, 2.0) > 1.0;
        let better = if less { "less" } else { "more" };
        let _ = writeln!(
            body,
            r#"<text x="10" y="{y}" class="group">{}</text><text x="{}" y="{y}" class="note">{}, {better} is better</text>"#,
            escape(&first.title),
            WIDTH - 10.0,
            first.unit.name(),
        );
        y += 8.0;
        let greatest = figures.iter().map(|figure| figure.median());
        let greatest = greatest.fold(f64::MIN_POSITIVE, f64::max);
        for figure in figures {
            let length = (BARS * figure.median() / greatest).max(1.0);
            let base = y + BAR - 3.0;
            let _ = writeln!(
                body,
                r#"<text x="{}" y="{base}" class="name">{}</text><rect x="{LABELS}" y="{y}" width="{length:.1}" height="{BAR}" rx="2" fill="{}"/><text x="{:.1}" y="{base}">{}</text>"#,
                LABELS - 8.0,
                escape(figure.peer.title()),
                colour(figure.peer),
                LABELS + length + 6.0,
                short(figure.median()),
            );
            y += BAR + GAP;
        }
        y += 8.0;
    }
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">
<title>{title}</title>
<style>
text {{ font: 12px system-ui, sans-serif; fill: #57606a; }}
.head {{ font-size: 16px; font-weight: 600; }}
.group {{ font-weight: 600; }}
.name {{ text-anchor: end; }}
.note {{ text-anchor: end; font-size: 11px; }}
@media (prefers-color-scheme: dark) {{ text {{ fill: #c9d1d9; }} }}
</style>
<text x="10" y="24" class="head">{title}</text>
{body}</svg>
"#,
        height = y + 6.0,
        title = escape(title),
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;
    use crate::workload::{Backend, Unit};

    #[test]
    fn every_peer_has_a_bar() {
        let report = report(&[
            (Name::AuraDb, Unit::Operations, &[20.0]),
            (Name::Diesel, Unit::Operations, &[10.0]),
            (Name::AuraDb, Unit::Milliseconds, &[5.0]),
        ]);
        let svg = chart("A & B", &report.workloads(Backend::Sqlite));
        assert_eq!(svg.matches("<rect").count(), 3);
        assert!(svg.contains("A &amp; B"));
        assert!(svg.contains(r#"width="295.0""#));
        assert!(svg.contains("less is better"));
    }
}
