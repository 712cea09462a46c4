//! Asks before something is lost.

use connection::Config;
use terminal::BAD;

use super::{Consent, Failure};
use crate::migration::{Loss, Plan, Runner};

/// Shows what a plan would delete, and asks. `None` when the answer was no.
pub(super) async fn to_losses(
    runner: &Runner,
    config: &Config,
    plan: Plan,
    consent: Consent,
) -> Result<Option<Vec<Loss>>, Failure> {
    terminal::refuse_production(config, "do this", consent.force)?;
    // Counting may take its time.
    let config = config.clone().without_timeouts();
    let losses = match connection::connect_read_only(&config).await? {
        Some(connection) => runner.losses(&connection, plan).await?,
        None => Vec::new(),
    };
    if losses.is_empty() {
        return Ok(Some(losses));
    }
    terminal::aside(format_args!("{BAD}This deletes, for good:{BAD:#}"));
    for Loss { table, rows } in &losses {
        let noun = if *rows == 1 { "row" } else { "rows" };
        terminal::aside(format_args!("  {table:<20} {rows:>12} {noun}"));
    }
    Ok(is_given(consent)?.then_some(losses))
}

/// Whether the person who was shown what will be done agrees.
pub(super) fn is_given(consent: Consent) -> Result<bool, Failure> {
    if consent.yes {
        return Ok(true);
    }
    let answer = terminal::ask("Type yes to go on: ");
    let answer = answer.ok_or("not a terminal, so no confirmation is possible; add --yes")?;
    if answer.eq_ignore_ascii_case("yes") {
        return Ok(true);
    }
    terminal::aside("Nothing was changed.");
    Ok(false)
}
