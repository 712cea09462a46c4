//! The commands that note steps without running them.

use connection::Config;
use serde_json::json;
use terminal::{GOOD, WARN};

use super::output::Output;
use super::{Consent, Failure, ResolutionFlags, commands, consent};
use crate::migration::{Error, Resolution, Runner};

pub(super) async fn baseline(
    runner: &Runner,
    config: &Config,
    until: Option<&str>,
    consent: Consent,
    output: &Output,
) -> Result<u8, Failure> {
    terminal::refuse_production(config, "do this", consent.force)?;
    let Some(connection) = connection::connect_read_only(config).await? else {
        return Err(missing(runner, config));
    };
    let steps = runner.baseline_steps(&connection, until).await?;
    let _ = connection.close().await;
    if !steps.is_empty() {
        terminal::aside(format_args!(
            "{WARN}This notes in {} as applied, and runs none of:{WARN:#}",
            runner.history()
        ));
        for name in &steps {
            terminal::aside(format_args!("  {name}"));
        }
        if !consent::is_given(consent)? {
            return Ok(1);
        }
    }
    let noted = runner
        .baseline(config, until, |event| commands::report(output, event))
        .await?;
    for name in &noted {
        output.line(format_args!("  {GOOD}noted{GOOD:#}     {name}"));
    }
    output.line(match noted.len() {
        0 => "Nothing to do: all of them are noted as applied.".to_owned(),
        1 => "1 migration noted as applied.".to_owned(),
        more => format!("{more} migrations noted as applied."),
    });
    output.object(&json!({ "target": config.target_name(), "noted": noted }));
    Ok(0)
}

pub(super) async fn resolve(
    runner: &Runner,
    config: &Config,
    name: &str,
    flags: ResolutionFlags,
    consent: Consent,
    output: &Output,
) -> Result<u8, Failure> {
    terminal::refuse_production(config, "do this", consent.force)?;
    let Some(connection) = connection::connect_read_only(config).await? else {
        return Err(missing(runner, config));
    };
    let (resolution, words) = if flags.applied {
        (Resolution::Applied, "applied")
    } else {
        (Resolution::NotApplied, "not applied")
    };
    let is_needed = runner.resolves(&connection, name, resolution).await?;
    let _ = connection.close().await;
    if is_needed {
        terminal::aside(format_args!(
            "{WARN}This notes {name} in {} as {words}, and runs nothing.{WARN:#}",
            runner.history()
        ));
        if !consent::is_given(consent)? {
            return Ok(1);
        }
    }
    let was_noted = runner
        .resolve(config, name, resolution, |event| {
            commands::report(output, event);
        })
        .await?;
    output.line(if was_noted {
        format!("{name} is noted as {words}.")
    } else {
        format!("Nothing to do: {name} was noted as {words}.")
    });
    output.object(&json!({
        "target": config.target_name(), "name": name, "noted_as": words, "changed": was_noted,
    }));
    Ok(0)
}

fn missing(runner: &Runner, config: &Config) -> Failure {
    Error::NoDatabase {
        target: config.target_name(),
        tool: runner.tool(),
    }
    .into()
}
